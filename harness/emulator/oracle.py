# SPDX-License-Identifier: GPL-2.0-only
"""The oracle: what an event log says against a test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import InfraError

_ANCHOR_BYTES = 256


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
    tail = Tail(path)
    records = list(tail.read())
    if tail.lost:
        raise InfraError(f"{path} {tail.lost}")
    return records


class Tail:
    """A log that is read while platforms write it, each record once.

    lost: what kept the last read() from giving all there was, "" when nothing did. What could not
    be read is passed over: it is told once. offset: how much was read, in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.lost = ""
        self.offset = 0
        self._path = path
        self._last = b""  # what stands before the offset; if it does not, the log is another one

    def read(self, *, over: bool = False) -> Iterator[dict[str, Any]]:
        """The complete records since the last call. Take all of them; nothing is raised.

        over: nobody writes any more, so half a record is not going to be a whole one.
        """
        self.lost = ""
        try:
            with self._path.open("rb") as file:
                yield from self._records(file, over)
        except OSError as exc:
            self.lost = f"cannot be read: {exc.strerror}"

    def _records(self, file: BinaryIO, over: bool) -> Iterator[dict[str, Any]]:
        file.seek(self.offset - len(self._last))
        if file.read(len(self._last)) != self._last:
            self.lost = "was cut or replaced"
            begin = max(file.seek(0, os.SEEK_END) - _ANCHOR_BYTES, 0)
            file.seek(begin)
            self._last = file.read()
            self.offset = begin + len(self._last)
            return
        for line in file:
            complete = line.endswith(b"\n")
            if not complete and not over:
                return
            begin, self._last = self.offset, line
            self.offset += len(line)
            if line == b"\n":  # the end of half a record that was told before
                continue
            try:
                yield _record(line)
            except ValueError as exc:
                self.lost = f"byte {begin}: {exc if complete else 'half a record'}"


def _record(line: bytes) -> dict[str, Any]:
    """ValueError when it is none."""
    try:
        record = json.loads(line)
    except ValueError as exc:
        raise ValueError(f"not JSON: {exc}") from exc
    if not isinstance(record, dict) or "event" not in record:
        raise ValueError("not an event record")
    return record


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
