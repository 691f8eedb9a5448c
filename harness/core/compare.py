# SPDX-License-Identifier: GPL-2.0-only
"""What changed between the tests of two runs.

A case is a test or one of its subtests on one role's kernel. Results of the same case on
several machines count as one, the worst; repeated attempts on one machine that disagree
make it flaky. INFRA says nothing about the kernel, so it counts as "no result". A run of some
tests only (-k) is compared over these tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.core.select import parse_expression
from harness.model.results import Change, Outcome, RunResult, TestResult, Verdict

__all__ = ["CaseChange", "CaseKey", "Change", "Seen", "cases", "compare", "render", "worse"]


class CaseKey(NamedTuple):
    """Names one case. subtest () is the test program itself."""

    role: str
    collection: str
    test: str
    subtest: tuple[str, ...]

    def __str__(self) -> str:
        return " / ".join((f"{self.role}:{self.collection}:{self.test}", *self.subtest))


@dataclass(frozen=True, slots=True)
class CaseChange:
    """One case in both runs. before/after: None when there was no result; reason: of `after`."""

    key: CaseKey
    change: Change
    before: Outcome | None
    after: Outcome | None
    reason: str = ""

    @property
    def became_flaky(self) -> bool:
        """Flaky, and good before (or not there)."""
        return self.after is Outcome.FLAKY and (self.before is None or self.before.good)


class Seen(NamedTuple):
    """The result of one case in one run."""

    outcome: Outcome
    reason: str


def compare(before: RunResult, after: RunResult) -> tuple[CaseChange, ...]:
    """Every case of either run, the most urgent change first, then by key."""
    old, new = _asked(before, after), cases(after.tests)
    rows = []
    for key in old.keys() | new.keys():
        first, second = old.get(key), new.get(key)
        was = first.outcome if first else None
        now = second.outcome if second else None
        if was is None and now is None:
            continue
        rows.append(CaseChange(key, _change(was, now), was, now, second.reason if second else ""))
    order = {change: rank for rank, change in enumerate(Change)}
    return tuple(sorted(rows, key=lambda row: (order[row.change], row.key)))


def worse(before: RunResult, after: RunResult, rows: Iterable[CaseChange]) -> bool:
    """Whether `after` is the worse run: by a case (rows: of compare()), or by a failure of the run
    itself. A case that became flaky counts, unless the plan excuses it.
    """
    failed = after.verdict is Verdict.FAIL
    if failed and before.verdict is not Verdict.FAIL:
        return True
    # a run that did not fail excused what was flaky in it, also where the history forgot the plan
    flaky_counts = failed and not after.flaky_passes
    return any(row.change.regression or (flaky_counts and row.became_flaky) for row in rows)


def _asked(before: RunResult, after: RunResult) -> dict[CaseKey, Seen]:
    """The earlier results that the later run was about."""
    found = cases(before.tests)
    if not after.expression:
        return found
    asked = parse_expression(after.expression)
    return {
        key: seen
        for key, seen in found.items()
        if asked.matches(f"{key.role}:{key.collection}:{key.test}")
    }


def render(rows: Sequence[CaseChange], *, everything: bool = False) -> list[str]:
    """Plain text lines: the changes (with everything=True also SAME), then the counts."""
    shown = [row for row in rows if everything or row.change is not Change.SAME]
    width = max((len(row.change) for row in shown), default=0)
    out = []
    for row in shown:
        step = f"{row.before or '-'} -> {row.after or '-'}"
        reason = f"  ({row.reason})" if row.reason else ""
        out.append(f"{row.change.upper():<{width}}  {step:<18}  {row.key}{reason}")
    counts = Counter(row.change for row in rows)
    total = ", ".join(f"{counts[change]} {change}" for change in Change if counts[change])
    return [*out, total or "no test in either run"]


def _change(was: Outcome | None, now: Outcome | None) -> Change:
    """The table of changes; the first rule that fits decides.

    A skip is no result: a case that stops running is MISSING, one that starts running is NEW.
    """
    if now is Outcome.FLAKY:
        return Change.FLAKY
    if now is None:
        return Change.SAME if was is Outcome.SKIP else Change.MISSING
    if not now.good:
        if was is not None and not was.good and was is not Outcome.FLAKY:
            return Change.STILL_FAILING
        if now is Outcome.MISSING and was is not None:
            return Change.MISSING
        return Change.NEW_FAILURE
    if now is Outcome.SKIP:
        return Change.SAME if was in (None, Outcome.SKIP) else Change.MISSING
    if was in (None, Outcome.SKIP):
        return Change.NEW
    if was is Outcome.FLAKY:
        return Change.FLAKY  # one good run does not prove it cured
    if now is Outcome.XFAIL:
        return Change.NEW_FAILURE if was is Outcome.PASS else Change.SAME
    return Change.SAME if was is Outcome.PASS else Change.FIXED


def cases(tests: Iterable[TestResult]) -> dict[CaseKey, Seen]:
    """One result per case; cases with nothing but INFRA are left out."""
    attempts: dict[CaseKey, dict[str, list[Seen]]] = {}
    for test in sorted(tests, key=lambda test: test.attempt):
        # not test.test: the same program in another cell of the platform's matrix is another case
        base = (test.role, test.collection, test.key.split(":", 2)[2])
        found: list[tuple[tuple[str, ...], Seen]] = [((), Seen(test.outcome, test.reason))]
        found += [(sub.name, Seen(sub.outcome, sub.reason)) for sub in test.subtests]
        for subtest, seen in found:
            if seen.outcome is not Outcome.INFRA:
                machines = attempts.setdefault(CaseKey(*base, subtest), {})
                machines.setdefault(test.machine, []).append(seen)
    return {
        key: max((_of_one_machine(seen) for seen in machines.values()), key=_badness)
        for key, machines in attempts.items()
    }


def _of_one_machine(attempts: Sequence[Seen]) -> Seen:
    """Attempts in order to one result."""
    bad = [seen for seen in attempts if not seen.outcome.good]
    if bad and any(seen.outcome in (Outcome.PASS, Outcome.XFAIL) for seen in attempts):
        return Seen(Outcome.FLAKY, bad[-1].reason)
    return bad[-1] if bad else max(attempts, key=_badness)


def _badness(seen: Seen) -> int:
    """Orders results: skip, pass, xfail, flaky, every failure."""
    good = (Outcome.SKIP, Outcome.PASS, Outcome.XFAIL, Outcome.FLAKY)
    return good.index(seen.outcome) if seen.outcome in good else len(good)
