# SPDX-License-Identifier: GPL-2.0-only
"""The verdict: a test that did not run is never a pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.verdict import expect_known, judge, verdict
from harness.model.results import (
    Failure,
    KtapCase,
    KtapProblem,
    KtapReport,
    Outcome,
    RunResult,
    Splat,
    SplatRecord,
    TestResult,
    Verdict,
)

EMPTY = RunResult(1, "r", "p", "solo", "", 0.0, Verdict.INFRA, 2, "0", {}, ())
SPLAT = SplatRecord("guest", "guest", "tsm:a", Splat("warn", "WARNING in f", "f", 1, 2), "")


def ran(*outcomes: Outcome) -> RunResult:
    tests = tuple(
        TestResult("guest", "guest", "tsm", f"t{n}", outcome, "", 1.0, 0.0, "")
        for n, outcome in enumerate(outcomes)
    )
    return replace(EMPTY, tests=tests)


def report(*cases: tuple[Outcome, str]) -> KtapReport:
    return KtapReport(
        tuple(KtapCase(("tsm", "a", f"s{n}"), o, r, n) for n, (o, r) in enumerate(cases))
    )


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((), Verdict.INFRA),
        ((Outcome.SKIP,), Verdict.INFRA),
        ((Outcome.PASS, Outcome.SKIP), Verdict.PASS),
        ((Outcome.PASS, Outcome.XFAIL), Verdict.PASS),
        ((Outcome.PASS, Outcome.INFRA), Verdict.INFRA),
        ((Outcome.PASS, Outcome.MISSING), Verdict.FAIL),
        ((Outcome.PASS, Outcome.XPASS), Verdict.FAIL),
        ((Outcome.PASS, Outcome.FLAKY), Verdict.FAIL),
        ((Outcome.INFRA, Outcome.CRASH), Verdict.FAIL),
        ((Outcome.PASS, Outcome.TIMEOUT), Verdict.FAIL),
    ],
)
def test_verdict_of_outcomes(outcomes: tuple[Outcome, ...], expected: Verdict) -> None:
    assert verdict(ran(*outcomes)) is expected


def test_a_splat_outside_any_test_fails_the_run() -> None:
    assert verdict(replace(ran(Outcome.PASS), splats=(replace(SPLAT, test=""),))) is Verdict.FAIL


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("patch", Verdict.FAIL), ("boot", Verdict.FAIL), ("infra", Verdict.INFRA),
     ("interrupted", Verdict.INFRA)],
)  # fmt: skip
def test_failures_beside_passing_tests(kind: str, expected: Verdict) -> None:
    result = replace(ran(Outcome.PASS), failures=(Failure(kind, "guest", "m"),))
    assert verdict(result) is expected


def test_nothing_printed_is_missing() -> None:
    problem = KtapProblem(0, "empty input")
    assert judge(KtapReport((), (problem,)), 0, ()) == (Outcome.MISSING, "empty input")


def test_a_pass_beside_a_splat_fails() -> None:
    outcome, reason = judge(report((Outcome.PASS, "")), 0, (SPLAT,))
    assert outcome is Outcome.FAIL
    assert "WARNING in f" in reason


def test_the_worst_subtest_decides_and_is_named() -> None:
    found = judge(report((Outcome.PASS, ""), (Outcome.FAIL, "x != y"), (Outcome.FAIL, "")), 1, ())
    assert found == (Outcome.FAIL, "s1 and 1 more: x != y")


def test_good_results_with_a_bad_status_fail() -> None:
    assert judge(report((Outcome.PASS, "")), 3, ())[0] is Outcome.FAIL


def test_all_skipped_is_a_skip_with_its_reason() -> None:
    assert judge(report((Outcome.SKIP, "no TSM")), 0, ()) == (Outcome.SKIP, "no TSM")


def test_pass_and_skip_is_a_pass() -> None:
    assert judge(report((Outcome.PASS, ""), (Outcome.SKIP, "")), 0, ()) == (Outcome.PASS, "")


def test_skip_and_xfail_is_an_xfail() -> None:
    found = judge(report((Outcome.SKIP, ""), (Outcome.XFAIL, "known")), 0, ())
    assert found == (Outcome.XFAIL, "known")


def test_a_known_failure_is_an_xfail_and_its_pass_is_noticed() -> None:
    known = (("a:s0", "reason"),)
    failed = expect_known(report((Outcome.FAIL, ""), (Outcome.PASS, "")), known)
    assert judge(failed, 1, ()) == (Outcome.PASS, "")
    assert failed.cases[0].outcome is Outcome.XFAIL
    assert failed.cases[0].reason == "known: reason"
    passed = expect_known(report((Outcome.PASS, ""), (Outcome.PASS, "")), known)
    assert judge(passed, 0, ())[0] is Outcome.XPASS


def test_a_known_failure_excuses_no_other_and_no_crash() -> None:
    known = (("a:s0", "reason"),)
    both = expect_known(report((Outcome.FAIL, ""), (Outcome.FAIL, "")), known)
    assert judge(both, 1, ())[0] is Outcome.FAIL
    hung = expect_known(report((Outcome.TIMEOUT, "")), known)
    assert judge(hung, 1, ())[0] is Outcome.TIMEOUT
