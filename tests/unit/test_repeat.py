# SPDX-License-Identifier: GPL-2.0-only
"""Repetition: when a test is tried again, what attempts amount to, and that none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.repeat import Next, next_step, settle
from harness.model.plan import RepeatPolicy
from harness.model.platform import PlatformEvents
from harness.model.results import Outcome, SubtestResult, TestResult
from harness.stages.attempts import until_settled

OUTCOMES = st.sampled_from(list(Outcome))
POLICIES = st.builds(RepeatPolicy, st.integers(0, 4), st.integers(0, 4))


def result(outcome: str, number: int = 1, **subtests: str) -> TestResult:
    return TestResult(
        machine="guest",
        role="guest",
        collection="tsm",
        test="a",
        outcome=Outcome(outcome),
        reason="" if outcome == "pass" else f"why {number}",
        duration_s=float(number),
        started_s=10.0 * number,
        log="" if outcome == "infra" else f"ktap/a.{number}.ktap",
        subtests=tuple(SubtestResult((n,), Outcome(o), "") for n, o in subtests.items()),
    )


@pytest.mark.parametrize(
    ("outcomes", "policy", "expected"),
    [
        ("pass", (1, 1), "settled"),
        ("skip", (1, 1), "settled"),
        ("xfail", (1, 1), "settled"),
        ("fail", (1, 1), "repeat"),
        ("crash", (1, 1), "repeat"),
        ("timeout", (1, 1), "repeat"),
        ("missing", (1, 1), "repeat"),
        ("xpass", (1, 1), "repeat"),
        ("fail", (0, 1), "settled"),
        ("fail fail", (1, 1), "settled"),
        ("fail fail", (2, 1), "repeat"),
        ("fail pass", (5, 5), "settled"),
        ("infra", (1, 1), "retry"),
        ("infra", (1, 0), "settled"),
        ("infra infra", (1, 1), "settled"),
        ("infra fail", (1, 1), "repeat"),  # the lost attempt is no repetition
        ("fail infra", (1, 1), "retry"),
        ("fail infra fail", (1, 1), "settled"),
        ("fail infra infra", (1, 1), "settled"),
    ],
)
def test_next_step(outcomes: str, policy: tuple[int, int], expected: str) -> None:
    made = [Outcome(word) for word in outcomes.split()]
    assert next_step(made, RepeatPolicy(*policy)) is Next(expected)


@given(st.lists(OUTCOMES, min_size=12, max_size=12), POLICIES)
def test_repetition_ends_and_is_bounded(outcomes: list[Outcome], policy: RepeatPolicy) -> None:
    made: list[Outcome] = []
    for outcome in outcomes:
        made.append(outcome)
        if next_step(made, policy) is Next.SETTLED:
            break
    assert len(made) <= 1 + policy.repeat + policy.infra_retries
    failed = [o for o in made if not o.good and o is not Outcome.INFRA]
    assert len(failed) <= 1 + policy.repeat


def test_one_attempt_is_left_as_it_is() -> None:
    assert settle([result("fail", a="fail")]) == result("fail", a="fail")


def test_failed_then_passed_is_flaky_with_both_logs() -> None:
    found = settle([result("fail", 1, a="fail", b="pass"), result("pass", 2, a="pass", b="pass")])
    assert found.outcome is Outcome.FLAKY
    assert found.reason == "attempt 1: fail: why 1; attempt 2 passed"
    assert found.log == "ktap/a.1.ktap"
    assert [(a.number, a.outcome.value, a.log) for a in found.attempts] == [
        (1, "fail", "ktap/a.1.ktap"),
        (2, "pass", "ktap/a.2.ktap"),
    ]
    assert [(s.name, s.outcome.value, s.reason) for s in found.subtests] == [
        (("a",), "flaky", "once fail"),
        (("b",), "pass", ""),
    ]


def test_failed_each_time_is_a_failure_and_says_so() -> None:
    found = settle([result("crash", 1), result("fail", 2)])
    assert found.outcome is Outcome.CRASH
    assert found.reason == "why 1 (on a fresh machine: fail)"
    assert [a.log for a in found.attempts] == ["ktap/a.1.ktap", "ktap/a.2.ktap"]


def test_a_skip_does_not_show_that_a_failure_went_away() -> None:
    found = settle([result("fail", 1), result("skip", 2)])
    assert found.outcome is Outcome.FAIL


def test_a_crash_that_cut_off_subtests_leaves_the_rest_to_the_other_attempt() -> None:
    found = settle([result("crash", 1, a="pass"), result("pass", 2, a="pass", b="pass")])
    assert [(s.name, s.outcome.value) for s in found.subtests] == [
        (("a",), "pass"),
        (("b",), "pass"),
    ]
    assert found.outcome is Outcome.FLAKY


def test_an_attempt_lost_to_infrastructure_is_no_result() -> None:
    found = settle([result("infra", 1), result("pass", 2)])
    assert (found.outcome, found.attempt, found.reason) == (Outcome.PASS, 2, "")
    assert [a.outcome for a in found.attempts] == [Outcome.INFRA, Outcome.PASS]
    assert settle([result("infra", 1), result("infra", 2)]).outcome is Outcome.INFRA
    mixed = settle([result("fail", 1), result("infra", 2)])
    assert (mixed.outcome, mixed.attempt) == (Outcome.FAIL, 1)


@given(st.lists(OUTCOMES, min_size=1, max_size=6))
def test_no_attempt_is_lost_and_no_pass_invented(outcomes: list[Outcome]) -> None:
    attempts = [result(outcome.value, n) for n, outcome in enumerate(outcomes, 1)]
    found = settle(attempts)
    answers = [o for o in outcomes if o is not Outcome.INFRA]
    if found.outcome.good:
        assert answers
        assert all(o.good for o in answers)
    if not answers:
        assert found.outcome is Outcome.INFRA
    assert len(found.attempts) == (len(outcomes) if len(outcomes) > 1 else 0)
    assert [a.outcome for a in found.attempts] in ([], outcomes)
    if Outcome.FLAKY not in outcomes and found.outcome is Outcome.FLAKY:
        assert {Outcome.PASS, Outcome.XFAIL} & set(outcomes)


class Machines:
    """A fake fleet: hands out the results in order and counts the machines."""

    def __init__(self, outcomes: Sequence[str]) -> None:
        self.left = list(outcomes)
        self.made = 0
        self.said: list[str] = []
        self.log: list[str] = []

    def once(self) -> TestResult:
        self.made += 1
        self.log.append("test")
        return result(self.left.pop(0), self.made)

    def fresh(self) -> None:
        self.log.append("fresh")

    def run(self, policy: RepeatPolicy) -> TestResult:
        return until_settled(self.once, self.fresh, policy, self.said.append)


def test_each_repetition_gets_a_fresh_machine_and_is_said() -> None:
    machines = Machines(["fail", "infra", "pass"])
    found = machines.run(RepeatPolicy(1, 1))
    assert found.outcome is Outcome.FLAKY
    assert machines.log == ["test", "fresh", "test", "fresh", "test"]
    assert machines.said == [
        "guest:tsm:a: fail, once more on a fresh machine (repeat)",
        "guest:tsm:a: no answer, once more on a fresh machine (retry)",
    ]


def test_a_pass_needs_no_second_machine() -> None:
    machines = Machines(["pass"])
    assert machines.run(RepeatPolicy(3, 3)) == result("pass")
    assert machines.log == ["test"]


def test_without_repetition_the_first_failure_stands() -> None:
    machines = Machines(["fail"])
    assert machines.run(RepeatPolicy(0, 0)).outcome is Outcome.FAIL
    assert machines.log == ["test"]


@pytest.mark.parametrize(
    ("change", "grave"),
    [
        ({}, False),
        ({"outcome": Outcome.CRASH}, True),
        ({"taint_before": 1 << 9, "taint_after": 1 << 9}, False),  # W was there before
        ({"taint_after": 1 << 9}, True),
        ({"platform": PlatformEvents(unannounced=1)}, True),
        ({"platform": PlatformEvents(tlps_ok=3)}, False),
        ({"outcome": Outcome.TIMEOUT}, False),
    ],
)
def test_what_no_later_pass_makes_good(change: dict[str, Any], grave: bool) -> None:
    settled = settle([replace(result("fail"), **change), result("pass", 2)])
    assert settled.outcome is Outcome.FLAKY
    assert [attempt.grave for attempt in settled.attempts] == [grave, False]
