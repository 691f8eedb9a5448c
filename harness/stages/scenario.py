# SPDX-License-Identifier: GPL-2.0-only
"""A test that acts on more than one machine, from outside, and its verdict.

What a kselftest cannot do: the host takes a device away while the guest uses it, a VM ends while it
holds mappings. The test holds the machines and the platform; consoles, platform and the machines'
ends are judged as they are for a kselftest. harness/pytest_plugin.py makes fixtures of it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from harness.core import attribution
from harness.core.oracle import judge_events
from harness.core.splat_rules import RuleSet
from harness.errors import MachineError, UserError
from harness.machines.platform_process import PlatformProcess
from harness.machines.remote import RemoteMachine
from harness.machines.tdi import GuestTdi
from harness.model.kernel import Role
from harness.model.machine import MachineEnd
from harness.model.plan import TestId, TestSelection
from harness.model.platform import NOTHING_EXPECTED, Expectation, PlatformEvents
from harness.model.results import Failure, Outcome, SplatRecord, TestResult
from harness.stages.fleet import Fleet, with_its_guest
from harness.stages.recorder import Recorder
from harness.stages.selftest import splats_between

COLLECTION = "scenario"
_CONSOLE_S = 10.0


@dataclass(slots=True)
class _Watched:
    """A machine of the scenario. start: bytes of its console when the scenario began."""

    machine: RemoteMachine
    start: int
    end_marker: str


@dataclass(slots=True)
class Scenario:
    """One test: begin(), act by way of guest, host, platform and tdi(), finish().

    failures: of the run, that were recorded meanwhile; complete after finish().
    """

    fleet: Fleet
    recorder: Recorder
    rules: RuleSet
    test: TestId
    pair: bool
    failures: tuple[Failure, ...] = ()
    _failures_before: int = 0
    _expected: Expectation = NOTHING_EXPECTED
    _ended: set[Role] = field(default_factory=set)  # are meant to
    _lost: list[str] = field(default_factory=list)  # were not
    _last_lines: tuple[str, ...] = ()
    _watched: dict[Role, _Watched] = field(default_factory=dict)
    _splats: list[SplatRecord] = field(default_factory=list)
    _tdis: list[GuestTdi] = field(default_factory=list)
    _started_s: float = 0.0

    # what a test uses

    @property
    def guest(self) -> RemoteMachine:
        """The guest VM; a new one after it was lost."""
        return self.fleet.get(Role.GUEST, self.test.cell)

    @property
    def host(self) -> RemoteMachine:
        """The host machine, of topology pair."""
        if not self.pair:
            raise UserError(f"{self.test}: topology solo has no host machine")
        return self.fleet.get(Role.HOST, self.test.cell)

    @property
    def platform(self) -> PlatformProcess:
        """The emulated platform: ask(op=...), see docs/platform.md."""
        process = self.fleet.platform.process if self.fleet.platform is not None else None
        if process is None:
            raise UserError(f"{self.test}: the plan has no [platform]")
        return process

    def tdi(self, index: int = 0) -> GuestTdi:
        """A TDI of the guest, by hand; given up when the scenario ends. NoTdiError: skip."""
        made = GuestTdi(self.guest, index)
        self._tdis.append(made)
        return made

    def announce(self, reason: str, times: int = 1, tdi: int = 0) -> None:
        """A fault that the scenario is about to cause: it has to happen, and fails nothing."""
        self.platform.ask(op="announce", tdi=tdi, reason=reason, count=times)

    def expect_splats(self, *kinds: str) -> None:
        """Kernel reports that have to occur, and fail nothing."""
        self._expected = replace(self._expected, splats=(*self._expected.splats, *kinds))

    def expect_end(self, role: Role) -> None:
        """The machine of this role, and what runs on it, is meant to end. fresh() gives another."""
        self._ended.update(with_its_guest(role))

    def fresh(self, role: Role) -> RemoteMachine:
        """End the machine of this role, if it still runs, and boot another one.

        The guest goes with its host machine, and comes again with it.
        """
        ending = [each for each in with_its_guest(role) if each in self._watched]
        for each in ending:
            self._retire(each)
        self._ended.difference_update(ending)  # the next ones are not meant to
        with self._within():
            self.fleet.discard(role, blamed=True)
            for each in (Role.HOST, Role.GUEST):
                if each in {*ending, role}:
                    self._watch(each)
        return self._watched[role].machine

    # around it

    def begin(self) -> None:
        """Boot what is not up, and mark the beginning everywhere."""
        for role in (Role.HOST, Role.GUEST) if self.pair else (Role.GUEST,):
            self._watch(role)
        self._started_s = self.recorder.now()
        if self.fleet.platform is not None and self.test.cell:
            self.fleet.platform.begin(self.test)
        self._failures_before = len(self.recorder.result.failures)

    def finish(self, outcome: Outcome, reason: str = "") -> TestResult:
        """The test's own outcome, with what consoles, machines and platform say. Recorded."""
        for tdi in self._tdis:
            tdi.close()
        spent = [role for role in tuple(self._watched) if not self._retire(role)]
        with self._within():
            for role in self._ended.intersection(spent):
                self.fleet.discard(role, blamed=True)
        if self._lost and outcome.good:
            outcome, reason = Outcome.CRASH, self._lost[0]
        surprising = [record for record in self._splats if not record.expected]
        if surprising and outcome.good:
            outcome = Outcome.FAIL
            reason = f"{surprising[0].machine}: {surprising[0].splat.title}"
        result = self._judged(self._result(outcome, reason))
        self.recorder.test(result)
        kept = result.outcome in (Outcome.PASS, Outcome.SKIP)
        for role in spent if kept else (*spent, Role.GUEST):
            self.fleet.discard(role, blamed=True)
        self.failures = self.recorder.result.failures[self._failures_before :]
        return result

    @property
    def splats(self) -> tuple[SplatRecord, ...]:
        """Those of the scenario, as recorded when a machine of it ended, or the test did."""
        return tuple(self._splats)

    def _within(self) -> AbstractContextManager[None]:
        """What the platform says of a machine that ends meanwhile is the scenario's."""
        watch = self.fleet.platform
        return nullcontext() if watch is None else watch.within_test()

    def _watch(self, role: Role) -> RemoteMachine:
        machine = self.fleet.get(role, self.test.cell)
        start, key = machine.console.size(), str(self.test)
        end = attribution.end_marker(key, self.fleet.token, start)
        self._watched[role] = _Watched(machine, start, end)
        machine.mark(attribution.begin_marker(key, self.fleet.token, start))
        return machine

    def _retire(self, role: Role) -> bool:
        """End marker, splats, and whether a machine is lost that was not meant to be.

        False when the machine is of no more use.
        """
        watched = self._watched.pop(role)
        machine = watched.machine
        marked = not machine.down() and self._mark_end(watched)
        if not marked and role not in self._ended:
            report = machine.report()
            if report.end is not MachineEnd.ALIVE:
                self._lost.append(f"{machine.name}: {report.what}")
                self._last_lines = self._last_lines or report.last_lines
        span = watched.start, machine.console.size()
        expected = self._expected.splats
        found = splats_between(machine, self.test, span, expected, self.rules)
        self._splats += found
        self.recorder.splats(found)  # before the fleet searches the console of what it ends
        return marked

    def _mark_end(self, watched: _Watched) -> bool:
        try:
            watched.machine.mark(watched.end_marker)
        except MachineError:
            return False
        # the serial line lags behind SSH
        watched.machine.console.wait_for(watched.end_marker.encode(), _CONSOLE_S, watched.start)
        return True

    def _judged(self, result: TestResult) -> TestResult:
        watch, splats = self.fleet.platform, self.splats
        if watch is None or not self.test.cell:
            outcome, reason = judge_events(
                result.outcome, result.reason, PlatformEvents(), self._expected, splats
            )
            return replace(result, outcome=outcome, reason=reason)
        selection = TestSelection(
            self.test.role, self.test.collection, (self.test.test,), (), 0.0, expect=self._expected
        )
        return watch.judged(result, selection, splats)

    def _result(self, outcome: Outcome, reason: str) -> TestResult:
        return TestResult(
            machine=self.test.role.value,
            role=self.test.role.value,
            collection=self.test.collection,
            test=self.test.test,
            outcome=outcome,
            reason=reason,
            duration_s=round(self.recorder.now() - self._started_s, 3),
            started_s=round(self._started_s, 3),
            log="",
            last_lines=self._last_lines,
            cell=self.test.cell,
        )
