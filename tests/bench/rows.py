# SPDX-License-Identifier: GPL-2.0-only
"""One row of the benchmark's table: ours, the reference, and what the ratio should reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A measure. ours and reference in `unit`; reach: the largest ratio that meets the target.

    Without a reference, `reach` is the largest value of `ours`. None: nothing was asked.
    """

    measure: str
    ours: Sequence[float]
    reference: Sequence[float]
    reference_name: str
    reach: float | None
    unit: str = "s"

    @property
    def value(self) -> float:
        """What is compared with `reach`: the ratio of the medians, or our median."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.reference) if self.reference else ours

    @property
    def met(self) -> str:
        if self.reach is None:
            return ""
        return "met" if self.value <= self.reach else "MISSED"


def _spread(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.2f} {unit} ({low:.2f}-{high:.2f})"


def render(rows: Sequence[Row]) -> str:
    """The table as text, one row a measure: medians, with minimum and maximum."""
    head = ("measure", "ours", "reference", "ratio", "reach", "")
    lines = [head]
    for row in rows:
        sign = "x" if row.reference else row.unit
        lines.append(
            (
                row.measure,
                _spread(row.ours, row.unit),
                f"{row.reference_name}: {_spread(row.reference, row.unit)}",
                f"{row.value:.2f} x" if row.reference else "-",
                f"<= {row.reach:g} {sign}" if row.reach is not None else "-",
                row.met,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def alternate(
    runs: int, ours: Callable[[], float], reference: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Ours and the reference in turn, so that a drift of the machine's speed hits both."""
    first: list[float] = []
    second: list[float] = []
    for _ in range(runs):
        first.append(ours())
        second.append(reference())
    return first, second
