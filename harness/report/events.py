# SPDX-License-Identifier: GPL-2.0-only
"""One timeline of everything: controller, tests, every machine's console, the platform.

A page holds some thousand rows. What matters for the verdict comes first: stages, tests, splats,
boots, platform faults; then the console during tests that failed, then the rest, while there is
room. Where console lines are left out a row says how many and names the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.model.results import RunResult
from harness.report import clock, platform_events, summary, timeline
from harness.report.console import read_lines
from harness.report.consoles import MachineConsole
from harness.report.text import duration, one_line, plural

ROW_LIMIT = 4000
_RANGE_LIMIT = 600  # console lines of one test or boot
_TEXT = 300

CONTROLLER, TESTS, PLATFORM = "controller", "tests", "platform"


@dataclass(frozen=True, slots=True)
class Row:
    """at_s: seconds of the run. source: CONTROLLER, TESTS, PLATFORM or a machine's name.

    exact: False when the time is an estimate. tone: CSS class. href: "#anchor" on this page.
    """

    at_s: float
    source: str
    text: str
    tone: str = ""
    href: str = ""
    exact: bool = True

    @property
    def stamp(self) -> str:
        """ "1:02.345", "-0:01.2" before the start."""
        sign = "-" if self.at_s < 0 else ""
        minutes, seconds = divmod(abs(self.at_s), 60)
        return f"{'' if self.exact else '~'}{sign}{int(minutes)}:{seconds:06.3f}"


@dataclass(frozen=True, slots=True)
class EventLog:
    """rows by time; sources in the order of the filter; notes: what was left out."""

    rows: tuple[Row, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where on the page things are: ids of bad tests and of splats, by position in the result."""

    tests: dict[tuple[str, int, float], str]  # (key, attempt, started_s)
    splats: tuple[str, ...]


def merged(
    result: RunResult, run_dir: Path, consoles: Sequence[MachineConsole], anchors: Anchors
) -> EventLog:
    """The timeline of a run. Logs that cannot be read are a note, never an error."""
    rows = [*_controller(result), *_tests(result, anchors), *_splats(result, consoles, anchors)]
    notes: list[str] = []
    for path in sorted(run_dir.glob("platform*.jsonl")):
        found, note = _platform(path, result)
        rows += found
        notes += [note] if note else []
    room = max(ROW_LIMIT - len(rows), ROW_LIMIT // 4)
    for rank in (0, 1, 2):
        for console in consoles:
            found = _console(console, rank, room)
            room = max(room - len(found), 0)
            rows += found
    if not all(boot.exact for console in consoles for boot in console.boots):
        notes.append(
            "~: the console lines of a boot without any test have no exact place in time; theirs "
            "is an estimate"
        )
    rows.sort(key=lambda row: row.at_s)
    present = {row.source for row in rows}
    order = [CONTROLLER, TESTS, *(c.machine for c in consoles)]
    order += [*sorted(present - {*order, PLATFORM}), PLATFORM]
    sources = tuple(source for source in dict.fromkeys(order) if source in present)
    return EventLog(tuple(rows), sources, tuple(notes))


def _controller(result: RunResult) -> Iterable[Row]:
    for cell in result.cells:
        if cell.end_s > 0:
            yield Row(cell.start_s, PLATFORM, one_line(f"cell {cell.name} begins"), "run")
            yield Row(cell.end_s, PLATFORM, one_line(f"cell {cell.name} ends"))
    for stage in result.stages:
        note = f": {one_line(stage.note, 120)}" if stage.note else ""
        name = one_line(stage.name, 60)
        yield Row(stage.start_s, CONTROLLER, f"{name} begins{note}")
        if stage.state == "running":
            continue
        took = duration(max(stage.end_s - stage.start_s, 0.0))
        tone = "" if stage.state in ("ok", "cached") else "bad"
        yield Row(stage.end_s, CONTROLLER, f"{name} ends: {stage.state}, {took}", tone)
    verdict = summary.sentence(result)
    yield Row(result.duration_s, CONTROLLER, one_line(verdict, _TEXT))


def _tests(result: RunResult, anchors: Anchors) -> Iterable[Row]:
    for test in result.tests:
        href = anchors.tests.get((test.key, test.attempt, test.started_s), "")
        tone = timeline.tone(test.outcome)
        if test.duration_s > 0:
            yield Row(test.started_s, TESTS, f"begin {one_line(test.key)} on {test.machine}", "run")
        cause = summary.first_cause(test)
        why = f": {cause}" if cause else ""
        text = f"{test.outcome.value.upper()} {one_line(test.key)}{why}"
        yield Row(test.started_s + test.duration_s, TESTS, one_line(text, _TEXT), tone, href)


def _splats(
    result: RunResult, consoles: Sequence[MachineConsole], anchors: Anchors
) -> Iterable[Row]:
    by_name = {console.machine: console for console in consoles}
    for record, anchor in zip(result.splats, anchors.splats, strict=True):
        console = by_name.get(record.machine)
        placed = None if console is None else _place(console, record.splat.start_line)
        if placed is None:
            during = [t for t in result.tests if f"{t.collection}:{t.program}" == record.test]
            placed = (during[0].started_s if during else result.duration_s, False)
        expected = " (expected)" if record.expected else ""
        text = f"splat{expected}: {one_line(record.splat.title, _TEXT)}"
        tone = "skip" if record.expected else "bad"
        yield Row(placed[0], record.machine, text, tone, f"#{anchor}", placed[1])


def _place(console: MachineConsole, line: int) -> tuple[float, bool] | None:
    """The time of a line: its own, or that of the nearest line before it."""
    for found in reversed(read_lines(console.scan, line - 20, line)):
        placed = clock.at(console.boots, found.number, found.stamp)
        if placed is not None:
            return placed
    return None


def _platform(path: Path, result: RunResult) -> tuple[list[Row], str]:
    log = platform_events.read(path)
    start = datetime.fromisoformat(result.started).timestamp()
    return [Row(e.at - start, PLATFORM, e.text, e.tone) for e in log.events], log.note


def _console(console: MachineConsole, rank: int, room: int) -> list[Row]:
    """Console lines of one rank, a row for each gap; at most about `room` rows.

    rank 0: during tests that failed, 1: during other tests, 2: outside of tests.
    """
    rows: list[Row] = []
    for first, last in _ranges(console, rank):
        take = max(min(last - first + 1, _RANGE_LIMIT, room - len(rows)), 0)
        head, tail = take - take // 2, take // 2
        if take == last - first + 1:
            rows += _lines(console, first, last)
            continue
        rows += _lines(console, first, first + head - 1)
        rows += _gap(console, first + head, last - tail)
        rows += _lines(console, last - tail + 1, last)
    return rows


def _ranges(console: MachineConsole, rank: int) -> list[tuple[int, int]]:
    if rank < 2:
        wanted = [w for w in console.windows if w.good == bool(rank)]
        return [(w.first, w.last) for w in wanted]
    found: list[tuple[int, int]] = []
    at = 1
    cuts = sorted({b.first for b in console.boots} | {w.first for w in console.windows})
    ends = {w.first: w.last for w in console.windows}
    for cut in [*cuts, console.scan.lines + 1]:
        if cut > at:
            found.append((at, cut - 1))
        at = max(at, ends.get(cut, cut - 1) + 1)
    return found


def _lines(console: MachineConsole, first: int, last: int) -> Iterable[Row]:
    placed: tuple[float, bool] | None = None
    for line in read_lines(console.scan, first, last):
        placed = clock.at(console.boots, line.number, line.stamp) or placed
        if placed is None:
            placed = _place(console, line.number) or (_boot_start(console, line.number), False)
        if line.text.strip():
            shown = line.number in console.shown
            href = f"#{console.anchor}-{line.number}" if shown else ""
            yield Row(placed[0], console.machine, line.text[:_TEXT], "", href, placed[1])


def _boot_start(console: MachineConsole, line: int) -> float:
    return next((b.zero_s for b in console.boots if b.first <= line <= b.last), 0.0)


def _gap(console: MachineConsole, first: int, last: int) -> Iterable[Row]:
    if first > last:
        return
    placed = _place(console, first) or (_boot_start(console, first), False)
    text = f"… {plural(last - first + 1, 'line')} not shown here: {console.file}, {first} to {last}"
    yield Row(placed[0], console.machine, text, "gap", "", placed[1])
