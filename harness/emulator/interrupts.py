# SPDX-License-Identifier: GPL-2.0-only
"""Interrupt lines of one function: event descriptors that the client passed with SET_IRQS."""

from __future__ import annotations

import contextlib
import os
import select

# VFIO interrupt types (linux/vfio.h) and how many of each a function has
INTX, MSI, MSIX, ERR, REQ = range(5)
TYPE_COUNT = 5


class Interrupts:
    """Owns the descriptors it is given. vectors: MSI-X vectors of the function."""

    def __init__(self, vectors: int) -> None:
        self._counts = {INTX: 0, MSI: 0, MSIX: vectors, ERR: 1, REQ: 1}
        self._fds: dict[tuple[int, int], int] = {}
        self._masked: set[tuple[int, int]] = set()
        self._pending: set[tuple[int, int]] = set()

    def count(self, index: int) -> int:
        """How many interrupts of a type; 0 for unknown types."""
        return self._counts.get(index, 0)

    def assign(self, index: int, vector: int, fd: int | None) -> None:
        """Set (or with None remove) the descriptor of a vector."""
        before = self._fds.pop((index, vector), None)
        if before is not None:
            os.close(before)
        if fd is not None:
            self._fds[index, vector] = fd

    def assigned(self, index: int, vector: int) -> bool:
        return (index, vector) in self._fds

    def disable(self, index: int) -> None:
        for key in [key for key in self._fds if key[0] == index]:
            self.assign(*key, None)
        # who arms it again starts afresh: nobody would know that a mask was left
        self._masked = {key for key in self._masked if key[0] != index}
        self._pending = {key for key in self._pending if key[0] != index}

    def mask(self, index: int, vector: int, masked: bool) -> None:
        """A masked interrupt waits until it is unmasked."""
        key = (index, vector)
        if masked:
            self._masked.add(key)
            return
        self._masked.discard(key)
        if key in self._pending:
            self._pending.discard(key)
            self.trigger(index, vector)

    def trigger(self, index: int, vector: int) -> bool:
        """Signal; whether anybody can hear it."""
        key = (index, vector)
        fd = self._fds.get(key)
        if fd is None:
            return False
        if key in self._masked:
            self._pending.add(key)
            return True
        # A full counter has an interrupt pending anyway. O_NONBLOCK does not answer for it alone:
        # the client has the same open file and may have cleared it.
        if _takes_more(fd):
            with contextlib.suppress(OSError):
                os.write(fd, (1).to_bytes(8, "little"))
        return True

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._masked.clear()
        self._pending.clear()


def _takes_more(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(0))
