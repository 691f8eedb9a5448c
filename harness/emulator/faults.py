# SPDX-License-Identifier: GPL-2.0-only
"""Fault records that the guest can read, and faults that a test injects into commands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from harness.emulator.words import Command, Direction, Injection, Reason, Result

FAULT_RECORDS = 256
_MAX_DELAY_MS = 600_000


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """A blocked TLP, as the guest can read it."""

    tdi: int
    reason: Reason
    trusted: bool
    direction: Direction
    iova: int
    gpa: int
    length: int

    def packed(self) -> tuple[int, int, int, int]:
        """OUT0: TDI, reason << 32, T << 48, write << 49. OUT1 IOVA, OUT2 GPA, OUT3 length."""
        write = self.direction is Direction.WRITE
        head = self.tdi | self.reason << 32 | self.trusted << 48 | write << 49
        return head, self.iova, self.gpa, self.length


class FaultLog:
    """The last FAULT_RECORDS faults; `lost` counts those that nobody read in time."""

    def __init__(self) -> None:
        self._records: deque[FaultRecord] = deque(maxlen=FAULT_RECORDS)
        self.lost = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: FaultRecord) -> None:
        if len(self._records) == FAULT_RECORDS:
            self.lost += 1
        self._records.append(record)

    def take(self) -> FaultRecord | None:
        """The oldest record, which is then forgotten."""
        return self._records.popleft() if self._records else None

    def clear(self) -> None:
        self._records.clear()
        self.lost = 0


@dataclass(slots=True)
class _Injected:
    kind: Injection
    value: int  # ERROR: the result; DELAY: milliseconds
    left: int


class Injections:
    """What the next commands of an opcode will meet."""

    def __init__(self) -> None:
        self._entries: dict[int, _Injected] = {}

    def add(self, command: Command, kind: Injection, value: int, count: int) -> Result:
        """The next `count` commands of an opcode meet `kind`; CLEAR takes it back."""
        if kind is Injection.CLEAR:
            self._entries.pop(command, None)
            return Result.OK
        if kind >= Injection.WRONG_KEY and command is not Command.EVIDENCE:
            return Result.BAD_ARGUMENT
        if kind is Injection.ERROR and (value == 0 or value not in set(Result)):
            return Result.BAD_ARGUMENT
        if count == 0 or (kind is Injection.DELAY and value > _MAX_DELAY_MS):
            return Result.BAD_ARGUMENT
        self._entries[command] = _Injected(kind, value, count)
        return Result.OK

    def use(self, command: int) -> tuple[Injection, int] | None:
        """Use up one injection for this command, if there is one: (kind, value)."""
        entry = self._entries.get(command)
        if entry is None:
            return None
        entry.left -= 1
        if entry.left <= 0:
            del self._entries[command]
        return entry.kind, entry.value

    def clear(self) -> None:
        self._entries.clear()
