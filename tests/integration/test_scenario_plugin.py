# SPDX-License-Identifier: GPL-2.0-only
"""pytest's own verdict on scenarios: nothing that the run found ends in green."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.model.results import Outcome, RunResult, Verdict
from harness.report import json_report
from harness.stages.run import MainJob
from tests.integration.test_scenario import SPLAT, PlayedFleet

pytest_plugins = ["pytester"]

HEAD = f"""
import pytest
from harness.model.kernel import Role
from harness.model.results import Failure

pytestmark = pytest.mark.tdisp(plan="default", topology="pair")
SPLAT = {SPLAT!r}
FAILURE = Failure("oracle", "guest", "platform: a fault")

def test_good(scenario):
    pass
"""
# what the guest's end or the platform still says after the last test
LATE = """
@pytest.fixture(scope="module", autouse=True)
def late(scenario_run):
    yield
    {}
"""


@contextlib.contextmanager
def played_fleet(job: MainJob, *_: object) -> Iterator[PlayedFleet]:
    fleet = PlayedFleet(job)
    yield fleet
    fleet.close()


class Scenarios:
    """Modules of scenarios on machines that play a script."""

    def __init__(self, pytester: pytest.Pytester, runs: Path) -> None:
        self._pytester, self._runs = pytester, runs

    def run(self, text: str) -> tuple[pytest.RunResult, RunResult]:
        self._pytester.makepyfile(HEAD + text)
        options = ("-q", "-p", "no:cacheprovider", "--tdisp-runs-dir", str(self._runs))
        said = self._pytester.runpytest_inprocess(*options)
        return said, json_report.load(self._runs / "latest" / "result.json")


@pytest.fixture
def scenarios(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scenarios:
    monkeypatch.setattr(MainJob, "kernels_and_provisions", lambda _: ({}, None))
    monkeypatch.setattr(MainJob, "fleet", played_fleet)
    return Scenarios(pytester, tmp_path / "runs")


def test_all_is_well(scenarios: Scenarios) -> None:
    said, result = scenarios.run("")
    said.assert_outcomes(passed=1)
    assert (said.ret, result.verdict) == (0, Verdict.PASS)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("scenario.host.say(SPLAT)", "host: KASAN"),
        ("scenario.host.say(SPLAT); pytest.skip('not here')", "host: KASAN"),
        ("scenario.recorder.failure(FAILURE)", "platform: a fault"),
        ("scenario.recorder.failure(FAILURE); pytest.skip('not here')", "platform: a fault"),
    ],
)
def test_what_comes_with_a_test_fails_it(scenarios: Scenarios, act: str, told: str) -> None:
    said, result = scenarios.run(f"def test_bad(scenario):\n    {act}\n")
    said.assert_outcomes(passed=1, failed=1)
    said.stdout.fnmatch_lines([f"*{told}*"])
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("scenario_run.fleet.up[Role.HOST].say(SPLAT)", "host: KASAN"),
        ("scenario_run.job.recorder.failure(FAILURE)", "platform: a fault"),
    ],
)
def test_what_comes_after_the_last_test_fails_the_module(
    scenarios: Scenarios, act: str, told: str
) -> None:
    said, result = scenarios.run(LATE.format(act))
    said.assert_outcomes(passed=1, errors=1)
    said.stdout.fnmatch_lines([f"*{told}*"])
    assert said.ret != 0
    assert result.verdict is Verdict.FAIL


XFAIL = "@pytest.mark.xfail(reason='bug 7', strict={})\n"


def outcomes(result: RunResult) -> list[tuple[str, Outcome, str]]:
    return [(test.test, test.outcome, test.reason) for test in result.tests[1:]]


@pytest.mark.parametrize("strict", [True, False])
def test_an_expected_failure_is_one_for_the_run_too(scenarios: Scenarios, strict: bool) -> None:
    said, result = scenarios.run(
        f"{XFAIL.format(strict)}def test_known(scenario):\n    assert scenario.pair is False\n"
        "def test_found(scenario):\n    pytest.xfail('bug 8')\n"
    )
    said.assert_outcomes(passed=1, xfailed=2)
    assert outcomes(result) == [
        ("known", Outcome.XFAIL, "bug 7"),
        ("found", Outcome.XFAIL, "bug 8"),
    ]
    assert (said.ret, result.verdict) == (0, Verdict.PASS)


def test_an_expected_failure_in_a_fixture(scenarios: Scenarios) -> None:
    said, result = scenarios.run(
        "@pytest.fixture\ndef broken(scenario):\n    raise ValueError\n"
        f"{XFAIL.format(True)}def test_known(broken):\n    pass\n"
    )
    said.assert_outcomes(passed=1, xfailed=1)
    assert outcomes(result) == [("known", Outcome.XFAIL, "bug 7")]


def test_a_pass_that_was_not_expected_is_a_failure_where_it_is_strict(
    scenarios: Scenarios,
) -> None:
    said, result = scenarios.run(
        f"{XFAIL.format(True)}def test_strict(scenario):\n    pass\n"
        f"{XFAIL.format(False)}def test_lax(scenario):\n    pass\n"
    )
    said.assert_outcomes(passed=1, failed=1, xpassed=1)
    assert outcomes(result) == [
        ("strict", Outcome.XPASS, "[XPASS(strict)] bug 7"),
        ("lax", Outcome.PASS, ""),
    ]
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize("own", ["assert False", "pass"])
def test_an_expected_failure_excuses_nothing_else(scenarios: Scenarios, own: str) -> None:
    said, result = scenarios.run(
        f"{XFAIL.format(False)}def test_bad(scenario):\n    scenario.host.say(SPLAT)\n    {own}\n"
    )
    said.assert_outcomes(passed=1, failed=1)
    said.stdout.fnmatch_lines(["*host: KASAN*"])
    assert [outcome for _, outcome, _ in outcomes(result)] == [Outcome.FAIL]


def test_an_expected_failure_does_not_excuse_the_infrastructure(scenarios: Scenarios) -> None:
    said, result = scenarios.run(
        "from harness.errors import MachineError\n"
        f"{XFAIL.format(False)}def test_bad(scenario):\n    raise MachineError('guest: lost')\n"
    )
    said.assert_outcomes(passed=1, failed=1)
    assert outcomes(result) == [("bad", Outcome.INFRA, "guest: lost")]


def test_a_scenario_that_was_interrupted(scenarios: Scenarios) -> None:
    _, result = scenarios.run("def test_ended(scenario):\n    pytest.exit('enough')\n")
    assert outcomes(result) == [("ended", Outcome.INFRA, "interrupted")]
    assert result.verdict is Verdict.INFRA


def test_a_defect_in_the_judgement_fails_its_test(scenarios: Scenarios) -> None:
    said, _ = scenarios.run(
        "def test_odd(scenario):\n    scenario.rules = None\ndef test_next(scenario):\n    pass\n"
    )
    said.assert_outcomes(passed=2, failed=1)


def test_what_failed_a_test_is_told_once(scenarios: Scenarios) -> None:
    said, _ = scenarios.run(
        "def test_bad(scenario):\n"
        "    scenario.host.say(SPLAT)\n"
        "    scenario.recorder.failure(FAILURE)\n"
    )
    said.assert_outcomes(passed=1, failed=1, errors=0)
