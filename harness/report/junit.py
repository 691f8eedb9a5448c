# SPDX-License-Identifier: GPL-2.0-only
"""junit.xml as GitLab and Jenkins read it.

A testsuite per role:collection, a testcase per subtest (classname "guest.tsm.dma_freeze"), or the
test itself when it has no subtests or none of them explains its failure. The suite "harness" holds
what is not a test's: patch, configuration, build and boot failures, splats between tests.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from junitparser import Error, JUnitXml, Skipped, TestCase, TestSuite
from junitparser import Failure as FailureElement

from harness.model.results import (
    Failure,
    Outcome,
    RunResult,
    SplatRecord,
    SubtestResult,
    TestResult,
)
from harness.report import atomic
from harness.report.summary import leaves, sentence, surprising, tally, unexplained
from harness.report.text import clean, clip, one_line, read_log, tail

WHOLE_TEST = "(whole test)"
HARNESS_SUITE = "harness"
_LOG_LINES = 80
_TEXT_LIMIT = 16_384  # characters per element; GitLab refuses a report above 30 MB
_INFRA_KINDS = ("infra", "interrupted", "user")


def write(path: Path, result: RunResult) -> None:
    """Replace `path` (in the run directory, whose logs are quoted). Raises StorageError."""
    document = build(result, path.parent)
    atomic.write_bytes(path, document.tostring())


def build(result: RunResult, run_dir: Path) -> Any:  # a JUnitXml; half of its methods are untyped
    """The document, every string cleaned of what XML 1.0 cannot hold."""
    document: Any = JUnitXml(clean(f"tdisp-harness {result.run_id}"))
    splats: defaultdict[tuple[str, str], list[SplatRecord]] = defaultdict(list)
    unexpected = surprising(result)
    for record in unexpected:
        splats[record.role, record.test].append(record)
    tests: defaultdict[str, list[TestResult]] = defaultdict(list)
    for test in result.tests:
        shown = _forgiven(test) if result.excuses(test) else test
        tests[f"{test.role}:{test.collection}"].append(shown)

    placed: set[int] = set()
    for name, members in tests.items():
        suite = _suite(name, result)
        cases: list[TestCase] = []
        for test in members:
            found = splats.get((test.role, f"{test.collection}:{test.program}"), [])
            placed.update(map(id, found))
            cases += _test_cases(test, found, run_dir)
        _keep_apart(cases)
        suite.add_testcases(cases)  # add_testcase() recounts the suite each time
        document.append(suite)

    own = [_failure_case(failure, run_dir) for failure in result.failures]
    own += [_splat_case(HARNESS_SUITE, r) for r in unexpected if id(r) not in placed]
    if result.tests and not tally(result).ran:
        own.append(_nothing_ran_case(result))
    if own or not result.tests:
        suite = _suite(HARNESS_SUITE, result)
        _keep_apart(own)
        suite.add_testcases(own or [TestCase("run", HARNESS_SUITE, 0.0)])
        document.append(suite)
    document.update_statistics()
    return document


def _keep_apart(cases: list[TestCase]) -> None:
    """Number cases of one name: GitLab shows one of those that have class and name in common."""
    seen: defaultdict[tuple[str, str], int] = defaultdict(int)
    for case in cases:
        key = (case.classname, case.name)
        seen[key] += 1
        if seen[key] > 1:
            case.name = f"{case.name} ({seen[key]})"


def _suite(name: str, result: RunResult) -> TestSuite:
    suite = TestSuite(clean(name))
    suite.timestamp = clean(result.started)
    for key in ("os", "qemu", "accel"):
        if key in result.controller:
            suite.add_property(key, clean(result.controller[key]))
    for kernel in result.kernels:
        suite.add_property(f"{kernel.role}.kernel", clean(kernel.release or "not built"))
        suite.add_property(f"{kernel.role}.build_id", clean(kernel.build_id))
    return suite


def _test_cases(test: TestResult, splats: list[SplatRecord], run_dir: Path) -> list[TestCase]:
    classname = ".".join(clean(part) for part in (test.role, test.collection, test.program))
    entries = list(leaves(test))
    if test.subtests and unexplained(test):
        entries.append(SubtestResult((WHOLE_TEST,), test.outcome, test.reason))
    # kselftests report no time per subtest; equal shares keep every sum right.
    share = test.duration_s / len(entries)
    log = _evidence(test, splats, run_dir)
    cases = []
    for entry in entries:
        case = TestCase(clean("/".join(entry.name)), classname, share)
        _judge(case, entry, log)
        if not entry.outcome.good:
            log = f"log: {clean(test.log)}"  # the text itself once per test
        cases.append(case)
    if test.outcome.good and all(e.outcome.good for e in entries):
        cases += [_splat_case(classname, record) for record in splats]
    return cases


def _forgiven(test: TestResult) -> TestResult:
    """A flaky test of a plan that lets flaky tests pass: a pass, as in the verdict of the run."""
    subtests = tuple(
        sub if sub.outcome.good else replace(sub, outcome=Outcome.PASS) for sub in test.subtests
    )
    return replace(test, outcome=Outcome.PASS, subtests=subtests)


def _judge(case: TestCase, entry: SubtestResult, log: str) -> None:
    reason = one_line(entry.reason) or entry.outcome.value
    text = "\n\n".join(part for part in (clean(entry.reason), log) if part)
    if entry.outcome is Outcome.PASS:
        return
    if entry.outcome is Outcome.SKIP:
        case.result = [Skipped(reason, "skip")]
    elif entry.outcome is Outcome.XFAIL:
        case.result = [Skipped(f"expected failure: {reason}", "xfail")]
    elif entry.outcome is Outcome.INFRA:
        error = Error(reason, "infra")
        error.text = clip(text, _TEXT_LIMIT).text
        case.result = [error]
    else:
        prefix = "" if entry.outcome is Outcome.FAIL else f"{entry.outcome.value.upper()}: "
        failure = FailureElement(f"{prefix}{reason}", entry.outcome.value)
        failure.text = clip(text, _TEXT_LIMIT).text
        case.result = [failure]


def _evidence(test: TestResult, splats: list[SplatRecord], run_dir: Path) -> str:
    """Splats and log tail of a bad test; "" for a good one, whose log nobody reads here."""
    if all(entry.outcome.good for entry in leaves(test)) and test.outcome.good:
        return ""
    parts = [
        f"attempt {one.number}: {one.outcome.value} on {clean(one.machine)}"
        f"{f': {one_line(one.reason)}' if one.reason else ''} (log: {clean(one.log)})"
        for one in test.attempts
    ]
    parts += [clip(clean(record.text), _TEXT_LIMIT // 2).text for record in splats]
    log = read_log(run_dir, test.log, 4 * _TEXT_LIMIT)
    quoted = tail(log.text, _LOG_LINES, _TEXT_LIMIT // 4)
    parts.append(f"log: {clean(test.log)}\n{quoted or log.note}")
    return "\n\n".join(parts)


def _splat_case(classname: str, record: SplatRecord) -> TestCase:
    title = one_line(record.splat.title) or record.splat.kind
    where = f"{record.machine}:{record.splat.start_line}"
    case = TestCase(clean(f"splat {where}: {title}"), classname, 0.0)
    failure = FailureElement(title, clean(record.splat.kind))
    failure.text = clip(clean(record.text), _TEXT_LIMIT).text
    case.result = [failure]
    return case


def _failure_case(failure: Failure, run_dir: Path) -> TestCase:
    name = f"{failure.kind} {failure.role}".strip()
    case = TestCase(name, HARNESS_SUITE, 0.0)
    parts = [failure.message]
    if failure.hint:
        parts.append(f"hint: {failure.hint}")
    if failure.command:
        parts.append(f"repeat by hand: {failure.command}")
    if failure.excerpt:
        parts.append(failure.excerpt)
    if failure.log:
        quoted = "" if failure.excerpt else read_log(run_dir, failure.log, 4 * _TEXT_LIMIT).text
        parts.append(f"log: {failure.log}\n{tail(quoted, _LOG_LINES, _TEXT_LIMIT // 2)}".strip())
    kind = Error if failure.kind in _INFRA_KINDS else FailureElement
    element = kind(one_line(failure.message), failure.kind)
    element.text = clip(clean("\n\n".join(parts)), _TEXT_LIMIT).text
    case.result = [element]
    return case


def _nothing_ran_case(result: RunResult) -> TestCase:
    """CI systems show a run of skips as green; this line says that nothing was tested."""
    case = TestCase("nothing tested", HARNESS_SUITE, 0.0)
    case.result = [Skipped(one_line(sentence(result)), "skip")]
    return case
