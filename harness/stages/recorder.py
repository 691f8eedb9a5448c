# SPDX-License-Identifier: GPL-2.0-only
"""What a run has found so far, on disk at every moment.

Each change rewrites result.json atomically, so that whatever was recorded before a fault, a kill
or a full disk is there.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from harness.core.pins import PinBook
from harness.core.verdict import exit_code, verdict
from harness.errors import HarnessError, StorageError
from harness.model.platform import CellRecord
from harness.model.progress import Progress
from harness.model.results import (
    Baseline,
    Failure,
    KernelRecord,
    MachineRecord,
    RunResult,
    SlowDown,
    SplatRecord,
    StageRecord,
    TestHistory,
    TestResult,
    Verdict,
)

_RUNNING = "running"


class Recorder:
    """Builds a RunResult step by step. clock: seconds since the start of the run.

    write: replaces the file by a whole result. draft: the same for one that grows, which may be
    done with less care, since it is done at each change; without it `write` serves for both.
    """

    def __init__(
        self,
        start: RunResult,
        run_dir: Path,
        clock: Callable[[], float],
        write: Callable[[Path, RunResult], None],
        draft: Callable[[Path, RunResult], None] | None = None,
    ) -> None:
        self._result = start
        self._path = run_dir / "result.json"
        self._clock = clock
        self._write = write
        self._draft = draft or write
        self._lock = threading.RLock()
        self._growing = False
        self.run_dir = run_dir
        self.pins = PinBook()

    @property
    def result(self) -> RunResult:
        with self._lock:
            return self._result

    def now(self) -> float:
        return self._clock()

    def _update(self, result: RunResult, *, whole: bool = False) -> None:
        write = self._write if whole else self._draft
        with self._lock:
            counts = Counter(test.outcome.value for test in result.tests)
            duration_s = round(self._clock(), 3)
            self._result = self._judged(replace(result, counts=dict(counts), duration_s=duration_s))
            try:
                write(self._path, self._result)
            except OSError as exc:
                raise StorageError(
                    f"{self._path}: {exc.strerror}", hint="free space on the disk that holds it"
                ) from exc

    def _judged(self, result: RunResult) -> RunResult:
        found = verdict(result)
        if self._growing and found is Verdict.PASS:
            found = Verdict.INFRA  # what is not known yet may still go wrong
        return replace(result, verdict=found, exit_code=exit_code(found))

    def begin(self) -> None:
        """The first record on the disk."""
        self._update(self._result)

    def save(self) -> None:
        self._update(self._result, whole=True)

    def environment(self, **facts: str) -> None:
        """Facts about the controller, e.g. accel and why."""
        with self._lock:
            controller = {**self._result.controller, **facts}
            self._update(replace(self._result, controller=controller))

    def kernel(self, record: KernelRecord) -> None:
        with self._lock:
            kept = tuple(k for k in self._result.kernels if k.role != record.role)
            self._update(replace(self._result, kernels=(*kept, record)))

    def machine(self, record: MachineRecord) -> None:
        with self._lock:
            kept = tuple(m for m in self._result.machines if m.name != record.name)
            self._update(replace(self._result, machines=(*kept, record)))

    def test(self, test: TestResult) -> None:
        with self._lock:
            self._update(replace(self._result, tests=(*self._result.tests, test)))

    def settle(self, test: TestResult) -> None:
        """What all attempts at a test amount to, in the place of those recorded so far."""
        with self._lock:
            kept = tuple(t for t in self._result.tests if t.key != test.key)
            self._update(replace(self._result, tests=(*kept, test)))

    def note(self, *notes: str) -> None:
        """What a reader of the verdict must know; each note once."""
        with self._lock:
            found = tuple(dict.fromkeys((*self._result.notes, *notes)))
            self._update(replace(self._result, notes=found))

    def comparison(
        self,
        baseline: Baseline | None,
        slower: tuple[SlowDown, ...],
        history: tuple[TestHistory, ...],
    ) -> None:
        """This run beside earlier ones."""
        with self._lock:
            self._update(replace(self._result, baseline=baseline, slower=slower, history=history))

    def cell(self, record: CellRecord) -> None:
        """A cell of the platform's matrix, in the place of what was recorded of it before."""
        with self._lock:
            cells = {cell.name: cell for cell in self._result.cells} | {record.name: record}
            self._update(replace(self._result, cells=tuple(cells.values())))

    def splats(self, records: tuple[SplatRecord, ...]) -> None:
        with self._lock:
            self._update(replace(self._result, splats=(*self._result.splats, *records)))

    def decoded(self, traces: Mapping[tuple[str, int], tuple[str, ...]]) -> None:
        """Decoded traces, by machine and first line of the splat."""
        with self._lock:
            splats = tuple(
                replace(r, decoded=traces.get((r.machine, r.splat.start_line), r.decoded))
                for r in self._result.splats
            )
            self._update(replace(self._result, splats=splats))

    def failure(self, failure: Failure) -> None:
        """Each failure once. Its log is named as seen from the run directory, if it lies there."""
        log = Path(failure.log)
        if log.is_relative_to(self.run_dir):
            failure = replace(failure, log=log.relative_to(self.run_dir).as_posix())
        with self._lock:
            if failure not in self._result.failures:
                self._update(replace(self._result, failures=(*self._result.failures, failure)))

    @contextlib.contextmanager
    def growing(self) -> Iterator[None]:
        """While the run goes on: what is on the disk then must not be taken for a PASS."""
        self._growing = True
        try:
            yield
        finally:
            self._growing = False
            with self._lock:
                self._result = self._judged(self._result)

    def _stage(self, record: StageRecord) -> None:
        """In the place of the record that it began with."""
        with self._lock:
            kept = (
                s
                for s in self._result.stages
                if (s.name, s.start_s, s.state) != (record.name, record.start_s, _RUNNING)
            )
            self._update(replace(self._result, stages=(*kept, record)))

    @contextlib.contextmanager
    def stage(self, progress: Progress, name: str, note: str = "") -> Iterator[StageNote]:
        """A stage of the timeline; its state follows from how the block ends."""
        progress.stage(name, note)
        begin, notes = self._clock(), StageNote(note)
        self._stage(StageRecord(name, begin, begin, _RUNNING, note))
        try:
            yield notes
        except HarnessError:
            self._stage(StageRecord(name, begin, self._clock(), "failed", notes.text))
            raise
        except BaseException:
            self._stage(StageRecord(name, begin, self._clock(), "interrupted", notes.text))
            raise
        state = "cached" if notes.cached else "ok"
        self._stage(StageRecord(name, begin, self._clock(), state, notes.text))


class StageNote:
    """What a stage wants its record to say."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.cached = False
