# SPDX-License-Identifier: GPL-2.0-only
"""Progress on the terminal: a live status line with rich, plain lines without a terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status

_PLAIN_EVERY_S = 15.0


def duration(seconds: float) -> str:
    """ "4.2 s", "3 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


class _Rate:
    """Time left, from the speed since the count began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._total = 0
        self._start = (0.0, 0)

    def restart(self) -> None:
        """Another count begins, perhaps of the same things."""
        self._total = 0

    def left(self, done: int, total: int) -> str:
        now = self._clock()
        if total != self._total or done < self._start[1]:
            self._total, self._start = total, (now, done)
        elapsed, moved = now - self._start[0], done - self._start[1]
        if total <= 0 or moved < 5 or elapsed < 2 or done >= total:
            return ""
        return f", {duration((total - done) * elapsed / moved)} left"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """What nobody reads is lost; the run goes on. (rich would exit with 1: a test failed.)"""
        self.quiet = True
        with Path(os.devnull).open("wb") as nothing:  # takes what is still in the buffer
            os.dup2(nothing.fileno(), self.file.fileno())


class TerminalProgress:
    """Implements model.progress.Progress."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = _Console(file=stream or sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._clock = clock
        self._begin = clock()
        self._stage = ""
        self._stage_begin = self._begin
        self._rate = _Rate(clock)
        self._last_plain = 0.0
        self._status: Status | None = None
        self._lock = threading.Lock()

    def stage(self, name: str, note: str = "") -> None:
        with self._lock:
            self._finish()
            self._rate.restart()
            self._stage, self._stage_begin = name, self._clock()
            self._last_plain = self._clock()
            text = f"{name}: {note}" if note else name
            if self._live:
                self._status = self._console.status(escape(text))
                self._status.start()
            else:
                self._line(text)

    def say(self, text: str) -> None:
        with self._lock:
            self._line(text)

    def count(self, done: int, total: int, what: str) -> None:
        with self._lock:
            left = self._rate.left(done, total)
            of = f"{done} of about {total}" if total else f"{done}"
            text = f"{self._stage}: {of} {what}{left}"
            if self._status is not None:
                self._status.update(escape(text))
            elif self._clock() - self._last_plain >= _PLAIN_EVERY_S:
                self._last_plain = self._clock()
                self._line(text)

    def close(self) -> None:
        with self._lock:
            self._finish()
            self._stage = ""

    def _finish(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        elapsed = self._clock() - self._stage_begin
        if self._stage and self._live:
            self._line(f"{self._stage} ({duration(elapsed)})")

    def _line(self, text: str) -> None:
        self._console.print(
            f"[{self._clock() - self._begin:7.1f}] {text}", markup=False, soft_wrap=True
        )
