# SPDX-License-Identifier: GPL-2.0-only
"""A run beside earlier ones: the baseline chosen, the statuses, since when, what became slower."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.baseline import beside, choose, histories, slow_downs
from harness.model.results import (
    Change,
    Failure,
    KernelRecord,
    Outcome,
    RunResult,
    SubtestResult,
    TestResult,
    Verdict,
)

KERNEL = KernelRecord("guest", "git", "7.3", "c0", (), "cfg", "7.3", "ab", "gcc", (), True, 0.0, "")


def case(outcome: str, test: str = "abi", *, seconds: float = 1.0, **subs: str) -> TestResult:
    return TestResult(
        machine="guest",
        role="guest",
        collection="tsm",
        test=test,
        outcome=Outcome(outcome),
        reason=f"because {outcome}",
        duration_s=seconds,
        started_s=0.0,
        log="",
        subtests=tuple(SubtestResult((n,), Outcome(o), "") for n, o in subs.items()),
    )


def run(day: int, *tests: TestResult, plan: str = "default", expression: str = "") -> RunResult:
    return RunResult(
        schema_version=1,
        run_id=f"day{day}",
        plan=plan,
        topology="solo",
        started=f"2026-11-{day:02}T00:00:00+00:00",
        duration_s=1.0,
        verdict=Verdict.PASS,
        exit_code=0,
        harness_version="0",
        controller={"accel": "kvm", "qemu": "11.1", "cpus": "2"},
        command=(),
        kernels=(KERNEL,),
        tests=tests,
        expression=expression,
    )


def chosen(now: RunResult, *earlier: RunResult) -> str:
    found = choose(now, earlier)
    return found.run_id if found else ""


def test_the_last_run_of_the_same_plan_and_topology_is_the_baseline() -> None:
    now = run(9, case("pass"))
    assert chosen(now, run(3, case("pass")), run(1, case("pass")), run(2, case("pass"))) == "day3"
    assert chosen(now, run(3, case("pass"), plan="other"), run(1, case("fail"))) == "day1"
    assert chosen(now, replace(run(3, case("pass")), topology="pair")) == ""
    assert chosen(now) == ""


def test_what_cannot_be_a_baseline() -> None:
    now = run(9, case("pass"))
    stopped = replace(run(8, case("pass")), failures=(Failure("interrupted", "", "m"),))
    later = run(10, case("pass"))
    for other in (now, stopped, later, run(7), run(6, case("infra"))):
        assert chosen(now, other) == ""


def test_a_run_of_some_tests_is_no_baseline_for_all_of_them() -> None:
    some = run(8, case("pass"), expression="abi")
    assert chosen(run(9, case("pass")), some, run(7, case("pass"))) == "day7"
    assert chosen(run(9, case("pass"), expression="abi"), some) == "day8"
    assert chosen(run(9, case("pass"), expression="abi"), run(7, case("pass"))) == "day7"
    assert chosen(run(9, case("pass"), expression="race"), some) == ""


def test_every_status() -> None:
    before = run(
        1,
        case("fail", "still"),
        case("pass", "broken"),
        case("fail", "cured"),
        case("pass", "gone"),
        case("pass", "shaky"),
        case("pass", "same"),
    )
    now = run(
        2,
        case("crash", "still"),
        case("fail", "broken"),
        case("pass", "cured"),
        case("flaky", "shaky"),
        case("pass", "same"),
        case("pass", "fresh"),
    )
    baseline = beside(now, [before]).baseline
    assert baseline is not None
    assert (baseline.run_id, baseline.why) == ("day1", "the last run of plan default, solo")
    assert [(c.test, c.change, c.since) for c in baseline.cases] == [
        ("broken", Change.NEW_FAILURE, ""),
        ("gone", Change.MISSING, ""),
        ("shaky", Change.FLAKY, ""),
        ("still", Change.STILL_FAILING, "day1"),
        ("cured", Change.FIXED, ""),
        ("fresh", Change.NEW, ""),
    ]
    assert baseline.cases[0].reason == "because fail"
    assert baseline.counts == {change.value: 1 for change in Change}


def test_the_named_run_is_the_baseline_even_of_another_plan() -> None:
    named = run(1, case("fail"), plan="other")
    baseline = beside(run(9, case("pass")), [run(8, case("pass"))], named).baseline
    assert baseline is not None
    assert (baseline.run_id, baseline.why) == ("day1", "named with --baseline")
    assert [c.change for c in baseline.cases] == [Change.FIXED]


def test_a_run_that_came_to_no_test_misses_nothing() -> None:
    failed = replace(run(2), failures=(Failure("patch", "guest", "m"),))
    assert beside(failed, [run(1, case("pass"))]).baseline is None


def test_an_interrupted_run_misses_nothing() -> None:
    stopped = replace(run(2, case("fail")), failures=(Failure("interrupted", "", "m"),))
    baseline = beside(stopped, [run(1, case("pass"), case("pass", "race"))]).baseline
    assert baseline is not None
    assert [(c.test, c.change) for c in baseline.cases] == [("abi", Change.NEW_FAILURE)]
    assert baseline.counts == {"new failure": 1}


def test_without_earlier_runs_there_is_no_baseline() -> None:
    found = beside(run(1, case("fail")), [])
    assert (found.baseline, found.slower) == (None, ())
    assert [len(history.points) for history in found.history] == [1]


@pytest.mark.parametrize(
    ("row", "since"),
    [
        ("fail fail fail", "day1"),
        ("fail pass fail", "day3"),
        ("pass fail fail", "day2"),
        ("pass fail infra", "day2"),  # no answer neither breaks nor begins a row
        ("fail skip fail", "day1"),
        ("fail flaky fail", "day1"),
        ("fail fail pass", ""),
    ],
)
def test_since_when_a_case_fails(row: str, since: str) -> None:
    earlier = [run(n, case(o), case("pass", "b")) for n, o in enumerate(row.split(), 1)]
    baseline = beside(run(9, case("fail")), earlier).baseline
    assert baseline is not None
    (found,) = [c for c in baseline.cases if c.test == "abi"]
    assert found.since == since


@pytest.mark.parametrize(
    ("row", "now", "change"),
    [
        ("fail infra", "fail", Change.STILL_FAILING),
        ("pass infra", "fail", Change.NEW_FAILURE),
        ("fail infra infra", "pass", Change.FIXED),
        ("pass infra", "pass", Change.SAME),
        ("infra", "fail", Change.NEW_FAILURE),
        ("infra", "pass", Change.NEW),
    ],
)
def test_a_baseline_without_an_answer_gives_the_one_before(
    row: str, now: str, change: Change
) -> None:
    earlier = [run(n, case(o), case("pass", "b")) for n, o in enumerate(row.split(), 1)]
    baseline = beside(run(9, case(now), case("pass", "b")), earlier).baseline
    assert baseline is not None
    assert baseline.run_id == f"day{len(earlier)}"
    found = [c.change for c in baseline.cases if c.test == "abi"] or [Change.SAME]
    assert found == [change]


def test_subtests_have_statuses_of_their_own() -> None:
    baseline = beside(
        run(2, case("fail", a="fail", b="pass")), [run(1, case("fail", a="pass", b="fail"))]
    ).baseline
    assert baseline is not None
    assert [(c.subtest, c.change) for c in baseline.cases] == [
        (("a",), Change.NEW_FAILURE),
        ((), Change.STILL_FAILING),
        (("b",), Change.FIXED),
    ]


EARLIER = [run(n, case("pass", seconds=10.0 + n % 3)) for n in range(1, 8)]


def test_a_slow_down_beyond_the_noise() -> None:
    (slow,) = slow_downs(run(9, case("pass", seconds=30.0)), EARLIER)
    assert (slow.key, slow.duration_s, slow.median_s, slow.runs) == ("guest:tsm:abi", 30.0, 11.0, 7)
    assert 12.0 < slow.limit_s < 30.0
    assert slow_downs(run(9, case("pass", seconds=12.5)), EARLIER) == ()


def test_only_passes_under_the_same_circumstances_are_compared() -> None:
    now = run(9, case("pass", seconds=30.0))
    assert slow_downs(run(9, case("fail", seconds=30.0)), EARLIER) == ()
    assert slow_downs(replace(now, controller={**now.controller, "accel": "tcg"}), EARLIER) == ()
    assert slow_downs(replace(now, kernels=(replace(KERNEL, config_hash="x"),)), EARLIER) == ()
    assert slow_downs(replace(now, tests=(replace(now.tests[0], machine="lab1"),)), EARLIER) == ()
    assert slow_downs(now, EARLIER[:4]) == (), "too few runs"
    failed = [replace(r, tests=(case("fail", seconds=1.0),)) for r in EARLIER]
    assert slow_downs(now, failed) == ()
    assert slow_downs(replace(now, kernels=(replace(KERNEL, build_id="ff"),)), EARLIER), (
        "another kernel is what is being judged"
    )


def test_history_ends_with_this_run_and_has_only_its_tests() -> None:
    earlier = [
        run(1, case("pass"), case("pass", "gone")),
        run(2, case("infra")),
        run(3, case("fail")),
    ]
    (found,) = histories(run(9, case("pass")), reversed(earlier))
    assert found.key == "guest:tsm:abi"
    assert [(p.run_id, p.outcome.value) for p in found.points] == [
        ("day1", "pass"),
        ("day3", "fail"),
        ("day9", "pass"),
    ]
