# SPDX-License-Identifier: GPL-2.0-only
"""Failures that a plan announces: what they excuse, until when, and what is said afterwards."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harness.model.plan import KnownFailure, TestSelection
from harness.model.results import KtapCase, KtapReport, Outcome

_CHANGED = {Outcome.FAIL: Outcome.XFAIL, Outcome.PASS: Outcome.XPASS}
ANNOUNCED = "known: "  # begins the reason of every case that an entry changed


def expired(entry: KnownFailure, today: datetime.date) -> bool:
    """An entry counts up to its last day, that day included."""
    return entry.until is not None and today > entry.until


def expect_known(
    report: KtapReport, known: Sequence[KnownFailure], today: datetime.date
) -> KtapReport:
    """Turn failures that the plan announces into XFAIL, and their unannounced passes into XPASS.

    A TIMEOUT or CRASH is never what was announced. An expired entry changes no outcome; a failure
    that it would have excused says so in its reason. The first entry in force decides.
    """

    def judged(case: KtapCase) -> KtapCase:
        name = ":".join(case.id[1:])
        if case.outcome not in _CHANGED:
            return case
        found = [entry for entry in known if fnmatchcase(name, entry.pattern)]
        for entry in found:
            if not expired(entry, today):
                reason = f"{ANNOUNCED}{entry.reason}"
                return replace(case, outcome=_CHANGED[case.outcome], reason=reason)
        if found and case.outcome is Outcome.FAIL:
            return replace(case, reason="; ".join(p for p in (case.reason, _over(found[0])) if p))
        return case

    return replace(report, cases=tuple(judged(case) for case in report.cases))


def expired_notes(selections: Iterable[TestSelection], today: datetime.date) -> tuple[str, ...]:
    """One line for each expired entry, for the report of the run."""
    lines = [
        f"{selection.role.value}:{selection.collection}:{entry.pattern}: {_over(entry)}"
        for selection in selections
        for entry in selection.known
        if expired(entry, today)
    ]
    return tuple(dict.fromkeys(lines))


def _over(entry: KnownFailure) -> str:
    return f"no longer excused: the known failure expired on {entry.until} ({entry.reason})"
