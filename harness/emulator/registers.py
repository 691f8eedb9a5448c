# SPDX-License-Identifier: GPL-2.0-only
"""A BAR as a register file: bytes, writable ranges, doorbells, computed registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence


class RegisterFile:
    """Little endian registers.

    writable: ranges [start, end) that keep what is written. doorbells: dword offset to what is
    called with the value after it was written (doorbells keep nothing). computed: dword offset to
    the function that gives its value on a read. Everything else ignores writes.
    """

    def __init__(self, size_bytes: int, writable: Sequence[tuple[int, int]]) -> None:
        self.size_bytes = size_bytes
        self._data = bytearray(size_bytes)
        self._writable = tuple(writable)
        self.doorbells: Mapping[int, Callable[[int], None]] = {}
        self.computed: Mapping[int, Callable[[], int]] = {}

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes; the caller has checked the range against size_bytes."""
        for at in range(offset & ~3, offset + count, 4):
            getter = self.computed.get(at)
            if getter is not None:
                struct.pack_into("<I", self._data, at, getter() & 0xFFFFFFFF)
        return bytes(self._data[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        for start, stop in self._writable:
            low, high = max(offset, start), min(end, stop)
            if low < high:
                self._data[low:high] = data[low - offset : high - offset]
        # a doorbell rings only for a whole dword: half a command is no command
        for at in range((offset + 3) & ~3, end - 3, 4):
            bell = self.doorbells.get(at)
            if bell is not None:
                bell(int.from_bytes(data[at - offset : at - offset + 4], "little"))

    def u32(self, offset: int) -> int:
        value: int = struct.unpack_from("<I", self._data, offset)[0]
        return value

    def u64(self, offset: int) -> int:
        value: int = struct.unpack_from("<Q", self._data, offset)[0]
        return value

    def put32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self._data, offset, value)

    def put64(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self._data, offset, value)

    def block(self, start: int, end: int) -> bytes:
        return bytes(self._data[start:end])

    def put_block(self, start: int, data: bytes) -> None:
        self._data[start : start + len(data)] = data
