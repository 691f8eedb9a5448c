# SPDX-License-Identifier: GPL-2.0-only
"""A run beside its baseline in plain lines, for the terminal and the step summary."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model.results import CaseStatus, Change, RunResult
from harness.report.text import duration, one_line, plural

_MAX_CASES = 8
_MAX_LINES = 5
_TOLD = (Change.NEW_FAILURE, Change.MISSING, Change.FLAKY, Change.STILL_FAILING, Change.FIXED)


def lines(result: RunResult) -> list[str]:
    """What changed since the baseline, what became slower, and the notes; [] when nothing did."""
    return [*_changes(result), *_slower(result), *_notes(result)]


def counts_line(result: RunResult) -> str:
    """ "against <run>: 1 new failure, 20 same"; "" without a baseline."""
    baseline = result.baseline
    if baseline is None:
        return ""
    listed = [f"{baseline.counts[c]} {c.value}" for c in Change if baseline.counts.get(c)]
    return f"against {one_line(baseline.run_id, 60)}: {', '.join(listed) or 'no case in either'}"


def case_line(case: CaseStatus) -> str:
    """ "NEW FAILURE guest:tsm:abi / sub: why" """
    name = " / ".join((f"{case.role}:{case.collection}:{case.test}", *case.subtest))
    since = f" since {one_line(case.since, 60)}" if case.since else ""
    reason = f": {one_line(case.reason, 100)}" if case.reason else ""
    return f"{case.change.value.upper()} {one_line(name, 100)}{since}{reason}"


def worth_telling(cases: Sequence[CaseStatus]) -> tuple[CaseStatus, ...]:
    """Without NEW, and without the subtests of a test program that has the same change."""
    programs = {(c.role, c.collection, c.test, c.change) for c in cases if not c.subtest}
    return tuple(
        case
        for case in cases
        if case.change in _TOLD
        and (
            not case.subtest or (case.role, case.collection, case.test, case.change) not in programs
        )
    )


def _changes(result: RunResult) -> list[str]:
    if result.baseline is None:
        return []
    told = worth_telling(result.baseline.cases)
    found = [f"  {case_line(case)}" for case in told[:_MAX_CASES]]
    return [counts_line(result), *found, *_more(len(told) - _MAX_CASES, "case")]


def _slower(result: RunResult) -> list[str]:
    found = [
        f"  SLOWER {one_line(slow.key, 100)}: {duration(slow.duration_s)}; the median of "
        f"{plural(slow.runs, 'run')} is {duration(slow.median_s)}, noise reaches "
        f"{duration(slow.limit_s)}"
        for slow in result.slower[:_MAX_LINES]
    ]
    return found + _more(len(result.slower) - _MAX_LINES, "slower test")


def _notes(result: RunResult) -> list[str]:
    found = [f"note: {one_line(note, 240)}" for note in result.notes[:_MAX_LINES]]
    return found + _more(len(result.notes) - _MAX_LINES, "note")


def _more(number: int, what: str) -> list[str]:
    return [f"  ... and {plural(number, f'more {what}')}"] if number > 0 else []
