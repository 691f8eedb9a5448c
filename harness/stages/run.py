# SPDX-License-Identifier: GPL-2.0-only
"""The main job: source -> patch -> config -> build -> boot -> deploy -> kselftests -> verdict."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime

from filelock import FileLock, Timeout

from harness import __version__, layout
from harness.adapters import live, system_packages
from harness.adapters.process import TABLE, Interrupted, ignore_pid, interrupts_later
from harness.adapters.store import ArtifactStore
from harness.core.known import expired_notes
from harness.core.pins import PinBook
from harness.core.plan import all_cells, choose_tests, first_cell
from harness.core.select import Expression, parse_expression
from harness.core.splat_rules import load_rules
from harness.errors import (
    DamagedSourceError,
    HarnessError,
    StorageError,
    UserError,
)
from harness.model.kernel import KernelBuild, Role
from harness.model.options import RunOptions
from harness.model.plan import Plan, TestId, TestSelection
from harness.model.progress import Progress
from harness.model.results import SCHEMA_VERSION, RunResult, Verdict
from harness.report import json_report
from harness.stages import build, failures, lab, source
from harness.stages.decode import decode_traces
from harness.stages.fleet import Fleet
from harness.stages.kernels import KernelMaker
from harness.stages.plan_tests import PlanTests
from harness.stages.provision import Provisions, provision
from harness.stages.recorder import Recorder
from harness.stages.run_directory import make_run_directory


class MainJob:
    """One run. `execute` returns the result whatever happens; only UserError leaves it."""

    def __init__(
        self,
        options: RunOptions,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
        today: date | None = None,
    ) -> None:
        self._options = options
        self._progress = progress
        self._today = today or datetime.now(UTC).date()
        begin, self._started = clock(), datetime.now(UTC)  # together: one is the other's zero
        self._clock = lambda: clock() - begin
        self.rules = load_rules((layout.CONFIGS / "splat_rules.toml").read_text())
        self._expression = parse_expression(options.expression) if options.expression else None
        names_nothing_at_all(options.plan, options.expression, self._expression)
        run_dir = make_run_directory(options.runs_dir, options.plan.name, self._started)
        first = self._first(run_dir.name)
        self.recorder = Recorder(
            first, run_dir, self._clock, json_report.write, json_report.write_draft
        )
        self.recorder.pins = PinBook(
            dict(options.pins), allow=options.allow_differences, say=progress.say
        )
        self._store = ArtifactStore(options.cache / "store", on_note=progress.say)
        self._live = live.LiveRecord(options.cache, f"{run_dir.name}-{os.getpid()}")
        self.tests = PlanTests(options, self.recorder, progress, self.rules, self._today)

    def _first(self, run_id: str) -> RunResult:
        return RunResult(
            schema_version=SCHEMA_VERSION,
            run_id=run_id,
            plan=self._options.plan.name,
            topology=self._options.topology.value,
            started=self._started.isoformat(timespec="milliseconds"),
            duration_s=0.0,
            verdict=Verdict.INFRA,
            exit_code=2,
            harness_version=__version__,
            controller={
                "os": _os_name(),
                "cpus": str(os.cpu_count()),
                "python": platform.python_version(),
            },
            command=self._options.command,
            expression=self._options.expression,
            flaky_passes=self._options.plan.flaky_passes,
            notes=(
                *self._options.plan.notes,
                *expired_notes(self._options.plan.selections, self._today),
            ),
        )

    def execute(self, work: Callable[[MainJob], None] | None = None) -> RunResult:
        """Do `work` (default: everything) and write all reports."""
        with self.opened():
            (work or MainJob.everything)(self)
        return self.recorder.result

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """A run around what the caller does: its failures recorded, all reports written.

        One at a time in a process. Of what is raised inside only UserError leaves it.
        """
        TABLE.on_start, TABLE.on_end = self._live.add_process, self._live.remove_process
        user_error: UserError | None = None
        try:
            self.recorder.begin()
            for leftover in live.sweep(self._options.cache):
                self._progress.say(f"cleared up after {leftover.run}: {leftover.what}")
            with self.recorder.growing(), self._failures_recorded():
                self._pin_options()
                yield
        except UserError as exc:
            user_error = exc
        finally:
            try:
                with interrupts_later():
                    TABLE.end_all()
            finally:
                TABLE.stopping.clear()  # reports, and the next run of this process, may start some
                try:
                    _reports().write_all(self.recorder, self._options, self._progress)
                finally:
                    with interrupts_later():
                        # a process started after this run must not bring its record back to life
                        TABLE.on_start = TABLE.on_end = ignore_pid
                        self._live.close()
        if user_error is not None:
            raise user_error

    def _pin_options(self) -> None:
        options = self._options
        digest = hashlib.sha256(options.plan_text.encode()).hexdigest()
        self.recorder.pins.pin("plan", f"{options.plan.name}, sha256 {digest}")
        chosen = f"topology {options.topology.value}, -k {options.expression or '(all)'}"
        self.recorder.pins.pin("tests", chosen)

    @contextlib.contextmanager
    def _failures_recorded(self) -> Iterator[None]:
        try:
            yield
        except HarnessError as exc:
            self.recorder.failure(failures.from_error(exc))
            if isinstance(exc, UserError):
                raise
        except (KeyboardInterrupt, Interrupted):
            self._progress.say("interrupted: ending machines and processes")
            self.recorder.failure(failures.interrupted())
        except OSError as exc:
            error = StorageError(f"{exc.filename or 'I/O'}: {exc.strerror}")
            self.recorder.failure(failures.from_error(error))
        except Exception as exc:
            self.recorder.failure(failures.defect(exc))
            raise

    def everything(self) -> None:
        """The whole main job."""
        with lab.reserved(self._options.lab, self._options.cache):
            self.test(*self.kernels_and_provisions())

    def test(self, builds: Mapping[Role, KernelBuild], provisions: Provisions) -> None:
        """The tests of the plan, on kernels that are built."""
        chosen = self._chosen(builds)
        with self.fleet(builds, provisions) as fleet:
            if not self._options.keep:  # else somebody may want to run the others by hand
                fleet.wanted = {
                    role: frozenset(f"{t.collection}:{t.test}" for t, _ in chosen if t.role is role)
                    for role in builds
                }
            self.tests.run(fleet, builds, chosen)
            if self._options.keep:
                self.wait_for_interrupt(fleet)

    def kernels_and_provisions(self) -> tuple[Mapping[Role, KernelBuild], Provisions]:
        """Both kernels, and meanwhile QEMU and the root file systems."""
        requirements = system_packages.load(layout.CONFIGS / "requirements.toml")
        with self.recorder.stage(self._progress, "system"):
            system_packages.ensure(requirements, self._progress)
        # downloads and disk images overlap with the compiler
        with ThreadPoolExecutor(1, "provision") as pool:
            provisions: Future[Provisions] = pool.submit(self._provision)
            try:
                builds = self.kernels()
                with self.recorder.stage(self._progress, "machines' disks and QEMU"):
                    found = provisions.result()
            except BaseException:
                if not provisions.cancel() and not provisions.done():
                    TABLE.stopping.set()
                    try:
                        TABLE.end_all()
                        with contextlib.suppress(Exception):
                            provisions.result()
                    finally:
                        TABLE.stopping.clear()
                raise
            self._pin_provisions(found)
            return builds, found

    def _pin_provisions(self, found: Provisions) -> None:
        pins = self.recorder.pins
        hint = "Debian packages move on; the cache of the original run still holds its images"
        pins.pin("QEMU", f"{found.qemu.version} ({found.qemu.origin})", hint)
        for name, image in (("guest", found.guest), ("host", found.host)):
            if image is not None:
                pins.pin(f"root file system of the {name}", f"sha256 {image.digest}", hint)

    def build_only(self) -> Mapping[Role, KernelBuild]:
        """The verb `build`: system packages and kernels, nothing booted."""
        requirements = system_packages.load(layout.CONFIGS / "requirements.toml")
        system_packages.ensure(requirements, self._progress)
        return self.kernels()

    def boot_and_wait(self) -> None:
        """The verb `boot`: machines up until Ctrl-C."""
        builds, provisions = self.kernels_and_provisions()
        with self.fleet(builds, provisions) as fleet:
            with self.recorder.stage(self._progress, "boot"):
                for role in builds:
                    guest = role is Role.GUEST
                    fleet.get(role, first_cell(self._options.plan) if guest else "")
            self.wait_for_interrupt(fleet)

    def _provision(self) -> Provisions:
        return provision(
            self._options.topology,
            self._options.cache,
            self._store,
            self.recorder.run_dir,
            self._progress,
            lab=self._options.lab is not None,
            solo=any(not cell.nested for cell in all_cells(self._options.plan).values()),
        )

    def kernels(self) -> Mapping[Role, KernelBuild]:
        """Source, series, configuration and build of every role."""
        try:
            return self._kernels(thorough=False)
        except DamagedSourceError as exc:
            self._progress.say(f"note: {exc.message}: beginning again")
            return self._kernels(thorough=True)

    def _kernels(self, *, thorough: bool) -> Mapping[Role, KernelBuild]:
        options, progress = self._options, self._progress
        with self.recorder.stage(progress, "source") as note:
            tree = source.fetch(options.source, options.cache, progress, thorough=thorough)
            note.text = f"Linux {tree.version} from {tree.origin}"
        self.recorder.pins.pin("source", source.pin(tree), "put that source in the cache, or")
        maker = KernelMaker(options, self._store, self.recorder, progress)
        with self._work_lock():
            trees = maker.patched(tree)
            configured = {role: maker.configured(trees[role]) for role in trees}
            return {role: maker.built(trees[role], *configured[role]) for role in trees}

    @contextlib.contextmanager
    def _work_lock(self) -> Iterator[None]:
        """One run at a time patches and builds in the warm trees; another one waits."""
        path = self._options.cache / "work" / ".lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._progress.say("another run is building: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _chosen(
        self, builds: Mapping[Role, KernelBuild]
    ) -> tuple[tuple[TestId, TestSelection], ...]:
        built = {role: build.kselftest_list(done) for role, done in builds.items()}
        chosen = choose_tests(self._options.plan, built, self._expression)
        if not chosen:
            raise no_test(self._options.plan, built, self._options.expression)
        return chosen

    @contextlib.contextmanager
    def fleet(self, builds: Mapping[Role, KernelBuild], provisions: Provisions) -> Iterator[Fleet]:
        """The machines, ended on the way out; their consoles are searched before that."""
        fleet = Fleet(
            self._options,
            builds,
            provisions,
            self.recorder,
            self._progress,
            rules=self.rules,
            live=self._live,
            meanwhile=_prepare_reports,
        )
        try:
            yield fleet
        finally:
            fleet.close()
            decode_traces(self.recorder, builds)

    def wait_for_interrupt(self, fleet: Fleet) -> None:
        """Leave the machines up, say how to reach them, until Ctrl-C."""
        for line in fleet.how_to_reach():
            self._progress.say(line)
        self._progress.stage("machines are up", "Ctrl-C ends them")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


def _reports() -> types.ModuleType:
    """The writers of reports: their libraries take a quarter of a second to load."""
    from harness.stages import reports  # noqa: PLC0415

    return reports


def _prepare_reports() -> None:
    """Only the end of a run needs them: they are made ready while its first machine boots."""
    _reports().prepare()


def names_nothing_at_all(plan: Plan, text: str, expression: Expression | None) -> None:
    """UserError when -k fits no test of a plan without patterns: known before the build."""
    named = [name for one in plan.selections for name in one.tests if not name.startswith("!")]
    if expression is None or any(set("*?[") & set(name) for name in named):
        return
    nothing_built: dict[Role, Sequence[str]] = dict.fromkeys(Role, ())
    if not choose_tests(plan, nothing_built, expression):
        raise no_test(plan, nothing_built, text)


def no_test(plan: Plan, built: Mapping[Role, Sequence[str]], expression: str) -> UserError:
    """-k names nothing of what the plan runs of what was built."""
    there = [test for test, _ in choose_tests(plan, built, None)]
    names = dict.fromkeys(f"{test.role}:{test.collection}:{test.test}" for test in there)
    cells = dict.fromkeys(test.cell for test in there if test.cell)
    in_cells = f"; in {', '.join(cells)}" if cells else ""
    return UserError(
        f"-k {expression!r}: selects no test", hint=f"there are: {', '.join(names)}{in_cells}"
    )


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()
