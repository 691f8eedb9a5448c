# SPDX-License-Identifier: GPL-2.0-only
"""Events of the emulated platform (platform.jsonl, docs/platform.md) as rows of the timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report.text import one_line, plural

EVENT_LIMIT = 3000  # rows; beyond it only faults, transitions and checks
NOTABLE_LIMIT = 2000  # and of these only so many more
_LINE = 256 * 1024
_NOTABLE = ("transition", "check", "start", "stop", "reset", "flr", "client-refused")
_WORDS = {"t", "event"}


@dataclass(slots=True)
class PlatformEvent:
    """at: seconds since the epoch. tone: CSS class. count: TLPs that the row stands for."""

    at: float
    text: str
    tone: str
    notable: bool
    count: int = 1


@dataclass(frozen=True, slots=True)
class PlatformLog:
    """events in the order of the log; note: what was left out or cannot be read, "" if nothing."""

    events: tuple[PlatformEvent, ...]
    note: str


def read(path: Path) -> PlatformLog:
    """The log as rows; neighbouring good TLPs of one kind become one row. Never raises."""
    events: list[PlatformEvent] = []
    last: tuple[object, ...] = ()
    dropped = broken = 0
    try:
        for record in _records(path):
            if record is None:
                broken += 1
                continue
            kind = _kind(record)
            event = PlatformEvent(
                float(record["t"]), describe(record), _tone(record), _notable(record)
            )
            if kind and kind == last:
                events[-1].count += int(record.get("tlps") or 1)
                continue
            room = EVENT_LIMIT + (NOTABLE_LIMIT if event.notable else 0)
            if len(events) >= room:
                dropped += 1
                last = ()
                continue
            last = kind
            event.count = int(record.get("tlps") or 1) if kind else 1
            events.append(event)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        return PlatformLog(tuple(events), f"{path.name}: {one_line(str(error))}")
    for event in events:
        if event.count > 1:
            event.text = f"{plural(event.count, 'TLP')} like this: {event.text}"
    parts = [f"{plural(dropped, 'event')} left out"] if dropped else []
    parts += [f"{plural(broken, 'line')} cannot be read"] if broken else []
    return PlatformLog(tuple(events), f"{path.name}: {', '.join(parts)}" if parts else "")


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    with path.open("rb") as stream:
        while raw := stream.readline(_LINE):
            try:
                record = json.loads(raw)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict) or not isinstance(record.get("t"), int | float):
                yield None
                continue
            yield record


def _kind(record: dict[str, Any]) -> tuple[object, ...]:
    """What makes TLPs neighbours of one kind; () for a record that stands alone."""
    if record.get("event") != "tlp" or record.get("verdict") != "ok":
        return ()
    return tuple(str(record.get(name)) for name in ("tdi", "T", "dir"))


def _notable(record: dict[str, Any]) -> bool:
    return record.get("event") in _NOTABLE or record.get("verdict") == "blocked"


def _tone(record: dict[str, Any]) -> str:
    event = record.get("event")
    if event == "tlp" and record.get("verdict") == "blocked":
        return "warn" if record.get("announced") else "bad"
    if event == "check":
        return "bad" if record.get("unannounced") or record.get("missing") else "ok"
    if event == "transition":
        return "bad" if str(record.get("after")).lower() == "error" else "run"
    return ""


def describe(record: dict[str, Any]) -> str:
    """One line for a record; fields that this does not know are shown as they are."""
    event = str(record.get("event"))
    value = record.get
    if event == "tlp":
        verdict = "ok"
        if value("verdict") != "ok":
            announced = "announced" if value("announced") else "NOT announced"
            verdict = f"BLOCKED: {value('reason')} ({announced})"
        where = f"IOVA {value('iova')}" + (f", GPA {value('gpa')}" if value("gpa") else "")
        return one_line(
            f"TDI {value('tdi')} T={value('T')} {value('dir')} of {value('len')} bytes, "
            f"{where}: {verdict}"
        )
    if event == "transition":
        return one_line(
            f"TDI {value('tdi')}: {value('before')} → {value('after')} ({value('cause')})"
        )
    if event == "check":
        missing = value("missing")
        number = len(missing) if isinstance(missing, list) else 0
        return one_line(
            f"check {value('label')}: {value('unannounced')} unannounced, {number} missing faults"
        )
    if event == "command":
        return one_line(
            f"{value('port')} port: {value('command')} TDI {value('tdi')} → {value('result')}"
        )
    rest = [f"{name} {record[name]}" for name in record if name not in _WORDS]
    return one_line(f"{event}: {', '.join(rest)}" if rest else event)
