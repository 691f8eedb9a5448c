# SPDX-License-Identifier: GPL-2.0-only
"""Layout of the timeline: rows and bars in percent of the run's duration. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.model.results import Outcome, RunResult
from harness.report.text import duration, one_line

ROW_PX = 34
_MAX_TESTS = 60
_MIN_WIDTH = 0.4  # percent; a bar must be seen


@dataclass(frozen=True, slots=True)
class Bar:
    """One row. left, width: percent; tone: CSS class; y_px: top of the row's label."""

    label: str
    took: str
    tone: str
    left: float
    width: float
    y_px: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """height_px of the drawing; note: what was left out, "" when nothing."""

    bars: tuple[Bar, ...]
    height_px: int
    total: str
    note: str


@dataclass(frozen=True, slots=True)
class _Span:
    label: str
    start_s: float
    end_s: float
    tone: str


_STAGE_TONES = {
    "ok": "ok",
    "cached": "cached",
    "failed": "bad",
    "interrupted": "warn",
    "running": "run",
}


def tone(outcome: Outcome) -> str:
    """The CSS class of an outcome."""
    if outcome is Outcome.PASS:
        return "ok"
    if outcome in (Outcome.SKIP, Outcome.XFAIL):
        return "skip"
    return "warn" if outcome in (Outcome.MISSING, Outcome.FLAKY, Outcome.INFRA) else "bad"


def layout(result: RunResult) -> Timeline:
    """Stages in order, then tests; of many tests the bad ones and the longest."""
    stages = [_stage_span(s.name, s.state, s.start_s, s.end_s, result) for s in result.stages]
    tests = [t for t in result.tests if t.duration_s > 0]
    kept = sorted(tests, key=lambda t: (t.outcome.good, -t.duration_s))[:_MAX_TESTS]
    spans = stages + [
        _Span(
            f"{one_line(t.key, 70)} · {t.outcome.value}",
            t.started_s,
            t.started_s + t.duration_s,
            tone(t.outcome),
        )
        for t in sorted(kept, key=lambda t: t.started_s)
    ]
    end = max([result.duration_s, *(span.end_s for span in spans)], default=0.0)
    left_out = len(tests) - len(kept)
    note = f"{left_out} shorter tests that passed or were skipped are not drawn" if left_out else ""
    return Timeline(_bars(spans, end), len(spans) * ROW_PX + 4, duration(end), note)


def _stage_span(name: str, state: str, start_s: float, end_s: float, run: RunResult) -> _Span:
    if state == "running":
        end_s = max(end_s, run.duration_s)
    note = "" if state == "ok" else f" · {state}"
    return _Span(f"{one_line(name, 40)}{note}", start_s, end_s, _STAGE_TONES.get(state, "warn"))


def _bars(spans: Sequence[_Span], end: float) -> tuple[Bar, ...]:
    bars = []
    for index, span in enumerate(spans):
        width = 100 * (span.end_s - span.start_s) / end if end else 0.0
        width = min(max(width, _MIN_WIDTH), 100.0)
        left = 100 * span.start_s / end if end else 0.0
        bars.append(
            Bar(
                span.label,
                duration(max(span.end_s - span.start_s, 0.0)),
                span.tone,
                round(min(max(left, 0.0), 100.0 - width), 2),
                round(width, 2),
                index * ROW_PX,
            )
        )
    return tuple(bars)
