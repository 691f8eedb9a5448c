# SPDX-License-Identifier: GPL-2.0-only
"""One test until its result is settled: repeated after a failure, each time on a fresh machine."""

from __future__ import annotations

from collections.abc import Callable

from harness.core.repeat import Next, next_step, settle
from harness.model.plan import RepeatPolicy
from harness.model.results import TestResult


def until_settled(
    once: Callable[[], TestResult],
    fresh_machine: Callable[[], None],
    policy: RepeatPolicy,
    say: Callable[[str], None],
) -> TestResult:
    """Make attempts until the policy has enough, and say what they amount to.

    once: one attempt; whatever goes wrong with a machine is an INFRA result, not an exception.
    fresh_machine: called before each further attempt. An interrupt passes through.
    """
    attempts = [once()]
    while True:
        step = next_step([attempt.outcome for attempt in attempts], policy)
        if step is Next.SETTLED:
            return settle(attempts)
        last = attempts[-1]
        what = "no answer" if step is Next.RETRY else last.outcome.value
        say(f"{last.key}: {what}, once more on a fresh machine ({step.value})")
        fresh_machine()
        attempts.append(once())
