# SPDX-License-Identifier: GPL-2.0-only
"""The emulated platform of a run: one process per VM of the controller, its say in every verdict.

That VM is the guest, or the host machine that assigns the functions to its guests. Around each test
a `check` goes through the control socket, and the event log is read from outside the VM. What the
log holds between the two is the test's; the rest belongs to the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.core.oracle import complaints, judge_events, what_was_expected
from harness.emulator import oracle
from harness.errors import MachineError
from harness.machines.platform_process import LOG_NAME, PlatformProcess
from harness.model.plan import TestId, TestSelection
from harness.model.platform import (
    CellRecord,
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
        self._offset = 0
        self._within_test = False
        self._earlier: list[dict[str, Any]] = []  # of the test, before a machine of it ended
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

    def begin(self, test: TestId) -> None:
        """Before a test: what happened since the last one is not its doing. MachineError."""
        process = self._running()
        process.ask(op="check", label=f"begin {test}")
        self._blame_the_run(f"before {test}")

    def judged(
        self, result: TestResult, selection: TestSelection, splats: Sequence[SplatRecord]
    ) -> TestResult:
        """After a test: its result with what the platform saw meanwhile."""
        gone = self._check(f"end {result.key}")
        records = self._take()
        events = events_of([*self._earlier, *records])
        self._earlier = []
        self._spent_s += result.duration_s
        result = replace(result, platform=events)
        if gone and not _ended_with_its_vm(records, gone):
            reason = f"the platform {gone} while the test ran"
            return replace(result, outcome=Outcome.INFRA, reason=reason)
        if gone and result.outcome not in (Outcome.CRASH, Outcome.INFRA):
            reason = "the platform ended while the test ran"
            return replace(result, outcome=Outcome.INFRA, reason=reason)
        wanted = selection.expect
        outcome, reason = judge_events(result.outcome, result.reason, events, wanted, splats)
        if outcome is Outcome.PASS and not reason:
            reason = what_was_expected(events, wanted, splats)
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
        self._take()

    def guest_ended(self) -> None:
        """A guest is gone and its host machine stays, with the platform."""
        if self._process is not None:
            self._blame_the_run(f"at the end of a guest in {self._process.cell.name}")

    def end(self) -> None:
        """End the platform, if there is one. What it still had to say goes to the run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.close()
        if process.log.exists():
            self._blame_the_run(f"at the end of {process.cell.name}")
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

    def _blame_the_run(self, when: str) -> None:
        """Faults that came outside of any test fail the run."""
        self._earlier += self._take()
        if self._within_test:
            return
        events, self._earlier = events_of(self._earlier), []
        said = complaints(replace(events, missing=()))
        if said:
            text = f"{said[0]}, outside of any test ({when})"
            self._recorder.failure(Failure("oracle", "guest", text, log=LOG_NAME))

    def _take(self) -> list[dict[str, Any]]:
        """The records since the last call."""
        path = self._recorder.run_dir / LOG_NAME
        records, self._offset = oracle.read_from(path, self._offset)
        return records


def _ended_with_its_vm(records: Sequence[Mapping[str, Any]], gone: str) -> bool:
    """The platform ends by itself when its VM is gone; then its log is complete."""
    if gone != "ended with status 0":
        return False
    ends = [record["why"] for record in records if record["event"] == "client-end"]
    stopped = any(record["event"] == "stop" for record in records)
    return stopped and "the platform ends" not in ends


def events_of(records: Sequence[Mapping[str, Any]]) -> PlatformEvents:
    """Records of the log (docs/platform.md) as result.json keeps them."""
    found = oracle.judge(dict(record) for record in records)
    blocked = [_fault(r) for r in records if r["event"] == "tlp" and r["verdict"] != "ok"]
    faults = sorted(blocked, key=lambda fault: fault.announced)
    transitions = [_transition(r) for r in records if r["event"] == "transition"]
    cut = max(len(faults) - _LISTED, 0) + max(len(transitions) - _LISTED, 0)
    return PlatformEvents(
        tlps_ok=found.tlps_ok,
        tlps_blocked=found.tlps_blocked,
        unannounced=len(found.unannounced),
        faults=tuple(faults[:_LISTED]),
        missing=tuple(MissingFault(m["tdi"], m["reason"], m["count"]) for m in found.missing),
        transitions=tuple(transitions[:_LISTED]),
        dropped=cut,
    )


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
