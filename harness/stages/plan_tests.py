# SPDX-License-Identifier: GPL-2.0-only
"""The tests of a plan, one after the other, on the machines of a run: each is recorded whatever
happens, repeated as the plan says, and what the infrastructure did to it is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from harness.core.kconfig import parse_config
from harness.core.plan import all_cells
from harness.core.splat_rules import RuleSet
from harness.errors import InfraError, KernelError, StorageError
from harness.model.kernel import KernelBuild, Role
from harness.model.options import RunOptions
from harness.model.plan import RepeatPolicy, TestId, TestSelection
from harness.model.progress import Progress
from harness.model.results import Outcome, TestResult
from harness.stages import build, failures, lab, selftest
from harness.stages.attempts import until_settled
from harness.stages.fleet import Fleet
from harness.stages.recorder import Recorder


class PlanTests:
    """run() all of them, or one(). today: for known failures that expire."""

    def __init__(
        self,
        options: RunOptions,
        recorder: Recorder,
        progress: Progress,
        rules: RuleSet,
        today: date,
    ) -> None:
        self._options = options
        self._recorder = recorder
        self._progress = progress
        self._rules = rules
        self._today = today
        self._builds: Mapping[Role, KernelBuild] = {}

    def run(
        self,
        fleet: Fleet,
        builds: Mapping[Role, KernelBuild],
        chosen: tuple[tuple[TestId, TestSelection], ...],
    ) -> None:
        """Boot what comes first, then run the tests in the order of the plan."""
        self._builds = builds
        with self._recorder.stage(self._progress, "boot"):
            self.boot_first(fleet, builds, chosen)
        with self._recorder.stage(self._progress, "kselftests"):
            for done, (test, selection) in enumerate(chosen):
                self._progress.count(done, len(chosen), f"tests done, now {test}")
                self.one(fleet, builds[test.role], test, selection)

    def boot_first(
        self,
        fleet: Fleet,
        builds: Mapping[Role, KernelBuild],
        chosen: tuple[tuple[TestId, TestSelection], ...],
    ) -> None:
        """The machines of the first tests. A guest that stands alone has to wait for the pair.

        A kernel that does not come up ends the run, unless there are tests that do not need it.
        """
        needed = [t for t, s in chosen if _is_built(builds[t.role], t) and not self._left_out(t, s)]
        places = [(test.role, test.cell) for test in needed]
        pair = [place for place in places if not fleet.alone(*place)]
        first = dict(reversed(pair or places))
        for role in builds:
            # a guest boots its host machine; with a platform that is another one than for the
            # host's own tests, and has to wait for these
            if role not in first or (Role.HOST in first and first[role]):
                continue
            try:
                fleet.get(role, first.get(role, ""))
            except KernelError as exc:
                hosts = role is Role.GUEST and Role.HOST in first
                if not pair or not (hosts or len(pair) < len(places)):
                    raise
                self._recorder.failure(failures.from_error(exc))
                return

    def _left_out(self, test: TestId, selection: TestSelection) -> str:
        """Why a test of the plan is not run, "" when it is."""
        reason = dict(selection.skip).get(test.test)
        if reason is not None:
            return f"plan: {reason}"
        cell = all_cells(self._options.plan).get(test.cell)
        if cell is None:
            return ""
        host = self._builds.get(Role.HOST)
        if cell.by_host and host is not None and not _has_link_tsm(host):
            return "the host's kernel has no TSM for the platform (CONFIG_TDISP_EMU_LINK)"
        return lab.cannot_have(self._options.lab, cell)

    def one(self, fleet: Fleet, built: KernelBuild, test: TestId, selection: TestSelection) -> None:
        """One test of the plan, recorded whatever happens; repeated as the plan says."""
        now, name = self._recorder.now(), fleet.name(test.role, test.cell)
        reason = self._left_out(test, selection)
        if reason:
            self._recorder.test(selftest.skipped(test, name, reason, now))
            return
        if not _is_built(built, test):
            why = "named in the plan, but not among the kselftests that were built"
            self._recorder.test(selftest.missing(test, name, why, now))
            return
        policy = (
            RepeatPolicy(0, 0) if fleet.broken(test.role, test.cell) else self._options.plan.repeats
        )
        lost: list[InfraError] = []
        try:
            result = until_settled(
                lambda: self._attempt(fleet, test, selection, lost),
                lambda: fleet.discard(test.role),
                policy,
                self._progress.say,
            )
        except KernelError as exc:  # its kernel did not come up again; the other role's may
            self._recorder.failure(failures.from_error(exc))
            if not any(t.key == str(test) for t in self._recorder.result.tests):
                self._recorder.test(selftest.not_run(test, name, exc.message, now))
            return
        for error in lost:
            if result.outcome is Outcome.INFRA:
                self._recorder.failure(failures.from_error(error))
            else:
                self._recorder.note(f"{test}: tried again after: {error.message}")
        self._recorder.settle(result)

    def _attempt(
        self, fleet: Fleet, test: TestId, selection: TestSelection, lost: list[InfraError]
    ) -> TestResult:
        """One attempt, recorded; what the infrastructure did to it is added to `lost`."""
        now = self._recorder.now()
        try:
            machine = fleet.get(test.role, test.cell)
            speed, watch = fleet.speed(test.role), fleet.platform if test.cell else None
            settings = selftest.SelftestSettings(
                fleet.token, speed, self._rules, self._today, watch, fleet.beside(test.role)
            )
            result = selftest.run_test(machine, test, selection, self._recorder, settings)
            if result.outcome is Outcome.INFRA:
                lost.append(InfraError(result.reason))
        except StorageError:
            raise  # no further attempt can be recorded; what is known already stays
        except InfraError as exc:
            lost.append(exc)
            name = fleet.name(test.role, test.cell)
            result = selftest.not_run(test, name, exc.message, now)
            self._recorder.test(result)
        self._progress.say(
            f"{result.outcome.value:8} {test} ({result.duration_s:.1f} s)"
            + (f": {result.reason}" if result.reason else "")
        )
        try:
            fleet.after_test(test.role, result)
        except InfraError as exc:
            # that the machine could not be looked at changes nothing about the test
            self._recorder.failure(failures.from_error(exc))
        return result


def _has_link_tsm(host: KernelBuild) -> bool:
    """Without our series (--no-builtin-series host) it has none."""
    return parse_config(host.config.read_text()).get("TDISP_EMU_LINK") in ("y", "m")


def _is_built(built: KernelBuild, test: TestId) -> bool:
    return f"{test.collection}:{test.test}" in build.kselftest_list(built)
