# SPDX-License-Identifier: GPL-2.0-only
"""What `tdisp-harness history` prints: runs, or the results of some cases over the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from harness.core.compare import CaseKey, Seen, cases
from harness.model.results import Outcome, RunResult

_REASON = 100


def render_runs(runs: Sequence[RunResult]) -> list[str]:
    """One line for each run, oldest first."""
    rows = [("run", "plan", "verdict", "took", "tests", "kernels (host, guest)")]
    for run in runs:
        counts = Counter(test.outcome for test in run.tests)
        listed = ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o])
        plan = f"{run.plan}, {run.topology}" + (
            f", -k {run.expression!r}" if run.expression else ""
        )
        took = f"{run.duration_s:.0f} s"
        rows.append((run.run_id, plan, run.verdict.value, took, listed or "-", _kernels(run)))
    return _columns(rows)


def matching(runs: Sequence[RunResult], pattern: str) -> dict[CaseKey, list[tuple[int, Seen]]]:
    """Cases whose name matches, each with (index of the run, result), oldest first.

    A pattern without "*" or "?" matches a part of the name. A pattern that says nothing of subtests
    is about test programs; "tsm:abi /" or "*/*" reaches their subtests.
    """
    wild = pattern if any(char in pattern for char in "*?") else f"*{pattern}*"
    inner = "/" in pattern
    found: dict[CaseKey, list[tuple[int, Seen]]] = {}
    for index, run in enumerate(runs):
        for key, seen in cases(run.tests).items():
            if (inner or not key.subtest) and fnmatchcase(str(key).lower(), wild.lower()):
                found.setdefault(key, []).append((index, seen))
    return dict(sorted(found.items()))


def render_cases(runs: Sequence[RunResult], pattern: str) -> list[str]:
    """For each matching case a summary and a line per run; empty when none matches."""
    lines: list[str] = []
    for key, results in matching(runs, pattern).items():
        lines += ["", *_one_case(runs, key, results)] if lines else _one_case(runs, key, results)
    return lines


def _one_case(
    runs: Sequence[RunResult], key: CaseKey, results: Sequence[tuple[int, Seen]]
) -> list[str]:
    counts = Counter(seen.outcome for _, seen in results)
    listed = ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o])
    rows = [
        (
            f"  {runs[index].run_id}",
            seen.outcome.value,
            _seconds(runs[index], key),
            _kernels(runs[index]),
            " ".join(seen.reason.split())[:_REASON],
        )
        for index, seen in results
    ]
    runs_said = "1 run" if len(results) == 1 else f"{len(results)} runs"
    return [f"{key}: {runs_said}: {listed}", *_columns(rows)]


def _seconds(run: RunResult, key: CaseKey) -> str:
    if key.subtest:
        return ""
    own = f"{key.role}:{key.collection}:{key.test}"
    times = [test.duration_s for test in run.tests if test.key == own]
    return f"{max(times):.1f} s" if times else ""


def _kernels(run: RunResult) -> str:
    ids = {kernel.role: kernel.build_id[:12] for kernel in run.kernels}
    return ", ".join(ids.get(role) or "-" for role in ("host", "guest"))


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
