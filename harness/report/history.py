# SPDX-License-Identifier: GPL-2.0-only
"""Plots of a test's last runs: one small drawing per test, a dot per run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.model.results import HistoryPoint, RunResult, TestHistory
from harness.report import timeline
from harness.report.text import duration, one_line

HEIGHT_PX = 44
_MARGIN_PX = 6
_POINTS = 60
_TESTS = 60


@dataclass(frozen=True, slots=True)
class Dot:
    """x: percent of the width; y_px from the top."""

    x: float
    y_px: float
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A line from one dot to the next, in the units of Dot."""

    x1: float
    y1_px: float
    x2: float
    y2_px: float


@dataclass(frozen=True, slots=True)
class Plot:
    """One test. words: the same in text, e.g. "8 runs, 1.2 s to 3.4 s, 2 of them not good"."""

    key: str
    dots: tuple[Dot, ...]
    segments: tuple[Segment, ...]
    words: str
    slower: bool


@dataclass(frozen=True, slots=True)
class Plots:
    plots: tuple[Plot, ...]
    hidden: int


def layout(result: RunResult) -> Plots:
    """Tests with two runs or more; slower and bad ones first, then by key."""
    slower = {one.key for one in result.slower}
    known = [one for one in result.history if len(one.points) > 1]
    known.sort(key=lambda h: (h.key not in slower, h.points[-1].outcome.good, h.key))
    plots = tuple(plot(one, one.key in slower) for one in known[:_TESTS])
    return Plots(plots, max(len(known) - _TESTS, 0))


def plot(history: TestHistory, slower: bool = False) -> Plot:
    """The drawing of one test's last runs; the vertical axis starts at 0 seconds."""
    points = history.points[-_POINTS:]
    dots = tuple(
        Dot(x, y, timeline.tone(point.outcome), _title(point))
        for point, (x, y) in zip(points, place([p.duration_s for p in points]), strict=True)
    )
    return Plot(history.key, dots, join(dots), _words(points), slower)


def place(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """(percent, px) of each value; one value stands in the middle."""
    top = max(values, default=0.0) or 1.0
    step = 98 / (len(values) - 1) if len(values) > 1 else 0.0
    first = 1.0 if len(values) > 1 else 50.0
    height = HEIGHT_PX - 2 * _MARGIN_PX
    return tuple(
        (round(first + i * step, 2), round(_MARGIN_PX + height * (1 - max(value, 0.0) / top), 1))
        for i, value in enumerate(values)
    )


def join(dots: Sequence[Dot]) -> tuple[Segment, ...]:
    """The lines between neighbours."""
    return tuple(Segment(a.x, a.y_px, b.x, b.y_px) for a, b in pairwise(dots))


def _title(point: HistoryPoint) -> str:
    run = one_line(point.run_id, 60)
    return f"{run}: {point.outcome.value}, {duration(point.duration_s)}"


def _words(points: Sequence[HistoryPoint]) -> str:
    times = [point.duration_s for point in points]
    bad = sum(not point.outcome.good for point in points)
    failed = f", {bad} of them not good" if bad else ""
    return f"{len(points)} runs, {duration(min(times))} to {duration(max(times))}{failed}"
