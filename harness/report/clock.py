# SPDX-License-Identifier: GPL-2.0-only
"""Time of a console line on the run's clock. Pure.

A console has no wall clock: printk counts from the start of its kernel. The markers around each
test tie the two together. A boot without any marker is placed from what came before it, and its
times are marked as approximate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model.results import TestResult
from harness.report.console import Mark, Scan


@dataclass(frozen=True, slots=True)
class Boot:
    """The lines of one boot. zero_s: the run's time at which printk stood at 0."""

    first: int
    last: int
    zero_s: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The console lines of one attempt at a test, from its begin marker to its end.

    The end is the end marker, or what came instead. Times are seconds of the run.
    """

    key: str
    good: bool
    started_s: float
    ended_s: float
    first: int
    last: int


def boots(known: Scan, windows: Sequence[Window], fallback_s: float) -> tuple[Boot, ...]:
    """Every boot of a console with its place in time. fallback_s: when the first one began."""
    starts = [mark.line for mark in known.marks if mark.kind == "boot"]
    if not starts or starts[0] > 1:
        starts.insert(0, 1)
    stamps = {mark.line: mark.stamp for mark in known.marks}
    ends = {mark.line for mark in known.marks if mark.kind == "end"}
    found: list[Boot] = []
    guess = fallback_s
    for index, first in enumerate(starts):
        last = starts[index + 1] - 1 if index + 1 < len(starts) else known.lines
        inside = [w for w in windows if first <= w.first <= last]
        zero = _zero(inside, stamps, ends)
        found.append(Boot(first, last, guess if zero is None else zero, zero is not None))
        latest = max((w.ended_s for w in inside), default=guess)
        guess = max(guess, latest)
    return tuple(found)


def _zero(
    windows: Sequence[Window], stamps: Mapping[int, float | None], ends: set[int]
) -> float | None:
    """A begin marker comes after the test's start, an end marker before its end."""
    low, high = [], []
    for window in windows:
        begin, end = stamps.get(window.first), stamps.get(window.last)
        if begin is not None:
            low.append(window.started_s - begin)
        if end is not None and window.last in ends:
            high.append(window.ended_s - end)
    if not low:
        return None
    return min(max(low), min(high, default=max(low)))


def windows(known: Scan, tests: Sequence[TestResult]) -> tuple[Window, ...]:
    """The attempts at tests whose begin marker is on this console, in order.

    A test may print a marker of its own; so only the first begin marker after those of the tests
    before it counts, and each attempt once.
    """
    spans = [
        (entry.started_s, test.key, entry.outcome.good, entry.started_s + entry.duration_s)
        for test in tests
        for entry in (test.attempts or (test,))
    ]
    marks = [mark for mark in known.marks if mark.kind != "boot"]
    limits = [mark.line for mark in known.marks if mark.kind in ("boot", "begin")]
    found: list[Window] = []
    at = 0
    for started_s, key, good, ended_s in sorted(spans):
        index = next(
            (i for i in range(at, len(marks)) if (marks[i].kind, marks[i].key) == ("begin", key)),
            None,
        )
        if index is None:
            continue
        at = index + 1
        begin = marks[index]
        last = _end(known, marks[at:], begin, limits)
        found.append(Window(key, good, started_s, ended_s, begin.line, last))
    return tuple(found)


def _end(known: Scan, after: Sequence[Mark], begin: Mark, limits: Sequence[int]) -> int:
    limit = next((line - 1 for line in limits if line > begin.line), known.lines)
    for mark in after:
        if mark.line > limit:
            break
        if (mark.kind, mark.key, mark.attempt) == ("end", begin.key, begin.attempt):
            return mark.line
    return limit


def at(boots_: Sequence[Boot], line: int, stamp: float | None) -> tuple[float, bool] | None:
    """(seconds of the run, exact) of a console line; None for a line without a time of its own."""
    if stamp is None:
        return None
    for boot in boots_:
        if boot.first <= line <= boot.last:
            return boot.zero_s + stamp, boot.exact
    return None
