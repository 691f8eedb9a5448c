# SPDX-License-Identifier: GPL-2.0-only
"""The run at a glance, each field with its worst outcome. Pure.

Where the plan has cells of the platform's matrix: tests by cells. Otherwise: collections by roles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.model.results import Outcome, RunResult, TestResult
from harness.report import timeline
from harness.report.summary import spoken

_ROWS = 300
_ROLES = ("host", "guest")
NO_CELL = "no platform"
_WORST = (
    Outcome.CRASH,
    Outcome.FAIL,
    Outcome.TIMEOUT,
    Outcome.XPASS,
    Outcome.MISSING,
    Outcome.INFRA,
    Outcome.FLAKY,
    Outcome.PASS,
    Outcome.XFAIL,
    Outcome.SKIP,
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field. text: "7/9", tone: CSS class, title: all outcomes, href: where to look."""

    text: str
    tone: str
    title: str
    href: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """columns, and rows of (name, field per column or None where nothing was planned).

    head: what the rows are. hidden: rows that were left out.
    """

    head: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Field | None, ...]], ...]
    hidden: int


def layout(result: RunResult, hrefs: Mapping[str, str]) -> Matrix:
    """The table. hrefs: TestResult.key or "role:collection" -> anchor on the page."""
    by_cell = any(test.cell for test in result.tests)
    fields: dict[tuple[str, str], list[TestResult]] = {}
    for test in result.tests:
        place = _by_cell(test) if by_cell else (test.collection, test.role)
        fields.setdefault(place, []).append(test)
    known = [cell.name for cell in result.cells] if by_cell else list(_ROLES)
    found = {column for _, column in fields}
    columns = [*(c for c in known if c in found), *sorted(found - set(known))]
    names = sorted({name for name, _ in fields}, key=lambda name: _rank(name, fields))
    rows = tuple(
        (name, tuple(_field(fields.get((name, column)), hrefs) for column in columns))
        for name in names[:_ROWS]
    )
    head = "test" if by_cell else "collection"
    return Matrix(head, tuple(columns), rows, max(len(names) - _ROWS, 0))


def _by_cell(test: TestResult) -> tuple[str, str]:
    return f"{test.role}:{test.collection}:{test.test}", test.cell or NO_CELL


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome that a field is coloured by; a pass outweighs a skip."""
    found = set(outcomes)
    return next(outcome for outcome in _WORST if outcome in found)


def _rank(name: str, fields: Mapping[tuple[str, str], list[TestResult]]) -> tuple[bool, str]:
    """Those with a failure first, then by name."""
    good = all(t.outcome.good for (n, _), tests in fields.items() if n == name for t in tests)
    return good, name


def _field(tests: list[TestResult] | None, hrefs: Mapping[str, str]) -> Field | None:
    if not tests:
        return None
    counts = Counter(test.outcome for test in tests)
    title = ", ".join(f"{counts[o]} {spoken(o)}" for o in _WORST if counts[o])
    bad = worst(counts)
    text = f"{counts[Outcome.PASS]}/{len(tests)}"
    href = hrefs.get(f"{tests[0].role}:{tests[0].collection}", "")
    if len(tests) == 1:
        text, title = bad.value, _inner(tests[0])
        href = hrefs.get(tests[0].key, href)
    return Field(text, timeline.tone(bad), title, href)


def _inner(test: TestResult) -> str:
    """The subtests of the one test of a field."""
    counts = Counter(sub.outcome for sub in test.subtests)
    return ", ".join(f"{counts[o]} {spoken(o)}" for o in _WORST if counts[o]) or test.reason[:200]
