# SPDX-License-Identifier: GPL-2.0-only
"""The verdict of a run: what counts, and what it counts as."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core import ktap_stream
from harness.core.known import ANNOUNCED
from harness.model.results import (
    EXIT_CODES,
    KtapReport,
    Outcome,
    RunResult,
    SplatRecord,
    Verdict,
)

_INFRA_FAILURES = ("infra", "interrupted", "user")

# The worst first: a test is as bad as its worst subtest.
_SEVERITY = (
    Outcome.CRASH,
    Outcome.TIMEOUT,
    Outcome.FAIL,
    Outcome.XPASS,
    Outcome.MISSING,
    Outcome.FLAKY,
)


def verdict(result: RunResult) -> Verdict:
    """FAIL when the kernel is at fault anywhere; else INFRA when anything could not be found out.

    A run without any test that ran is never a PASS, and neither is one in which all were skipped.
    A plan may say that FLAKY is no failure; a splat, a crash, new taint or a broken rule of the
    platform in one of the attempts is one all the same.
    """
    bad_tests = [
        t
        for t in result.tests
        if not (t.outcome.good or t.outcome is Outcome.INFRA or result.excuses(t))
    ]
    kernel_failures = [f for f in result.failures if f.kind not in _INFRA_FAILURES]
    if bad_tests or kernel_failures or any(not s.expected for s in result.splats):
        return Verdict.FAIL
    infra = any(t.outcome is Outcome.INFRA for t in result.tests)
    if infra or result.failures or not _anything_passed(result):
        return Verdict.INFRA
    return Verdict.PASS


def _anything_passed(result: RunResult) -> bool:
    passed = (Outcome.PASS, Outcome.XFAIL, Outcome.FLAKY)  # FLAKY gets here when it is excused
    return any(test.outcome in passed for test in result.tests)


def exit_code(found: Verdict) -> int:
    return EXIT_CODES[found]


def judge(
    report: KtapReport, exit_status: int | None, splats: Sequence[SplatRecord]
) -> tuple[Outcome, str]:
    """One kselftest's outcome and its reason, from what it printed, how it ended and the console.

    Nothing printed is MISSING, never a pass; a pass beside a splat is a failure.
    """
    worst = _worst(report)
    if worst is not None:
        return worst
    if splats:
        first = splats[0].splat
        return Outcome.FAIL, f"kernel {first.kind}: {first.title}"
    if not report.cases:
        said = "; ".join(problem.text for problem in report.problems[:3])
        return Outcome.MISSING, said or "no result line"
    announced = any(case.reason.startswith(ANNOUNCED) for case in report.cases)
    if exit_status not in (0, None) and not (announced and exit_status == 1):
        return Outcome.FAIL, f"all results good, but the runner ended with status {exit_status}"
    if report.problems:
        # torn, contradictory or incomplete output is no clean pass, and no clean skip either
        return Outcome.FAIL, f"KTAP: {report.problems[0].text}"
    if all(case.outcome is Outcome.SKIP for case in report.cases):
        return Outcome.SKIP, report.cases[0].reason
    if all(case.outcome in (Outcome.SKIP, Outcome.XFAIL) for case in report.cases):
        return Outcome.XFAIL, next(
            case.reason for case in report.cases if case.outcome is Outcome.XFAIL
        )
    return Outcome.PASS, ""


def was_running(report: KtapReport) -> str:
    """The subtest that had begun when the output ended, names joined by ":"; "" when none had."""
    begun = [c for c in report.cases if c.reason == ktap_stream.STARTED and len(c.id) > 2]
    return ":".join(begun[-1].id[2:]) if begun else ""


def _worst(report: KtapReport) -> tuple[Outcome, str] | None:
    for outcome in _SEVERITY:
        cases = [case for case in report.cases if case.outcome is outcome]
        if cases:
            name = ":".join(cases[0].id[2:]) or cases[0].id[-1]
            more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            reason = f": {cases[0].reason}" if cases[0].reason else ""
            return outcome, f"{name}{more}{reason}"
    return None
