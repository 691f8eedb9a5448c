# SPDX-License-Identifier: GPL-2.0-only
"""The plan `trust`: the time of each cell of the matrix, and how much of it is not tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.layout import REPOSITORY
from harness.model.platform import CellRecord
from harness.report import json_report
from tests.bench.rows import Row

_WHOLE_REACH_S = 600.0  # the aim on two CPUs without KVM, kernels cached


def trust_rows(runs_dir: Path) -> list[Row]:
    """One run of `trust` with its kernel cached, as a row per cell and one for the whole."""
    argv = [sys.executable, "-m", "harness", "run", "trust", "--repeat", "0"]
    build = [sys.executable, "-m", "harness", "build", "trust", "--runs-dir", str(runs_dir)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    begin = time.monotonic()
    # a test may fail: its time counts all the same
    subprocess.run(
        [*argv, "--runs-dir", str(runs_dir)], cwd=REPOSITORY, check=False, capture_output=True
    )
    wall = time.monotonic() - begin
    result = json_report.load(runs_dir / "latest" / "result.json")
    whole = Row("plan trust, kernels cached", [wall], (), "", _WHOLE_REACH_S)
    return [whole, *cell_rows(result.cells)]


def cell_rows(cells: Sequence[CellRecord]) -> list[Row]:
    """The time of each cell, and the share of all cells' time that is spent outside tests."""
    found = [
        Row(f"  {cell.name}, {cell.boots} boots", [cell.end_s - cell.start_s], (), "", None)
        for cell in cells
    ]
    spent = sum(cell.end_s - cell.start_s for cell in cells)
    if spent:
        share = 100 * (1 - sum(cell.test_s for cell in cells) / spent)
        found.append(Row("  of it outside of tests", [share], (), "", None, "%"))
    return found
