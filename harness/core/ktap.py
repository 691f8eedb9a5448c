# SPDX-License-Identifier: GPL-2.0-only
"""KTAP and TAP 13/14 text to cases and problems.

Kernel log lines and plain lines are separate streams (core/ktap_stream.py), so that either may
interrupt the other.

Nothing here raises on any input, and nothing invents a pass: whatever is planned or
announced and has no result line becomes MISSING, whatever contradicts becomes a problem.
"""

from __future__ import annotations

import re
from typing import Any

from harness.core import ktap_lines as lines
from harness.core.ktap_stream import Shared, Stream
from harness.core.ktap_tree import Names, cases_of
from harness.model.results import KtapReport

_TOP_LEVEL_TAP = re.compile(r"^(?:K?TAP version [0-9]|1\.\.[0-9])", re.MULTILINE)


def parse(data: bytes | str, *, root: tuple[str, ...] = ()) -> KtapReport:
    """Parse KTAP or TAP text, as a test printed it or as a console or kernel log holds it.

    root is put before every id. Never raises; linear in the size of the input. Only leaf
    cases are reported, and a parent whose failure no subtest shows. Unnamed points and
    absent ones are called "#<number>". An input without any result gives a problem.
    """
    shared = Shared()
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    plain_tap = bool(_TOP_LEVEL_TAP.search(text))
    plain = Stream(shared, plain_tap)
    streams = {"": plain}
    prefixes = lines.Prefixes()
    for number, line, cut in lines.cleaned_lines(text):
        name, body = prefixes.split(line)
        stream = streams.get(name) if name else plain
        if stream is None:
            stream = streams[name] = Stream(shared, False)
        stream.feed(number, body, cut)
    nodes = [node for stream in streams.values() for node in stream.finish()]
    if len(streams) > 1:
        nodes.sort(key=lambda node: node.line)
    cases = tuple(cases_of(nodes, root, Names()))
    if not cases:
        shared.problem(0, "no test result in the input")
    problems = tuple(sorted(shared.problems, key=lambda problem: problem.line))
    return KtapReport(cases, problems)


def to_json(report: KtapReport) -> dict[str, Any]:
    """The report as plain JSON data: {"cases": [...], "problems": [...]}."""
    return {
        "cases": [
            {
                "id": list(case.id),
                "outcome": str(case.outcome),
                "reason": case.reason,
                "line": case.line,
            }
            for case in report.cases
        ],
        "problems": [{"line": problem.line, "text": problem.text} for problem in report.problems],
    }
