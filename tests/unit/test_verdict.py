# SPDX-License-Identifier: GPL-2.0-only
"""The verdict: a test that did not run is never a pass."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from harness.core import ktap
from harness.core.known import expect_known, expired_notes
from harness.core.verdict import judge, verdict, was_running
from harness.model.kernel import Role
from harness.model.plan import KnownFailure, TestSelection
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
     ("interrupted", Verdict.INFRA), ("user", Verdict.INFRA)],
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


TODAY = datetime.date(2026, 11, 22)
KNOWN = (KnownFailure("a:s0", "reason"),)


def test_a_known_failure_is_an_xfail_and_its_pass_is_noticed() -> None:
    failed = expect_known(report((Outcome.FAIL, ""), (Outcome.PASS, "")), KNOWN, TODAY)
    assert judge(failed, 1, ()) == (Outcome.PASS, "")
    assert failed.cases[0].outcome is Outcome.XFAIL
    assert failed.cases[0].reason == "known: reason"
    passed = expect_known(report((Outcome.PASS, ""), (Outcome.PASS, "")), KNOWN, TODAY)
    assert judge(passed, 0, ())[0] is Outcome.XPASS


def test_a_known_failure_excuses_no_other_and_no_crash() -> None:
    both = expect_known(report((Outcome.FAIL, ""), (Outcome.FAIL, "")), KNOWN, TODAY)
    assert judge(both, 1, ())[0] is Outcome.FAIL
    hung = expect_known(report((Outcome.TIMEOUT, "")), KNOWN, TODAY)
    assert judge(hung, 1, ())[0] is Outcome.TIMEOUT


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(1, Outcome.PASS), (134, Outcome.FAIL), (139, Outcome.FAIL), (255, Outcome.PASS)],
)
def test_a_known_failure_does_not_explain_a_signal(status: int, outcome: Outcome) -> None:
    text = (
        "TAP version 13\n1..1\n# selftests: tsm: a\n# 1..2\n# not ok 1 s0\n# ok 2 s1\n"
        f"not ok 1 selftests: tsm: a # exit={status}\n"
    )
    known = (KnownFailure("a:s0", "bug 7", None),)
    assert judge(expect_known(ktap.parse(text), known, TODAY), 1, ())[0] is outcome


@pytest.mark.parametrize(
    ("until", "outcome"),
    [
        (TODAY - datetime.timedelta(days=1), Outcome.FAIL),
        (TODAY, Outcome.PASS),  # its last day counts
        (TODAY + datetime.timedelta(days=1), Outcome.PASS),
    ],
)
def test_a_known_failure_ends_with_its_last_day(until: datetime.date, outcome: Outcome) -> None:
    known = (KnownFailure("a:s0", "bug 7", until),)
    found = expect_known(report((Outcome.FAIL, "x != y"), (Outcome.PASS, "")), known, TODAY)
    assert judge(found, 1, ())[0] is outcome


def test_an_expired_entry_is_said_beside_the_failure_and_changes_no_pass() -> None:
    known = (KnownFailure("a:*", "bug 7", datetime.date(2026, 1, 31)),)
    found = expect_known(report((Outcome.FAIL, "x != y"), (Outcome.PASS, "")), known, TODAY)
    assert judge(found, 1, ()) == (
        Outcome.FAIL,
        "s0: x != y; no longer excused: the known failure expired on 2026-01-31 (bug 7)",
    )
    assert found.cases[1].outcome is Outcome.PASS


def test_an_entry_in_force_counts_beside_an_expired_one() -> None:
    known = (KnownFailure("a:*", "old", datetime.date(2026, 1, 31)), *KNOWN)
    found = expect_known(report((Outcome.FAIL, "")), known, TODAY)
    assert (found.cases[0].outcome, found.cases[0].reason) == (Outcome.XFAIL, "known: reason")


def test_expired_entries_are_noted_for_the_run() -> None:
    known = (*KNOWN, KnownFailure("b:*", "bug 7", datetime.date(2026, 1, 31)))
    selection = TestSelection(Role.GUEST, "tsm", ("*",), (), 60.0, known)
    assert expired_notes((selection, selection), TODAY) == (
        "guest:tsm:b:*: no longer excused: the known failure expired on 2026-01-31 (bug 7)",
    )
    assert expired_notes((selection,), datetime.date(2026, 1, 31)) == ()


def test_flaky_fails_a_run_unless_the_plan_says_otherwise() -> None:
    flaky = ran(Outcome.FLAKY)
    assert verdict(flaky) is Verdict.FAIL
    assert verdict(replace(flaky, flaky_passes=True)) is Verdict.PASS
    worse = replace(ran(Outcome.FLAKY, Outcome.FAIL), flaky_passes=True)
    assert verdict(worse) is Verdict.FAIL
    splat = replace(flaky, flaky_passes=True, splats=(SPLAT,))
    assert verdict(splat) is Verdict.FAIL, "a splat is never excused"


def test_what_was_running_when_the_output_ended() -> None:
    text = "TAP version 13\n1..1\n# selftests: tsm: a\n# TAP version 13\n# 1..3\n# ok 1 x\n"
    assert was_running(ktap.parse(text + "# #  RUN  y.z ...\n# not yet")) == "y.z"
    assert was_running(ktap.parse(text + "# ok 2 y\n# ok 3 z\nok 1 selftests: tsm: a\n")) == ""
    assert was_running(ktap.parse("")) == ""
