# SPDX-License-Identifier: GPL-2.0-only
"""The run at a glance: a table of collections by roles, each field with its worst outcome. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.model.results import Outcome, RunResult, TestResult
from harness.report import timeline
from harness.report.summary import spoken

_ROWS = 300
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
    """columns, and rows of (name, field per column or None where nothing was planned)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Field | None, ...]], ...]
    hidden: int


def layout(result: RunResult, hrefs: Mapping[str, str]) -> Matrix:
    """Collections by roles. hrefs: "role:collection" -> anchor of its tests on the page."""
    fields: dict[tuple[str, str], list[TestResult]] = {}
    for test in result.tests:
        fields.setdefault((test.collection, test.role), []).append(test)
    columns = tuple(sorted({role for _, role in fields}, key=_role_order))
    names = sorted({name for name, _ in fields}, key=lambda name: _rank(name, fields))
    rows = tuple(
        (
            name,
            tuple(
                _field(fields[name, role], hrefs.get(f"{role}:{name}", ""))
                if (name, role) in fields
                else None
                for role in columns
            ),
        )
        for name in names[:_ROWS]
    )
    return Matrix(columns, rows, max(len(names) - _ROWS, 0))


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome that a field is coloured by; a pass outweighs a skip."""
    found = set(outcomes)
    return next(outcome for outcome in _WORST if outcome in found)


def _role_order(role: str) -> tuple[int, str]:
    return (("host", "guest").index(role) if role in ("host", "guest") else 2), role


def _rank(name: str, fields: Mapping[tuple[str, str], list[TestResult]]) -> tuple[bool, str]:
    """Collections with a failure first, then by name."""
    good = all(t.outcome.good for (n, _), tests in fields.items() if n == name for t in tests)
    return good, name


def _field(tests: list[TestResult], href: str) -> Field:
    counts = Counter(test.outcome for test in tests)
    title = ", ".join(f"{counts[o]} {spoken(o)}" for o in _WORST if counts[o])
    return Field(
        f"{counts[Outcome.PASS]}/{len(tests)}",
        timeline.tone(worst(counts)),
        title,
        href,
    )
