# SPDX-License-Identifier: GPL-2.0-only
"""A run beside earlier ones: which one to compare with, what changed, what became slower.

Earlier runs come as RunResults with at least their tests, machines' kernels and controller facts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.core.compare import CaseKey, Seen, cases, compare
from harness.core.durations import DEFAULT, NoisePolicy, noise
from harness.model.results import (
    Baseline,
    CaseStatus,
    Change,
    HistoryPoint,
    Outcome,
    RunResult,
    SlowDown,
    TestHistory,
    TestResult,
)

WINDOW = 50  # earlier runs that are looked at


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the earlier runs say about this one."""

    baseline: Baseline | None
    slower: tuple[SlowDown, ...]
    history: tuple[TestHistory, ...]


def beside(
    run: RunResult, earlier: Iterable[RunResult], named: RunResult | None = None
) -> Comparison:
    """Compare a run with those before it. named: the baseline that the user asked for.

    A run without tests (a series that does not apply, say) has nothing to compare.
    """
    before = _before(run, earlier)
    chosen = choose(run, before)
    found = named or (None if chosen is None else _completed(chosen, before))
    why = "named with --baseline" if named else f"the last run of plan {run.plan}, {run.topology}"
    baseline = None if found is None or not run.tests else _baseline(run, found, before, why)
    return Comparison(baseline, slow_downs(run, before), histories(run, before))


def choose(run: RunResult, earlier: Iterable[RunResult]) -> RunResult | None:
    """The last run of the same plan and topology that was about the same tests and had an answer.

    A run of all tests serves for a run of some (-k), not the other way round; an interrupted run
    never serves.
    """
    for other in reversed(_before(run, earlier)):
        same = other.expression in ("", run.expression)
        if same and not _interrupted(other) and cases(other.tests):
            return other
    return None


def slow_downs(
    run: RunResult, earlier: Iterable[RunResult], policy: NoisePolicy = DEFAULT
) -> tuple[SlowDown, ...]:
    """Tests that passed and took longer than their passes under the same circumstances explain."""
    taken: dict[tuple[str, ...], list[float]] = {}
    for other in _before(run, earlier):
        for test in other.tests:
            if test.outcome is Outcome.PASS:
                taken.setdefault(_circumstances(other, test), []).append(test.duration_s)
    found = []
    for test in run.tests:
        if test.outcome is not Outcome.PASS:
            continue
        known = noise(taken.get(_circumstances(run, test), ()), policy)
        if known is not None and test.duration_s > known.limit_s:
            found.append(
                SlowDown(test.key, test.duration_s, known.median_s, known.limit_s, known.runs)
            )
    return tuple(sorted(found, key=lambda slow: slow.median_s / slow.duration_s))


def histories(run: RunResult, earlier: Iterable[RunResult]) -> tuple[TestHistory, ...]:
    """Each test of the run over the earlier runs and this one. INFRA took no meaningful time."""
    points: dict[str, list[HistoryPoint]] = {test.key: [] for test in run.tests}
    for one in (*_before(run, earlier), run):
        for test in one.tests:
            if test.key in points and test.outcome is not Outcome.INFRA:
                point = HistoryPoint(one.run_id, one.started, test.outcome, test.duration_s)
                points[test.key].append(point)
    return tuple(TestHistory(key, tuple(found)) for key, found in points.items() if found)


def _interrupted(run: RunResult) -> bool:
    return any(failure.kind == "interrupted" for failure in run.failures)


def _before(run: RunResult, earlier: Iterable[RunResult]) -> list[RunResult]:
    """Runs of the same plan and topology that began before this one, oldest first."""
    same = [
        other
        for other in earlier
        if (other.plan, other.topology) == (run.plan, run.topology)
        and other.run_id != run.run_id
        and other.started <= run.started
    ]
    return sorted(same, key=lambda other: (other.started, other.run_id))


def _completed(found: RunResult, before: Iterable[RunResult]) -> RunResult:
    """`found`, with the last answer of earlier runs in place of each test lost to INFRA."""
    answers: dict[str, TestResult] = {}
    for other in before:
        answers.update({t.key: t for t in other.tests if t.outcome is not Outcome.INFRA})
        if other.run_id == found.run_id:
            break
    tests = tuple(
        answers.get(test.key, test) if test.outcome is Outcome.INFRA else test
        for test in found.tests
    )
    return replace(found, tests=tests)


def _baseline(run: RunResult, found: RunResult, before: Sequence[RunResult], why: str) -> Baseline:
    rows = compare(found, run)
    if _interrupted(run):  # what it did not come to is not missing
        rows = tuple(row for row in rows if row.after is not None)
    seen = [(other.run_id, cases(other.tests)) for other in before]
    statuses = tuple(
        CaseStatus(
            role=row.key.role,
            collection=row.key.collection,
            test=row.key.test,
            subtest=row.key.subtest,
            change=row.change,
            before=row.before,
            after=row.after,
            reason=row.reason,
            since=since(row.key, seen) if row.after is not None and not row.after.good else "",
        )
        for row in rows
        if row.change is not Change.SAME
    )
    counts = Counter(row.change.value for row in rows)
    return Baseline(found.run_id, found.started, why, statuses, dict(counts))


def since(key: CaseKey, seen: Sequence[tuple[str, dict[CaseKey, Seen]]]) -> str:
    """The run in which the unbroken row of failures before this run began, "" when there is none.

    seen: (run id, its cases), oldest first. Runs without an answer neither break nor begin a row.
    """
    first = ""
    for run_id, found in reversed(seen):
        one = found.get(key)
        if one is None or one.outcome is Outcome.SKIP:
            continue
        if one.outcome.good:
            break
        first = run_id
    return first


def _circumstances(run: RunResult, test: TestResult) -> tuple[str, ...]:
    """What must be equal for two durations to be comparable. The kernel itself may differ."""
    config = ",".join(f"{k.role}:{k.config_hash}" for k in run.kernels)
    facts = (run.controller.get(name, "") for name in ("cpus", "qemu", "accel"))
    return (test.key, test.machine, config, *facts)
