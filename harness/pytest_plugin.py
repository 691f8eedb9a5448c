# SPDX-License-Identifier: GPL-2.0-only
"""pytest fixtures for scenarios: tests that act on the host, the guest and the platform at once.

A module says which plan its machines come from, and in which cell of the platform's matrix:

    pytestmark = pytest.mark.tdisp(plan="trust", cell="model-B")

    def test_the_host_takes_the_tdi_away(scenario: Scenario, tdi: GuestTdi) -> None:
        ...

The kernels, images and machines are those of `tdisp-harness run PLAN`, from the same caches. Each
module is a run of its own, with a run directory and its reports; machines are shared by the tests
of a module until one of them breaks them. A test also fails for a splat on any console, for a DMA
that the platform blocked without an announcement, and for a machine that ended. What the run found
outside of its tests is an error at the end of the module.

options: --tdisp-runs-dir DIR (default: runs)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# every pytest run of an environment with the harness imports this: the rest comes when used
if TYPE_CHECKING:
    from harness.machines.platform_process import PlatformProcess
    from harness.machines.remote import RemoteMachine
    from harness.machines.tdi import GuestTdi
    from harness.model.plan import Plan
    from harness.model.results import Failure, Outcome
    from harness.stages.fleet import Fleet
    from harness.stages.run import MainJob
    from harness.stages.scenario import Scenario

_SCENARIO = pytest.StashKey["Scenario"]()
_MARK = (
    "tdisp(plan, cell, topology): the plan, cell and topology of the machines of these scenarios"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tdisp", "scenarios of the TDISP harness")
    group.addoption(
        "--tdisp-runs-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where scenarios write their run directories (default: runs)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """The run of one module: its machines and what it records.

    failures, splats: those that a test has answered for; a splat by machine and first line.
    """

    job: MainJob
    fleet: Fleet
    cell: str
    pair: bool
    failures: set[Failure] = field(default_factory=set)
    splats: set[tuple[str, int]] = field(default_factory=set)

    def answered(self, scenario: Scenario) -> None:
        """What this test fails for."""
        self.failures.update(scenario.failures)
        self.splats.update((found.machine, found.splat.start_line) for found in scenario.splats)

    def unanswered(self) -> list[str]:
        """What fails the run, and no test of it."""
        result = self.job.recorder.result
        said = [failure.message for failure in result.failures if failure not in self.failures]
        return said + [
            f"{found.machine}: {found.splat.title}, outside of any test"
            for found in result.splats
            if not found.expected and (found.machine, found.splat.start_line) not in self.splats
        ]


@pytest.fixture(scope="module")
def scenario_runs_dir(request: pytest.FixtureRequest) -> Path:
    """Where run directories are made; may be overridden."""
    return Path(request.config.getoption("--tdisp-runs-dir"))


@pytest.fixture(scope="module")
def scenario_run(request: pytest.FixtureRequest, scenario_runs_dir: Path) -> Iterator[ScenarioRun]:
    """The run of this module's scenarios. A run that cannot begin is an error of each test."""
    from harness import cli, commands  # noqa: PLC0415
    from harness.model.kernel import Role  # noqa: PLC0415
    from harness.model.plan import Topology  # noqa: PLC0415
    from harness.model.progress import SilentProgress  # noqa: PLC0415
    from harness.stages.run import MainJob  # noqa: PLC0415

    said = _said(request)
    argv = ["run", said["plan"], "--runs-dir", str(scenario_runs_dir)]
    argv += ["--topology", said["topology"]] if said["topology"] else []
    options = commands.run_options(cli.parse(argv), argv)
    job = MainJob(options, SilentProgress())
    run: ScenarioRun | None = None
    with ExitStack() as stack:
        stack.enter_context(job.opened())  # keeps what goes wrong inside to itself, recorded
        builds, provisions = job.kernels_and_provisions()
        fleet = stack.enter_context(job.fleet(builds, provisions))
        cell = _cell(fleet, options.plan, said["cell"])
        pair = options.topology is Topology.PAIR and not fleet.alone(Role.GUEST, cell)
        run = ScenarioRun(job, fleet, cell, pair)
        yield run
    if run is None:
        said_last = [failure.message for failure in job.recorder.result.failures]
        pytest.fail("; ".join(said_last) or "the run did not begin", pytrace=False)
    unanswered = run.unanswered()
    if unanswered:
        pytest.fail("; ".join(unanswered), pytrace=False)


def _said(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the module's mark says."""
    mark = request.node.get_closest_marker("tdisp")
    said = dict(mark.kwargs) if mark is not None else {}
    unknown = sorted(set(said) - {"plan", "cell", "topology"})
    if unknown:
        pytest.fail(f"tdisp(): unknown: {', '.join(unknown)}\nhint: {_MARK}", pytrace=False)
    return {"plan": "trust", "cell": "", "topology": ""} | said


def _cell(fleet: Fleet, plan: Plan, asked: str) -> str:
    """Without a wish: where the plan's first test of the guest runs."""
    from harness.core.plan import first_cell  # noqa: PLC0415

    known = fleet.platform.cells() if fleet.platform is not None else ()
    if asked and asked not in known:
        have = ", ".join(known) or "no [platform]"
        pytest.fail(f"tdisp(cell={asked!r}): the plan has {have}", pytrace=False)
    return asked or first_cell(plan)


@pytest.fixture
def scenario(request: pytest.FixtureRequest, scenario_run: ScenarioRun) -> Iterator[Scenario]:
    """One test's machines, platform and verdict: booted, watched from here on."""
    from harness.model.kernel import Role  # noqa: PLC0415
    from harness.model.plan import TestId  # noqa: PLC0415
    from harness.model.results import Outcome  # noqa: PLC0415
    from harness.stages.scenario import COLLECTION, Scenario  # noqa: PLC0415

    job, fleet = scenario_run.job, scenario_run.fleet
    name = request.node.name.removeprefix("test_")
    test = TestId(Role.GUEST, COLLECTION, name, scenario_run.cell)
    made = Scenario(fleet, job.recorder, job.rules, test, scenario_run.pair)
    made.begin()
    request.node.stash[_SCENARIO] = made
    yield made
    if _SCENARIO in request.node.stash:  # pytest was interrupted: no report came
        made.finish(Outcome.INFRA, "interrupted")
    scenario_run.answered(made)


@pytest.fixture
def guest(scenario: Scenario) -> RemoteMachine:
    """The guest VM."""
    return scenario.guest


@pytest.fixture
def host(scenario: Scenario) -> RemoteMachine:
    """The host machine; a skip in topology solo."""
    if not scenario.pair:
        pytest.skip("topology solo has no host machine")
    return scenario.host


@pytest.fixture
def platform(scenario: Scenario) -> PlatformProcess:
    """The emulated platform from outside; a skip where the plan has none."""
    if not scenario.test.cell:
        pytest.skip("no platform: the plan has none, or none for this cell")
    return scenario.platform


@pytest.fixture
def tdi(scenario: Scenario) -> GuestTdi:
    """The guest's first TDI: the host bound it to the guest, it is unlocked and has no driver.

    A skip where there is none.
    """
    from harness.machines.tdi import NoTdiError  # noqa: PLC0415
    from harness.model.kernel import Role  # noqa: PLC0415

    try:
        found = scenario.tdi()
    except NoTdiError as exc:
        pytest.skip(exc.message)
    states = scenario.platform.ask(op="state")["tdis"]
    if not states[found.interface]["bound"]:  # an earlier scenario took it away
        if scenario.platform.cell.by_host:
            scenario.fresh(Role.GUEST)  # the host's kernel binds it to the next one
            found = scenario.tdi()
        else:
            scenario.platform.ask(op="bind", tdi=found.interface)
    found.must("reset")
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A scenario ends with its test, or with a fixture that skips or fails: what consoles and
    platform say fails the test itself. Here, where pytest knows which failures are expected.
    """
    report = yield
    if call.when == "call" or (call.when == "setup" and not report.passed):
        scenario = item.stash.get(_SCENARIO, None)
        if scenario is not None:
            del item.stash[_SCENARIO]
            _finish(scenario, report, call.excinfo)
    return report


def _finish(
    scenario: Scenario, report: pytest.TestReport, raised: pytest.ExceptionInfo[Any] | None
) -> None:
    try:
        result = scenario.finish(*_outcome(report, raised.value if raised else None))
        said = [failure.message for failure in scenario.failures]
        if not result.outcome.good:
            said.insert(0, f"{result.outcome.value}: {result.reason}")
    except Exception as exc:  # raised from this hook, it would end all of pytest
        said = [f"the scenario cannot be judged: {exc!r}"]
    if said and not report.failed:
        report.outcome, report.longrepr = "failed", "; ".join(said)
        vars(report).pop("wasxfail", None)


def _outcome(report: pytest.TestReport, exc: BaseException | None) -> tuple[Outcome, str]:
    """The test's own outcome, and its reason."""
    from harness.errors import InfraError  # noqa: PLC0415
    from harness.model.results import Outcome  # noqa: PLC0415

    why = str(exc).strip().partition("\n")[0] if exc else ""
    if isinstance(exc, InfraError):
        return Outcome.INFRA, why
    if report.skipped and hasattr(report, "wasxfail"):
        return Outcome.XFAIL, report.wasxfail.removeprefix("reason: ")
    if report.skipped:
        return Outcome.SKIP, why
    if report.failed and exc is None:
        return Outcome.XPASS, str(report.longrepr)  # only strict ones fail
    return (Outcome.FAIL if report.failed else Outcome.PASS), why
