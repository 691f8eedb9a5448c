# SPDX-License-Identifier: GPL-2.0-only
"""The step summary of a CI job, in GitHub's Markdown."""

from __future__ import annotations

import re

from harness.model.results import Failure, KernelRecord, RunResult, TestResult
from harness.report import beside
from harness.report.summary import (
    bad_tests,
    count_line,
    first_cause,
    nothing_ran,
    sentence,
    surprising,
)
from harness.report.text import clean, duration, one_line, plural, tail

_MAX_TESTS = 20
_MAX_SPLATS = 5
_EXCERPT_LINES = 30

# Escaping "#", "@" and "<" also keeps console text from linking issues, paging people, or
# becoming HTML.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#|!~$&])")


def render(result: RunResult) -> str:
    """Verdict, failures, kernels. Below 64 kB (GitHub cuts a summary at 1 MB); ends with LF."""
    lines = [f"## {_escape(sentence(result), 400)}", ""]
    if nothing_ran(result):
        lines += ["> **Nothing was tested:** no test of this run gave an answer.", ""]
    lines += [f"{_escape(count_line(result), 400)}; took {duration(result.duration_s)}", ""]
    for failure in result.failures[:_MAX_SPLATS]:
        lines += _failure(failure)
    lines += _tests(bad_tests(result))
    lines += _splats(result)
    lines += _beside(result)
    lines += _kernels(result.kernels)
    plan, accel = _escape(result.plan, 80), _escape(result.controller.get("accel", "?"), 20)
    why = _escape(result.controller.get("accel_reason", ""), 120)
    accel_note = f"{accel} ({why})" if why else accel
    lines.append(f"Plan {plan}, topology {_escape(result.topology, 20)}, acceleration {accel_note}")
    return "\n".join(lines) + "\n"


def _failure(failure: Failure) -> list[str]:
    role = f" ({failure.role})" if failure.role else ""
    lines = [f"**{failure.kind}{role}:** {_escape(failure.message, 400)}", ""]
    if failure.hint:
        lines += [f"hint: {_escape(failure.hint, 300)}", ""]
    if failure.excerpt:
        lines += _fence(failure.excerpt)
    return lines


def _tests(bad: tuple[TestResult, ...]) -> list[str]:
    if not bad:
        return []
    lines = ["| result | test | first reason | log |", "|---|---|---|---|"]
    for test in bad[:_MAX_TESTS]:
        cells = (test.outcome.value.upper(), test.key, first_cause(test), test.log)
        lines.append("| " + " | ".join(_escape(cell, 160) for cell in cells) + " |")
    if len(bad) > _MAX_TESTS:
        more = plural(len(bad) - _MAX_TESTS, "more test")
        lines.append(f"| | and {more}, see result.json | | |")
    return [*lines, ""]


def _splats(result: RunResult) -> list[str]:
    lines: list[str] = []
    splats = surprising(result)
    for record in splats[:_MAX_SPLATS]:
        during = f" during {_escape(record.test, 80)}" if record.test else ""
        title = _escape(record.splat.title, 160)
        lines += [f"<details><summary>splat: {title}{during}</summary>", ""]
        lines += [*_fence(record.text), "</details>", ""]
    if len(splats) > _MAX_SPLATS:
        lines += [f"and {plural(len(splats) - _MAX_SPLATS, 'more splat')}", ""]
    return lines


def _beside(result: RunResult) -> list[str]:
    found = beside.lines(result)
    return [f"- {_escape(line, 400)}" for line in found] + [""] if found else []


def _kernels(kernels: tuple[KernelRecord, ...]) -> list[str]:
    if not kernels:
        return []
    lines = [
        "| kernel | source | release | patches | warnings | build id |",
        "|---|---|---|---|---|---|",
    ]
    for kernel in kernels:
        source = f"{kernel.source_kind} {kernel.source_version} {kernel.source_id[:12]}"
        release = kernel.release or "not built"
        numbers = (str(len(kernel.series)), str(len(kernel.warnings)))
        cells = (kernel.role, source, release, *numbers, kernel.build_id[:12])
        lines.append("| " + " | ".join(_escape(cell, 80) for cell in cells) + " |")
    return [*lines, ""]


def _escape(text: str, limit: int) -> str:
    escaped = _SPECIAL.sub(r"\\\1", one_line(text, limit))
    return escaped.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("@", "@\u2060")


def _fence(text: str) -> list[str]:
    """A code block whose fence is longer than any run of backticks inside."""
    body = tail(clean(text), _EXCERPT_LINES, 4000)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", body, fence, ""]
