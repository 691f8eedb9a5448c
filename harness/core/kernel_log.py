# SPDX-License-Identifier: GPL-2.0-only
"""A kernel log that `dmesg --follow` prints from its start again after each lost connection."""

from __future__ import annotations

import re

_STAMP = re.compile(rb"\[ {0,12}(\d{1,10})\.(\d{6})\]")


class KernelLog:
    """What is new in a further reading of the log. A reading begins with a line for the boot id.

    Of the same boot the log is old up to the line with the newest time stamp of the earlier
    readings, and as many lines from there on as these had.
    """

    def __init__(self) -> None:
        self._boot: bytes | None = None
        self._newest = -1  # stamp in microseconds
        self._since_newest = 0  # lines from the first with that stamp on
        self.begin()

    def begin(self) -> None:
        """Another reading. A line in which the earlier one was cut off comes whole in this one."""
        self._partial = b""
        self._at_boot_id = True
        self._old = 0  # lines still to come that are old, from the newest stamp on
        self._at_newest = False  # whether that was reached

    def feed(self, data: bytes) -> bytes:
        """The whole lines that are new."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        return b"".join(line + b"\n" for line in lines if self._is_new(line))

    def _is_new(self, line: bytes) -> bool:
        if self._at_boot_id:
            self._at_boot_id = False
            if line != self._boot:
                self._boot, self._newest, self._since_newest = line, -1, 0
            self._old, self._at_newest = self._since_newest, self._newest < 0
            return False
        stamp = _STAMP.match(line)
        time_us = int(stamp[1] + stamp[2]) if stamp is not None else -1
        if self._old and time_us <= self._newest:
            self._at_newest = self._at_newest or time_us == self._newest
            self._old -= self._at_newest
            return False
        self._old = 0
        if time_us > self._newest:
            self._newest, self._since_newest = time_us, 0
        self._since_newest += 1
        return True
