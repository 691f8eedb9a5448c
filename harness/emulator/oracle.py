# SPDX-License-Identifier: GPL-2.0-only
"""The oracle: what an event log says against a test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InfraError


@dataclass(frozen=True, slots=True)
class OracleVerdict:
    """unannounced: blocked TLPs nobody announced. missing: announced faults that did not happen."""

    tlps_ok: int
    tlps_blocked: int
    unannounced: tuple[dict[str, Any], ...]
    missing: tuple[dict[str, Any], ...]

    @property
    def clean(self) -> bool:
        return not self.unannounced and not self.missing


def read(path: Path) -> list[dict[str, Any]]:
    """All complete records of a log. A last line without its end (a killed platform) is left out.

    Raises InfraError when the file is missing or a complete line is not a record.
    """
    return read_from(path, 0)[0]


def read_from(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The complete records from a byte on, and the byte where the next one will begin.

    offset: 0, or what an earlier call gave. Errors as for read().
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read()
    except OSError as exc:
        raise InfraError(f"event log: {exc}") from exc
    complete = text[: text.rfind(b"\n") + 1]
    records = []
    for number, line in enumerate(complete.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError as exc:
            raise InfraError(f"{path}:{offset}+{number}: not JSON: {exc}") from exc
        if not isinstance(record, dict) or "event" not in record:
            raise InfraError(f"{path}:{offset}+{number}: not an event record")
        records.append(record)
    return records, offset + len(complete)


def judge(
    records: Iterable[dict[str, Any]],
    since: float = float("-inf"),
    until: float = float("inf"),
) -> OracleVerdict:
    """The verdict on the records with since <= t < until (seconds since the epoch).

    Announcements that are still open at the end of the window count as missing.
    """
    ok = blocked = 0
    unannounced: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    open_: dict[tuple[int, str], int] = {}
    for record in records:
        if not since <= record["t"] < until:
            continue
        if record["event"] == "tlp":
            if record["verdict"] == "ok":
                ok += record["tlps"]
                continue
            blocked += 1
            if record["announced"]:
                _use(open_, record["tdi"], record["reason"])
            else:
                unannounced.append(record)
        elif record["event"] == "announce":
            key = (record["tdi"], record["reason"])
            open_[key] = open_.get(key, 0) + record["count"] if record["count"] else 0
        elif record["event"] == "check":
            missing.extend(record["missing"])
            open_.clear()
        elif record["event"] == "start":  # another platform: it knows of no announcement
            missing.extend(_left(open_))
            open_.clear()
    missing.extend(_left(open_))
    return OracleVerdict(ok, blocked, tuple(unannounced), tuple(missing))


def _left(open_: dict[tuple[int, str], int]) -> list[dict[str, Any]]:
    return [
        {"tdi": tdi, "reason": reason, "count": count}
        for (tdi, reason), count in open_.items()
        if count
    ]


def _use(open_: dict[tuple[int, str], int], tdi: int, reason: str) -> None:
    for key in ((tdi, reason), (tdi, "any")):
        if open_.get(key):
            open_[key] -= 1
            return
