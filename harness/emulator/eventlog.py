# SPDX-License-Identifier: GPL-2.0-only
"""The event log: one JSON object per line, flushed per event. The oracle reads it.

docs/platform.md lists the events and their fields.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from harness.emulator.words import Direction, Reason, word_name
from harness.errors import StorageError

Record = dict[str, Any]


class EventLog:
    """Writes records to a file (None: nowhere) and keeps the last ones for the live table.

    clock: seconds since the epoch.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float], keep: int = 200) -> None:
        self._file: BinaryIO | None = path.open("a+b", buffering=0) if path else None
        if self._file is not None and _ends_within_a_line(self._file):
            self._file.write(b"\n")  # a platform before this one met a full disk
        self._clock = clock
        self.recent: deque[Record] = deque(maxlen=keep)
        self.listeners: list[Callable[[Record], None]] = []

    def write(self, event: str, **fields: Any) -> Record:
        """Add one record. An unbuffered file: a killed platform loses no event.

        Raises StorageError once when the file cannot take it; an oracle with holes is none.
        """
        record: Record = {"t": round(self._clock(), 6), "event": event, **fields}
        if self._file is not None:
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            try:
                complete = self._file.write(line) == len(line)
            except OSError as exc:
                self.close()
                raise StorageError(f"event log: {exc}") from exc
            if not complete:
                self.close()
                raise StorageError("event log: a record was cut short: is the disk full?")
        self.recent.append(record)
        for listener in self.listeners:
            listener(record)
        return record

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _ends_within_a_line(file: BinaryIO) -> bool:
    if not file.seekable() or file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


class Announcements:
    """Faults that a test expects. A blocked TLP that matches one uses it up."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._expected: dict[tuple[int, Reason], int] = {}
        self.unannounced = 0  # since the last check

    @property
    def pending(self) -> int:
        """Announced faults that have not happened yet."""
        return sum(self._expected.values())

    def announce(self, tdi: int, reason: Reason, count: int) -> None:
        """Expect `count` more faults of `tdi`; 0 takes the announcement back."""
        key = (tdi, reason)
        self._expected[key] = self._expected.get(key, 0) + count if count else 0
        if not self._expected[key]:
            del self._expected[key]
        self._log.write("announce", tdi=tdi, reason=word_name(reason), count=count)

    def use(self, tdi: int, reason: Reason) -> bool:
        """Whether this fault was announced."""
        for key in ((tdi, reason), (tdi, Reason.ANY)):
            left = self._expected.get(key, 0)
            if left:
                if left == 1:
                    del self._expected[key]
                else:
                    self._expected[key] = left - 1
                return True
        self.unannounced += 1
        return False

    def check(self, label: str) -> tuple[int, int]:
        """End of a section: (unannounced, missing) go to the log and are forgotten."""
        missing = [
            {"tdi": tdi, "reason": word_name(reason), "count": count}
            for (tdi, reason), count in sorted(self._expected.items())
        ]
        result = (self.unannounced, self.pending)
        self._log.write("check", label=label, unannounced=self.unannounced, missing=missing)
        self._expected.clear()
        self.unannounced = 0
        return result


class TlpLog:
    """Writes TLP records: neighbours with one verdict and adjoining GPAs become one record."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def write(
        self, who: tuple[int, str], request: tuple[int, Direction], piece: Piece, announced: bool
    ) -> None:
        """who: TDI index and BDF. request: T bit and direction."""
        self._log.write(
            "tlp",
            tdi=who[0],
            bdf=who[1],
            T=request[0],
            iova=hex(piece.iova),
            gpa=None if piece.gpa is None else hex(piece.gpa),
            dir=request[1].value,
            len=piece.length,
            tlps=piece.tlps,
            verdict="ok" if piece.reason is Reason.NONE else "blocked",
            reason=word_name(piece.reason),
            announced=announced,
        )


class Piece:
    """A stretch of one transfer under one verdict. gpa: None when nothing was resolved."""

    __slots__ = ("gpa", "iova", "length", "reason", "tlps")

    def __init__(self, iova: int, gpa: int | None, length: int, tlps: int, reason: Reason) -> None:
        self.iova, self.gpa, self.length, self.tlps = iova, gpa, length, tlps
        self.reason = reason

    @property
    def end_gpa(self) -> int | None:
        return None if self.gpa is None else self.gpa + self.length
