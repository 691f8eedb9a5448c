# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark's table of the platform's matrix."""

from __future__ import annotations

from harness.model.platform import CellRecord
from tests.bench.matrix import cell_rows
from tests.bench.rows import render


def cell(name: str, start_s: float, end_s: float, test_s: float) -> CellRecord:
    return CellRecord(name, "A", "0x0", "allow", "error", 51, 2, "", 1, start_s, end_s, test_s)


def test_times_per_cell_and_what_is_spent_outside_of_tests() -> None:
    rows = cell_rows([cell("model-A", 5.0, 25.0, 15.0), cell("model-N", 25.0, 45.0, 13.0)])
    assert [round(row.ours[0], 6) for row in rows] == [20.0, 20.0, 30.0]
    text = render(rows)
    assert "model-A, 1 boots" in text
    assert "30.00 %" in text


def test_a_run_without_cells_has_no_rows() -> None:
    assert cell_rows([]) == []
