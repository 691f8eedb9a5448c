# SPDX-License-Identifier: GPL-2.0-only
"""The final summary on the terminal: plain text, about 30 lines at most, no colour codes."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.results import RunResult
from harness.report import beside
from harness.report.summary import (
    bad_tests,
    count_line,
    first_cause,
    sentence,
    surprising,
)
from harness.report.text import duration, one_line, plural

_WIDTH = 160
_MAX_FAILURES = 3
_MAX_TESTS = 5
_MAX_SPLATS = 3
_MAX_LAST = 3


def render(result: RunResult, paths: Mapping[str, str] | None = None) -> str:
    """Verdict, failures with first reason and log, counts, then `paths` (name -> report path).

    Ends without a newline. Holds no control character other than LF, whatever the logs held.
    """
    lines = [sentence(result), ""]
    lines += _failures(result)
    lines += _tests(result)
    lines += _splats(result)
    lines += beside.lines(result)
    lines.append(f"{count_line(result)}; took {duration(result.duration_s)}")
    if accel := _accel(result):
        lines.append(accel)
    lines += [f"{name}: {one_line(path, 400)}" for name, path in (paths or {}).items()]
    return "\n".join(lines)


def _failures(result: RunResult) -> list[str]:
    lines: list[str] = []
    for failure in result.failures[:_MAX_FAILURES]:
        role = f" ({failure.role})" if failure.role else ""
        lines.append(f"  {failure.kind.upper()}{role}: {one_line(failure.message, _WIDTH)}")
        if failure.hint:
            lines.append(f"      hint: {one_line(failure.hint, _WIDTH)}")
        if failure.log:
            lines.append(f"      log: {one_line(failure.log, _WIDTH)}")
    return lines + _more(len(result.failures) - _MAX_FAILURES, "failure")


def _tests(result: RunResult) -> list[str]:
    bad = bad_tests(result)
    lines: list[str] = []
    for test in bad[:_MAX_TESTS]:
        cause = first_cause(test)
        title = f"  {test.outcome.value.upper()} {one_line(test.key, 80)}"
        lines.append(f"{title}: {one_line(cause, _WIDTH)}" if cause else title)
        lines += [f"      | {one_line(line, _WIDTH)}" for line in test.last_lines[-_MAX_LAST:]]
        logs = [attempt.log for attempt in test.attempts if attempt.log] or [test.log]
        if logs[0]:
            lines.append(f"      log: {one_line(' '.join(logs), _WIDTH)}")
    return lines + _more(len(bad) - _MAX_TESTS, "test")


def _splats(result: RunResult) -> list[str]:
    lines = []
    splats = surprising(result)
    for record in splats[:_MAX_SPLATS]:
        where = f" during {one_line(record.test, 60)}" if record.test else ""
        title = one_line(record.splat.title, 100)
        line = record.splat.start_line
        lines.append(f"  SPLAT {title}{where} (console of {one_line(record.machine, 40)}:{line})")
    return lines + _more(len(splats) - _MAX_SPLATS, "splat")


def _more(number: int, what: str) -> list[str]:
    return [f"  ... and {plural(number, f'more {what}')}"] if number > 0 else []


def _accel(result: RunResult) -> str:
    """Why it was slow, when it was."""
    if result.controller.get("accel") != "tcg":
        return ""
    return f"machines ran without KVM: {one_line(result.controller.get('accel_reason', ''), 120)}"
