# SPDX-License-Identifier: GPL-2.0-only
"""What a run amounts to, said in one sentence; the same words in every report.

A test counts as *run* when it gave an answer: SKIP, MISSING and INFRA did not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.model.results import (
    Failure,
    Outcome,
    RunResult,
    SplatRecord,
    SubtestResult,
    TestResult,
    Verdict,
)
from harness.report.text import one_line, plural

NOT_RUN = (Outcome.SKIP, Outcome.MISSING, Outcome.INFRA)

# Worst first; the words complete "3 tests ...".
_WORDS: dict[Outcome, str] = {
    Outcome.CRASH: "crashed the machine",
    Outcome.FAIL: "failed",
    Outcome.TIMEOUT: "timed out",
    Outcome.XPASS: "passed against expectation",
    Outcome.FLAKY: "flaky",
    Outcome.MISSING: "gave no result",
    Outcome.INFRA: "lost to infrastructure",
    Outcome.XFAIL: "failed as expected",
    Outcome.SKIP: "skipped",
    Outcome.PASS: "passed",
}
_INFRA_KINDS = ("infra", "interrupted", "user")


@dataclass(frozen=True, slots=True)
class Tally:
    """Tests and leaf cases per outcome. A test without subtests is itself the leaf case."""

    tests: Counter[Outcome]
    cases: Counter[Outcome]

    @property
    def total(self) -> int:
        return self.tests.total()

    @property
    def ran(self) -> int:
        return self.total - sum(self.tests[outcome] for outcome in NOT_RUN)


def tally(result: RunResult) -> Tally:
    """Counted from the tests themselves, so that it cannot disagree with them."""
    cases: Counter[Outcome] = Counter()
    for test in result.tests:
        cases.update(leaf.outcome for leaf in leaves(test))
    return Tally(Counter(test.outcome for test in result.tests), cases)


def leaves(test: TestResult) -> tuple[SubtestResult, ...]:
    """The test's leaf cases: its subtests, else the test as one case."""
    if test.subtests:
        return test.subtests
    return (SubtestResult((test.test,), test.outcome, test.reason),)


def bad_tests(result: RunResult) -> tuple[TestResult, ...]:
    """The tests that make the run fail, worst first, else in order."""
    order = list(_WORDS)
    bad = [test for test in result.tests if not test.outcome.good]
    return tuple(sorted(bad, key=lambda test: order.index(test.outcome)))


def nothing_ran(result: RunResult) -> bool:
    """Tests were there, and not one of them ran."""
    numbers = tally(result)
    return numbers.total > 0 and numbers.ran == 0


def unexplained(test: TestResult) -> bool:
    """A bad test none of whose subtests says why (crash, exit status, time-out)."""
    if test.outcome.good:
        return False
    if test.outcome in (Outcome.CRASH, Outcome.TIMEOUT, Outcome.INFRA):
        return True
    return all(sub.outcome.good for sub in test.subtests)


def first_cause(test: TestResult) -> str:
    """Why a bad test is bad, in one line: its first bad subtest, unless it says more itself."""
    if test.subtests and not test.outcome.good and not unexplained(test):
        leaf = next(sub for sub in test.subtests if not sub.outcome.good)
        name = one_line("/".join(leaf.name), 80)
        return f"{name}: {one_line(leaf.reason, 160) or leaf.outcome.value}"
    return one_line(test.reason.strip().split("\n", 1)[0], 160)


def heading(result: RunResult) -> str:
    """The verdict in a word or three."""
    if unfinished(result):
        return "UNFINISHED"
    if result.verdict is Verdict.PASS and (nothing_ran(result) or not result.tests):
        return "NOTHING TESTED"
    return result.verdict.value.upper()


def unfinished(result: RunResult) -> bool:
    """A partial result: some stage is still running, or was when the harness ended."""
    return any(stage.state == "running" for stage in result.stages)


def sentence(result: RunResult) -> str:
    """The verdict and why, for a maintainer. One line, starts with heading() and a colon."""
    return f"{heading(result)}: {_reason(result)}"


def _reason(result: RunResult) -> str:
    numbers = tally(result)
    if unfinished(result):
        stage = next(s.name for s in result.stages if s.state == "running")
        return f"still in stage {one_line(stage, 40)}; {_so_far(numbers)}"
    if result.verdict is Verdict.INFRA:
        return f"no statement about the kernel: {_infra_cause(result)}; {_so_far(numbers)}"
    if result.verdict is Verdict.FAIL:
        return _fail_reason(result, numbers)
    if not result.tests:
        return "no test was run; the stages that ran succeeded"
    if nothing_ran(result):
        first = next((t.reason for t in result.tests if t.reason), "")
        why = f" ({one_line(first, 100)})" if first else ""
        which = "the only test was" if numbers.total == 1 else f"all {numbers.total} tests were"
        return f"{which} skipped{why}"
    passed = numbers.tests[Outcome.PASS]
    head = f"{passed} of {plural(numbers.total, 'test')} passed on the {_kernels(result.tests)}"
    return "; ".join([head, *_asides(numbers, passing=True)])


def _fail_reason(result: RunResult, numbers: Tally) -> str:
    parts: list[str] = []
    causes = [f for f in result.failures if f.kind not in _INFRA_KINDS]
    if causes:
        parts.append(_cause(causes[0]))
        if len(causes) > 1:
            parts.append(f"{plural(len(causes) - 1, 'further failure')} outside the tests")
    bad = bad_tests(result)
    if bad:
        verbs = Counter(test.outcome for test in bad)
        kernels = _kernels(bad)
        if set(verbs) == {Outcome.FAIL}:
            parts.append(f"{len(bad)} of {plural(numbers.total, 'test')} failed on the {kernels}")
        else:
            listed = ", ".join(f"{verbs[o]} {word}" for o, word in _WORDS.items() if verbs[o])
            total = plural(numbers.total, "test")
            parts.append(f"{len(bad)} of {total} did not pass on the {kernels} ({listed})")
    if splats := surprising(result):
        parts.append(_splats(splats))
    if not result.tests:
        parts.append("no test ran")
    elif not bad:
        parts.append(_so_far(numbers))
    return "; ".join([*parts, *_asides(numbers)])


def surprising(result: RunResult) -> tuple[SplatRecord, ...]:
    """The splats that count: all but those that a negative control had to show."""
    return tuple(record for record in result.splats if not record.expected)


def _splats(splats: Sequence[SplatRecord]) -> str:
    title = one_line(splats[0].splat.title, 80)
    if len(splats) == 1:
        return f"1 kernel splat ({title})"
    return f"{len(splats)} kernel splats (first: {title})"


def _asides(numbers: Tally, *, passing: bool = False) -> list[str]:
    """What a glance at a green line must not miss."""
    parts = []
    skipped = numbers.tests[Outcome.SKIP]
    inner = numbers.cases[Outcome.SKIP] - skipped
    if skipped and inner > 0:
        parts.append(f"{plural(skipped, 'test')} and {plural(inner, 'subtest')} skipped")
    elif skipped:
        parts.append(f"{skipped} skipped")
    elif inner > 0:
        parts.append(f"{plural(inner, 'subtest')} skipped")
    if numbers.tests[Outcome.XFAIL]:
        parts.append(f"{numbers.tests[Outcome.XFAIL]} failed as expected")
    if numbers.tests[Outcome.FLAKY] and passing:
        parts.append(f"{numbers.tests[Outcome.FLAKY]} flaky, which the plan lets pass")
    return parts


def _so_far(numbers: Tally) -> str:
    if not numbers.total:
        return "no test ran"
    return f"{numbers.ran} of {plural(numbers.total, 'test')} ran"


def _cause(failure: Failure) -> str:
    who = f"{failure.role} kernel: " if failure.role else ""
    return f"{who}{failure.kind}: {one_line(failure.message, 160)}"


def _infra_cause(result: RunResult) -> str:
    for kind in ("interrupted", "user", "infra"):
        for failure in result.failures:
            if failure.kind == kind:
                return one_line(failure.message, 160)
    for test in result.tests:
        if test.outcome is Outcome.INFRA:
            return f"{test.key}: {one_line(test.reason, 120)}"
    return "the harness did not get far enough"


def _kernels(tests: Iterable[TestResult]) -> str:
    roles: Sequence[str] = sorted({test.role for test in tests})
    if len(roles) == 1:
        return f"{roles[0]} kernel"
    return f"{' and '.join(roles)} kernels"


def spoken(outcome: Outcome) -> str:
    """The outcome as the end of "3 tests ..."."""
    return _WORDS[outcome]


def count_line(result: RunResult) -> str:
    """ "12 tests: 8 passed, 1 failed, 2 skipped, 1 missing"; never leaves an outcome out."""
    numbers = tally(result)
    if not numbers.total:
        return "0 tests"
    listed = [f"{numbers.tests[o]} {o.value}" for o in Outcome if numbers.tests[o]]
    line = f"{plural(numbers.total, 'test')}: {', '.join(listed)}"
    if any(test.subtests for test in result.tests):
        inner = [f"{numbers.cases[o]} {o.value}" for o in Outcome if numbers.cases[o]]
        line += f"; {plural(numbers.cases.total(), 'case')}: {', '.join(inner)}"
    return line
