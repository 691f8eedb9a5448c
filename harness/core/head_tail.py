# SPDX-License-Identifier: GPL-2.0-only
"""Output that is kept up to a limit: its head and its tail."""

from __future__ import annotations


class HeadTail:
    """Collects bytes. Beyond `limit_bytes` the middle is dropped and a line says how much."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = max(limit_bytes // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # trimmed in large steps: cheap, and memory stays within 1.5 times the limit
        if len(self._tail) > 2 * self._half:
            self._trim()

    def _trim(self) -> None:
        surplus = len(self._tail) - self._half
        if surplus > 0:
            self._dropped += surplus
            del self._tail[:surplus]

    @property
    def truncated(self) -> bool:
        return self._dropped > 0 or len(self._tail) > self._half

    def value(self) -> bytes:
        """What was kept."""
        if not self.truncated:
            return bytes(self._head + self._tail)
        self._trim()
        note = f"\n[{self._dropped} bytes left out]\n".encode()
        return bytes(self._head) + note + bytes(self._tail)
