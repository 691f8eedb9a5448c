# SPDX-License-Identifier: GPL-2.0-only
"""What compare says about each pair of results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.compare import CaseKey, Change, compare, render, worse
from harness.model.results import Outcome, RunResult, SubtestResult, TestResult, Verdict


def result(outcome: str, *, machine: str = "vm", attempt: int = 1, **subtests: str) -> TestResult:
    return TestResult(
        machine=machine,
        role="guest",
        collection="tsm",
        test="abi",
        outcome=Outcome(outcome),
        reason=f"because {outcome}",
        duration_s=1.0,
        started_s=0.0,
        log="",
        attempt=attempt,
        subtests=tuple(SubtestResult((n,), Outcome(o), "") for n, o in subtests.items()),
    )


def run(*tests: TestResult) -> RunResult:
    return RunResult(
        schema_version=1,
        run_id="r",
        plan="p",
        topology="solo",
        started="2026-11-22T17:30:44Z",
        duration_s=1.0,
        verdict=Verdict.PASS,
        exit_code=0,
        harness_version="0",
        controller={},
        command=(),
        tests=tests,
    )


@pytest.mark.parametrize(
    ("was", "now", "change"),
    [
        ("pass", "pass", Change.SAME),
        ("pass", "fail", Change.NEW_FAILURE),
        ("pass", "crash", Change.NEW_FAILURE),
        ("pass", "xpass", Change.NEW_FAILURE),
        ("pass", "xfail", Change.NEW_FAILURE),
        ("pass", "skip", Change.MISSING),
        ("pass", "missing", Change.MISSING),
        ("pass", "", Change.MISSING),
        ("pass", "infra", Change.MISSING),
        ("pass", "flaky", Change.FLAKY),
        ("fail", "fail", Change.STILL_FAILING),
        ("fail", "timeout", Change.STILL_FAILING),
        ("fail", "missing", Change.STILL_FAILING),
        ("fail", "pass", Change.FIXED),
        ("fail", "skip", Change.MISSING),
        ("fail", "xfail", Change.SAME),
        ("fail", "", Change.MISSING),
        ("skip", "skip", Change.SAME),
        ("skip", "pass", Change.NEW),
        ("skip", "", Change.SAME),
        ("skip", "fail", Change.NEW_FAILURE),
        ("xfail", "xfail", Change.SAME),
        ("xfail", "pass", Change.FIXED),
        ("flaky", "pass", Change.FLAKY),
        ("flaky", "fail", Change.NEW_FAILURE),
        ("missing", "pass", Change.FIXED),
        ("", "pass", Change.NEW),
        ("", "skip", Change.SAME),
        ("", "fail", Change.NEW_FAILURE),
        ("", "missing", Change.NEW_FAILURE),
        ("infra", "fail", Change.NEW_FAILURE),
        ("infra", "pass", Change.NEW),
    ],
)
def test_change(was: str, now: str, change: Change) -> None:
    before = run(*([result(was)] if was else []))
    after = run(*([result(now)] if now else []))
    assert [row.change for row in compare(before, after)] == [change]


def test_infra_on_both_sides_says_nothing() -> None:
    assert compare(run(result("infra")), run(result("infra"))) == ()


def test_subtests_have_rows_of_their_own_the_most_urgent_first() -> None:
    rows = compare(
        run(result("fail", a="pass", b="fail", c="pass")), run(result("fail", a="fail", b="pass"))
    )
    assert [(row.key.subtest, row.change) for row in rows] == [
        (("a",), Change.NEW_FAILURE),
        (("c",), Change.MISSING),
        ((), Change.STILL_FAILING),
        (("b",), Change.FIXED),
    ]
    assert [row.change.regression for row in rows] == [True, True, False, False]


def test_attempts_that_disagree_are_flaky() -> None:
    (row,) = compare(run(result("pass")), run(result("pass", attempt=2), result("fail")))
    assert (row.change, row.after, row.reason) == (Change.FLAKY, Outcome.FLAKY, "because fail")


def test_one_bad_machine_is_a_failure_and_not_flaky() -> None:
    (row,) = compare(run(result("pass")), run(result("fail"), result("pass", machine="lab1")))
    assert (row.change, row.after) == (Change.NEW_FAILURE, Outcome.FAIL)


def test_roles_are_kept_apart() -> None:
    key = CaseKey("guest", "tsm", "abi", ("a",))
    assert str(key) == "guest:tsm:abi / a"
    assert key != key._replace(role="host")


def test_a_run_of_some_tests_misses_no_other() -> None:
    other = replace(result("pass"), test="race")
    before, after = run(result("pass"), other), run(result("fail"))
    assert [(r.key.test, r.change) for r in compare(before, replace(after, expression="abi"))] == [
        ("abi", Change.NEW_FAILURE)
    ]
    assert [(r.key.test, r.change) for r in compare(before, after)] == [
        ("abi", Change.NEW_FAILURE),
        ("race", Change.MISSING),
    ]
    gone = replace(run(), expression="not race")
    assert [r.change for r in compare(before, gone)] == [Change.MISSING]


def test_rendered_rows() -> None:
    rows = compare(run(result("pass", a="pass", b="skip")), run(result("fail", a="fail", b="skip")))
    assert render(rows) == [
        "NEW FAILURE  pass -> fail        guest:tsm:abi  (because fail)",
        "NEW FAILURE  pass -> fail        guest:tsm:abi / a",
        "2 new failure, 1 same",
    ]
    assert len(render(rows, everything=True)) == 4


def test_two_empty_runs() -> None:
    assert render(compare(run(), run())) == ["no test in either run"]


@pytest.mark.parametrize(
    ("was", "now", "verdicts", "excused", "expected"),
    [
        ("pass", "pass", "pass pass", False, False),
        ("pass", "fail", "pass fail", False, True),
        ("fail", "fail", "fail fail", False, False),
        ("pass", "flaky", "pass fail", False, True),
        ("pass", "flaky", "fail fail", False, True),
        ("flaky", "flaky", "fail fail", False, False),
        ("fail", "flaky", "fail fail", False, False),
        ("flaky", "pass", "fail pass", False, False),
        ("pass", "flaky", "fail fail", True, False),
        # the history does not keep the excuse, but such a run could not have passed without it
        ("pass", "flaky", "pass pass", False, False),
        # a splat between the tests, a kernel that did not boot
        ("pass", "pass", "pass fail", False, True),
        ("pass", "pass", "infra fail", False, True),
        ("pass", "pass", "fail fail", False, False),
        ("pass", "pass", "pass infra", False, False),
    ],
)
def test_what_makes_a_run_worse(
    was: str, now: str, verdicts: str, excused: bool, expected: bool
) -> None:
    first, second = (Verdict(word) for word in verdicts.split())
    before = replace(run(result(was)), verdict=first)
    after = replace(run(result(now)), verdict=second, flaky_passes=excused)
    assert worse(before, after, compare(before, after)) is expected
