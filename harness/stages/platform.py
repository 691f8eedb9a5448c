# SPDX-License-Identifier: GPL-2.0-only
"""The emulated platform of a run: one process per VM of the controller, its say in every verdict.

That VM is the guest, or the host machine that assigns the functions to its guests. Around each test
a `check` goes through the control socket, and the event log is read from outside the VM. What the
log holds between the two is the test's; the rest belongs to the run.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.oracle import complaints, judge_events, what_was_expected
from harness.emulator import oracle
from harness.errors import MachineError
from harness.machines.platform_process import LOG_NAME, PlatformProcess
from harness.model.plan import TestId, TestSelection
from harness.model.platform import (
    NOTHING_EXPECTED,
    CellRecord,
    Expectation,
    MissingFault,
    PlatformCell,
    PlatformEvents,
    PlatformFault,
    PlatformTransition,
)
from harness.model.results import Failure, Outcome, SplatRecord, TestResult
from harness.stages.recorder import Recorder

# faults and transitions kept in result.json per test, which is written often; the log has all
_LISTED = 25
_MARKS = ("check", "client-end", "stop")


@dataclass(frozen=True, slots=True)
class _Window:
    """One stretch of the log. lost: why there is more to it than could be read, "" when not."""

    events: PlatformEvents
    marks: tuple[dict[str, Any], ...]  # its records of the kinds in _MARKS
    lost: str


class PlatformStage:
    """start() a platform for a cell, begin() and judged() around each test, end() it."""

    def __init__(
        self,
        cells: Mapping[str, PlatformCell],
        recorder: Recorder,
        on_temporary: Callable[[Path], None],
    ) -> None:
        self._cells = cells
        self._recorder = recorder
        self._on_temporary = on_temporary
        self._process: PlatformProcess | None = None
        self._log = oracle.Tail(recorder.run_dir / LOG_NAME)
        self._within_test = False
        self._earlier: list[dict[str, Any]] = []  # of the test, before a machine of it ended
        self._earlier_lost = ""
        self._earlier_gone = ""  # how the test's platform ended, when not with its VM
        self._expected = NOTHING_EXPECTED  # of the test that began, until it is judged
        self._spent_s = 0.0  # in tests, since start()

    @property
    def process(self) -> PlatformProcess | None:
        """The platform that runs, for tests and for people who look."""
        return self._process

    def cells(self) -> tuple[str, ...]:
        """The names of the plan's cells."""
        return tuple(self._cells)

    def start(self, name: str) -> PlatformProcess:
        """A fresh platform for a cell; the one before is ended. MachineError."""
        self.end()
        cell = self._cells[name]
        self._process = PlatformProcess(cell, self._recorder.run_dir, self._on_temporary)
        known = {record.name: record for record in self._recorder.result.cells}
        now = round(self._recorder.now(), 3)
        record = known.get(name) or CellRecord(
            name=name,
            model=cell.model,
            vtom=hex(cell.vtom),
            locked_t0=cell.locked_t0,
            bme_clear=cell.bme_clear,
            c_bit=cell.c_bit,
            tdis=cell.tdis,
            append=cell.append,
            start_s=now,
        )
        self._recorder.cell(replace(record, boots=record.boots + 1, end_s=now))
        self._process.start()
        return self._process

    def trouble(self) -> str:
        """What is wrong with the platform, "" while it serves."""
        if self._process is None:
            return "platform: is not running"
        if self._process.alive():
            return ""
        return f"platform: {self._process.how_it_ended()}"

    def begin(self, test: TestId, expected: Expectation = NOTHING_EXPECTED) -> None:
        """Before a test: what happened since the last one is not its doing. MachineError.

        expected: fails nothing until the test is judged, or its machine ends: it may get lost.
        """
        label = f"begin {test}"
        self._running().ask(op="check", label=label)
        self._blame_the_run(f"before {test}", label)
        self._expected = expected

    def judged(
        self, result: TestResult, selection: TestSelection, splats: Sequence[SplatRecord]
    ) -> TestResult:
        """After a test: its result with what the platform saw meanwhile."""
        label = f"end {result.key}"
        earlier, self._earlier_gone = self._earlier_gone, ""
        gone = self._check(label)
        # without a platform: the test's own was ended, and no other one was started
        window = self._take(label if self._process is not None else "")
        self._spent_s += result.duration_s
        result = replace(result, platform=listed(window.events))
        wanted, lost = selection.expect, ""
        if earlier or (gone and not _ended_with_its_vm(window.marks, gone)):
            lost = f"the platform {earlier or gone} while the test ran"
        elif gone and result.outcome not in (Outcome.CRASH, Outcome.INFRA):
            lost = "the platform ended while the test ran"
        elif window.lost and result.outcome.good:
            lost = window.lost
        if lost:
            result = replace(result, outcome=Outcome.INFRA, reason=lost)
        if result.outcome is Outcome.INFRA:
            # a better attempt may take its place; what the platform saw in this one stays
            self._blame(window.events, f"in an attempt at {result.key} that was lost", wanted)
            return result
        self._expected = NOTHING_EXPECTED
        outcome, reason = judge_events(result.outcome, result.reason, window.events, wanted, splats)
        if outcome is Outcome.PASS and not reason:
            reason = what_was_expected(window.events, wanted, splats)
        return replace(result, outcome=outcome, reason=reason)

    @contextlib.contextmanager
    def within_test(self) -> Iterator[None]:
        """A test replaces a machine: what is seen until then, and of its end, is the test's."""
        self._within_test = True
        try:
            yield
        finally:
            self._within_test = False

    def forget(self) -> None:
        """What came until now is nobody's doing: the host machine booted."""
        for _ in self._log.read(over=self._over()):
            pass

    def guest_ended(self) -> None:
        """A guest is gone and its host machine stays, with the platform."""
        if self._process is not None:
            self._blame_the_run(f"at the end of a guest in {self._process.cell.name}")

    def end(self) -> None:
        """End the platform, if there is one. What it still had to say goes to the run."""
        process, self._process = self._process, None
        if process is None:
            return
        gone = "" if process.alive() else process.how_it_ended()
        process.close()
        if self._log.offset or process.log.exists():  # else it failed before its first record
            self._blame_the_run(f"at the end of {process.cell.name}")
        if self._within_test and gone and not _ended_with_its_vm(self._earlier, gone):
            self._earlier_gone = self._earlier_gone or gone
        for record in self._recorder.result.cells:
            if record.name == process.cell.name:
                spent, now = record.test_s + self._spent_s, self._recorder.now()
                self._recorder.cell(replace(record, end_s=round(now, 3), test_s=round(spent, 3)))
        self._spent_s = 0.0

    def _running(self) -> PlatformProcess:
        if self._process is None:
            raise MachineError("platform: is not running")
        return self._process

    def _check(self, label: str) -> str:
        """Mark the log. How the platform was lost, "" when it serves, or ended with its machine."""
        process = self._process
        if process is None:
            return ""
        try:
            process.ask(op="check", label=label)
        except MachineError as exc:
            return process.how_it_ended() or exc.message
        return ""

    def _blame_the_run(self, when: str, label: str = "") -> None:
        """Faults that came outside of any test fail the run; without a whole log, who knows."""
        if self._within_test:
            self._earlier += self._log.read(over=self._over())
            self._earlier_lost = self._earlier_lost or self._log.lost
            return
        window, when = self._take(label), f"outside of any test ({when})"
        self._blame(window.events, when, self._expected)
        self._expected = NOTHING_EXPECTED
        if window.lost:
            text = f"{window.lost}, {when}"
            self._recorder.failure(Failure("infra", "guest", text, log=LOG_NAME))

    def _blame(self, events: PlatformEvents, when: str, expected: Expectation) -> None:
        for said in complaints(replace(events, missing=()), expected):
            self._recorder.failure(Failure("oracle", "guest", f"{said}, {when}", log=LOG_NAME))

    def _take(self, label: str = "") -> _Window:
        """The log since the last call, and what was kept for a test before.

        label: that of the check which it must hold.
        """
        earlier, self._earlier = self._earlier, []
        lost, self._earlier_lost = self._earlier_lost, ""
        marks: list[dict[str, Any]] = []

        def records() -> Iterator[dict[str, Any]]:
            for record in itertools.chain(earlier, self._log.read(over=self._over())):
                if record["event"] in _MARKS:
                    marks.append(record)
                yield record

        events = events_of(records())
        lost = lost or self._log.lost
        if not lost and label and label not in [mark.get("label") for mark in marks]:
            lost = f"lacks the check {label!r}"
        return _Window(events, tuple(marks), f"{LOG_NAME} {lost}" if lost else "")

    def _over(self) -> bool:
        """Nobody writes the log any more."""
        return self._process is None or not self._process.alive()


def _ended_with_its_vm(records: Iterable[dict[str, Any]], gone: str) -> bool:
    """The platform ends by itself when its VM is gone; then its log is complete."""
    if gone != "ended with status 0":
        return False
    marks = [record for record in records if record["event"] in _MARKS]
    ends = [mark["why"] for mark in marks if mark["event"] == "client-end"]
    stopped = any(mark["event"] == "stop" for mark in marks)
    return stopped and "the platform ends" not in ends


def events_of(records: Iterable[dict[str, Any]]) -> PlatformEvents:
    """What records of the log (docs/platform.md) amount to, with all faults and transitions."""
    faults: list[PlatformFault] = []
    transitions: list[PlatformTransition] = []

    def passing() -> Iterator[dict[str, Any]]:
        for record in records:  # most are of good TLPs: none of these is kept
            if record["event"] == "tlp" and record["verdict"] != "ok":
                faults.append(_fault(record))
            elif record["event"] == "transition":
                transitions.append(_transition(record))
            yield record

    found = oracle.judge(passing())
    return PlatformEvents(
        tlps_ok=found.tlps_ok,
        tlps_blocked=found.tlps_blocked,
        unannounced=len(found.unannounced),
        faults=tuple(sorted(faults, key=lambda fault: fault.announced)),
        missing=tuple(MissingFault(m["tdi"], m["reason"], m["count"]) for m in found.missing),
        transitions=tuple(transitions),
    )


def listed(events: PlatformEvents) -> PlatformEvents:
    """The events as result.json keeps them: the head of each list, and how much was cut."""
    faults, transitions = events.faults[:_LISTED], events.transitions[:_LISTED]
    cut = len(events.faults) - len(faults) + len(events.transitions) - len(transitions)
    return replace(events, faults=faults, transitions=transitions, dropped=cut)


def _fault(record: Mapping[str, Any]) -> PlatformFault:
    return PlatformFault(
        t=record["t"],
        tdi=record["tdi"],
        bdf=record["bdf"],
        trusted=bool(record["T"]),
        iova=record["iova"],
        gpa=record["gpa"] or "",
        direction=record["dir"],
        length=record["len"],
        reason=record["reason"],
        announced=record["announced"],
    )


def _transition(record: Mapping[str, Any]) -> PlatformTransition:
    return PlatformTransition(
        t=record["t"],
        tdi=record["tdi"],
        before=record["before"],
        after=record["after"],
        cause=record["cause"],
    )
