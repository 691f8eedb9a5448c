# SPDX-License-Identifier: GPL-2.0-only
"""The index page of a folder of runs: what there is, and where it is heading."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import jinja2

from harness.model.results import Outcome, RunResult
from harness.report import history, page, summary, timeline
from harness.report.history import Dot, Segment
from harness.report.text import duration, one_line

TREND_RUNS = 30  # per plan
_GRID_TESTS = 40
_SLOTS = 12  # so that the bars of two runs are no walls
_SCRIPT = "index.js"
_LETTERS = {
    Outcome.PASS: "✓",
    Outcome.FAIL: "F",
    Outcome.SKIP: "s",
    Outcome.XFAIL: "x",
    Outcome.XPASS: "X",
    Outcome.TIMEOUT: "T",
    Outcome.CRASH: "C",
    Outcome.MISSING: "M",
    Outcome.FLAKY: "~",
    Outcome.INFRA: "i",
}


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as the index tells of it. name: of its directory. error: why it cannot be read."""

    name: str
    plan: str = ""
    topology: str = ""
    started: str = ""
    duration_s: float = 0.0
    heading: str = ""
    tone: str = "warn"
    sentence: str = ""
    counts: tuple[tuple[Outcome, int], ...] = ()
    kernels: tuple[str, ...] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of a stacked bar, in percent of its height."""

    tone: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """One run in a plan's trend. x, width: percent."""

    run: RunLine
    x: float
    width: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class GridCell:
    letter: str
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Trend:
    """The last runs of one plan, the oldest first.

    longest: the longest of them took this long.
    grid: the tests that were not good in all of them, with an outcome (or None) per run.
    """

    plan: str
    columns: tuple[Column, ...]
    dots: tuple[Dot, ...]
    segments: tuple[Segment, ...]
    longest: str
    grid: tuple[tuple[str, tuple[GridCell | None, ...]], ...]
    hidden: int


def line(name: str, result: RunResult) -> RunLine:
    """What the index keeps of a run."""
    counts = summary.tally(result).tests
    heading = summary.heading(result)
    return RunLine(
        name=name,
        plan=one_line(result.plan, 60),
        topology=result.topology,
        started=result.started,
        duration_s=result.duration_s,
        heading=heading,
        tone={"PASS": "ok", "FAIL": "bad", "UNFINISHED": "run"}.get(heading, "warn"),
        sentence=one_line(summary.sentence(result).partition(": ")[2], 300),
        counts=tuple((outcome, counts[outcome]) for outcome in Outcome if counts[outcome]),
        kernels=tuple(one_line(f"{k.role} {k.release or 'not built'}", 60) for k in result.kernels),
        outcomes={test.key: test.outcome for test in result.tests},
    )


def unreadable(name: str, error: str) -> RunLine:
    """A run whose result.json is no result."""
    return RunLine(name, heading="UNREADABLE", error=one_line(error, 300))


def newest(lines: Sequence[RunLine]) -> tuple[RunLine, ...]:
    """The last run of each plan, when there are several plans or runs. lines: newest first."""
    plans: dict[str, RunLine] = {}
    for one in lines:
        if not one.error:
            plans.setdefault(one.plan, one)
    return tuple(plans.values()) if len(lines) > 1 else ()


def trends(lines: Sequence[RunLine]) -> tuple[Trend, ...]:
    """A trend per plan that has two runs or more. lines: newest first."""
    plans: dict[str, list[RunLine]] = {}
    for one in lines:
        if not one.error:
            plans.setdefault(one.plan, []).append(one)
    return tuple(
        _trend(plan, runs[:TREND_RUNS][::-1]) for plan, runs in plans.items() if len(runs) > 1
    )


def _trend(plan: str, runs: Sequence[RunLine]) -> Trend:
    step = 100 / max(len(runs), _SLOTS)
    most = max(len(run.outcomes) for run in runs)
    columns = tuple(
        Column(run, round(i * step + step * 0.1, 2), round(step * 0.8, 2), _bars(run, most))
        for i, run in enumerate(runs)
    )
    places = history.place([run.duration_s for run in runs])
    dots = tuple(
        Dot(round((i + 0.5) * step, 2), y, run.tone, f"{run.name}: {duration(run.duration_s)}")
        for i, (run, (_, y)) in enumerate(zip(runs, places, strict=True))
    )
    names = list(dict.fromkeys(key for run in reversed(runs) for key in run.outcomes))
    bad = [n for n in names if not all(r.outcomes.get(n, Outcome.PASS).good for r in runs)]
    grid = tuple((name, tuple(_cell(name, run) for run in runs)) for name in bad[:_GRID_TESTS])
    hidden = max(len(bad) - _GRID_TESTS, 0)
    longest = duration(max(run.duration_s for run in runs))
    return Trend(plan, columns, dots, history.join(dots), longest, grid, hidden)


def _bars(run: RunLine, most: int) -> tuple[Bar, ...]:
    """The run's tests by tone, good ones at the bottom; a stub when it came to no test."""
    if not run.outcomes:
        return (Bar(run.tone, 92.0, 8.0),)
    totals: dict[str, int] = {}
    for outcome in run.outcomes.values():
        tone = timeline.tone(outcome)
        totals[tone] = totals.get(tone, 0) + 1
    found: list[Bar] = []
    bottom = 100.0
    for tone in ("ok", "skip", "warn", "bad"):
        height = 100 * totals.get(tone, 0) / most
        if height:
            bottom -= height
            found.append(Bar(tone, round(max(bottom, 0.0), 2), round(height, 2)))
    return tuple(found)


def _cell(name: str, run: RunLine) -> GridCell | None:
    outcome = run.outcomes.get(name)
    if outcome is None:
        return None
    return GridCell(
        _LETTERS[outcome], timeline.tone(outcome), f"{run.name}: {name} {outcome.value}"
    )


def policy() -> str:
    """The page's Content-Security-Policy."""
    return page.policy(_SCRIPT, connect=True)


def render(lines: Sequence[RunLine]) -> str:
    """The page. lines: newest first."""
    return _template().render(
        lines=lines,
        newest=newest(lines),
        trends=trends(lines),
        plot_px=history.HEIGHT_PX,
        script=page.script(_SCRIPT),
        policy=policy(),
    )


@functools.cache
def _template() -> jinja2.Template:
    return page.environment({}).get_template("index.html.j2")
