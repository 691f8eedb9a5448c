# SPDX-License-Identifier: GPL-2.0-only
"""When a test is tried again, and what several attempts amount to.

A failure is repeated on a fresh machine. When a repetition passes, the test is FLAKY: neither a
pass, nor a failure that somebody can rely on. INFRA is no answer, so its retries count apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from harness.core.attribution import grave_taint
from harness.model.plan import RepeatPolicy
from harness.model.results import Attempt, Outcome, SubtestResult, TestResult

_ANSWERS_GOOD = (Outcome.PASS, Outcome.XFAIL)  # a SKIP does not show that a failure went away


class Next(StrEnum):
    """What to do after an attempt."""

    SETTLED = "settled"
    REPEAT = "repeat"  # the test failed
    RETRY = "retry"  # the infrastructure failed


def next_step(outcomes: Sequence[Outcome], policy: RepeatPolicy) -> Next:
    """What comes after the attempts made so far, in order; at least one."""
    last = outcomes[-1]
    if last is Outcome.INFRA:
        lost = sum(outcome is Outcome.INFRA for outcome in outcomes)
        return Next.RETRY if lost <= policy.infra_retries else Next.SETTLED
    if last.good:
        return Next.SETTLED
    failed = sum(outcome is not Outcome.INFRA for outcome in outcomes)
    return Next.REPEAT if failed <= policy.repeat else Next.SETTLED


def settle(attempts: Sequence[TestResult]) -> TestResult:
    """What the attempts at one test, in order and at least one, amount to.

    An attempt lost to infrastructure counts only when there is no other. Good and bad ones make
    FLAKY, and the failed one is shown; only failures give the first of them.
    """
    answers = [n for n, a in enumerate(attempts) if a.outcome is not Outcome.INFRA]
    if not answers:
        return _with_attempts(attempts[-1], len(attempts) - 1, attempts)
    bad = [n for n in answers if not attempts[n].outcome.good]
    if not bad:
        return _with_attempts(attempts[answers[-1]], answers[-1], attempts)
    passed = [n for n in answers if attempts[n].outcome in _ANSWERS_GOOD]
    shown = attempts[bad[0]]
    if passed:
        cause = f"attempt {bad[0] + 1}: {_said(shown)}; attempt {passed[0] + 1} passed"
        subtests = _subtests([attempts[n] for n in answers])
        shown = replace(shown, outcome=Outcome.FLAKY, reason=cause, subtests=subtests)
    elif len(answers) > 1:
        again = ", ".join(attempts[n].outcome.value for n in answers[1:])
        shown = replace(shown, reason=f"{shown.reason} (on a fresh machine: {again})".strip())
    return _with_attempts(shown, bad[0], attempts)


def _said(result: TestResult) -> str:
    return f"{result.outcome.value}: {result.reason}" if result.reason else result.outcome.value


def _with_attempts(shown: TestResult, index: int, attempts: Sequence[TestResult]) -> TestResult:
    """`shown`, numbered; with the list of all attempts when there were several."""
    records = tuple(_records(attempts)) if len(attempts) > 1 else ()
    return replace(shown, attempt=index + 1, attempts=records)


def _records(attempts: Iterable[TestResult]) -> Iterable[Attempt]:
    for number, one in enumerate(attempts, 1):
        yield Attempt(
            number=number,
            machine=one.machine,
            outcome=one.outcome,
            reason=one.reason,
            duration_s=one.duration_s,
            started_s=one.started_s,
            log=one.log,
            exit_status=one.exit_status,
            grave=_grave(one),
        )


def _grave(result: TestResult) -> bool:
    """Something that no later pass makes good."""
    broken_rule = result.platform is not None and result.platform.unannounced > 0
    tainted = bool(grave_taint(result.taint_before, result.taint_after))
    return result.outcome is Outcome.CRASH or (not result.outcome.good and (broken_rule or tainted))


def _subtests(answers: Sequence[TestResult]) -> tuple[SubtestResult, ...]:
    """Each subtest of any attempt: FLAKY when good and bad, bad when it never was good."""
    seen: dict[tuple[str, ...], list[SubtestResult]] = {}
    for answer in answers:
        for subtest in answer.subtests:
            seen.setdefault(subtest.name, []).append(subtest)
    return tuple(_subtest(found) for found in seen.values())


def _subtest(found: Sequence[SubtestResult]) -> SubtestResult:
    bad = [one for one in found if not one.outcome.good]
    if not bad:
        return found[-1]
    if any(one.outcome in _ANSWERS_GOOD for one in found):
        said = ": ".join(word for word in (bad[0].outcome.value, bad[0].reason) if word)
        return replace(bad[0], outcome=Outcome.FLAKY, reason=f"once {said}")
    return bad[0]
