# SPDX-License-Identifier: GPL-2.0-only
"""One command over an SSH session channel: stdin, both outputs, limits."""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import paramiko

from harness.core.head_tail import HeadTail
from harness.model.machine import ExecResult

_CHUNK_BYTES = 128 << 10
_PACKET_BYTES = 32 << 10
_TICK_S = 0.5
# a process in the background may keep the outputs open after the command's end
_DRAIN_S = 0.5
_MARK = b"\x01"


class Readable(Protocol):
    """A source of bytes; an empty answer ends it."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What cuts a command off, and who listens."""

    timeout_s: float
    max_output_bytes: int  # of stdout and stderr each
    on_output: Callable[[bytes], None] | None
    ended: Callable[[], bool]  # the machine is known to be gone


class Exchange:
    """A command and what came of it. pid: of the login shell, 0 until known.

    The login shell tells its pid in the first line of stderr, which is taken out again. OpenSSH
    makes it the leader of a session.
    """

    def __init__(self, command: str, stdin: Readable, limits: Limits) -> None:
        self.pid = 0
        self._command = command
        self._stdin = stdin
        self._pending: memoryview | None = memoryview(b"")  # None: stdin is closed
        self._limits = limits
        self._begin = time.monotonic()
        self._outputs = HeadTail(limits.max_output_bytes), HeadTail(limits.max_output_bytes)
        self._first: bytes | None = b""  # start of stderr until the pid line is complete

    def over(self, channel: paramiko.Channel) -> ExecResult:
        """Run the command; at its end the channel is spent."""
        deadline = self._begin + self._limits.timeout_s
        try:
            channel.settimeout(max(deadline - time.monotonic(), 0.1))
            channel.exec_command(f"printf '\\001%d\\n' $$ >&2\n{self._command}")
            # sends must not block the outputs
            channel.settimeout(0.0)
            return self._pump(channel, deadline)
        except TimeoutError:
            return self._result(None, timed_out=True)
        except (OSError, EOFError, paramiko.SSHException):
            return self.lost()

    def lost(self, *, timed_out: bool = False) -> ExecResult:
        """The result when the connection is gone."""
        return self._result(None, lost=not timed_out, timed_out=timed_out)

    def _pump(self, channel: paramiko.Channel, deadline: float) -> ExecResult:
        quiet_since = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(channel.fileno(), selectors.EVENT_READ)
            while True:
                if self._move(channel):
                    quiet_since = time.monotonic()
                    if quiet_since < deadline:
                        continue
                now = time.monotonic()
                if channel.exit_status_ready():
                    if channel.eof_received or channel.closed or now - quiet_since > _DRAIN_S:
                        status = channel.recv_exit_status()
                        # -1: the channel closed without a status
                        return self._result(status) if status >= 0 else self._cut(channel)
                elif channel.closed or self._limits.ended():
                    return self.lost()
                if now >= deadline:
                    return self._result(None, timed_out=True)
                self._wait(channel, selector, deadline - now)

    def _cut(self, channel: paramiko.Channel) -> ExecResult:
        """The channel closed without a status: the shell died of a signal, or nobody is there.

        sshd ends the outputs before it closes a channel; a lost connection does not.
        """
        return self._result(-1) if channel.eof_received else self.lost()

    def _wait(
        self, channel: paramiko.Channel, selector: selectors.BaseSelector, left_s: float
    ) -> None:
        if channel.eof_received:
            # its descriptor stays readable: wait for the status instead
            channel.status_event.wait(min(0.05, left_s))
        else:
            # while there is stdin to send, the window may open without a sign on the descriptor
            tick = _TICK_S if self._pending is None and not channel.exit_status_ready() else 0.01
            selector.select(min(tick, left_s))

    def _move(self, channel: paramiko.Channel) -> bool:
        """Move what can be moved without waiting; False when nothing could."""
        moved = self._send(channel)
        if channel.recv_ready():
            self._take(0, channel.recv(_CHUNK_BYTES))
            moved = True
        if channel.recv_stderr_ready():
            self._take_stderr(channel.recv_stderr(_CHUNK_BYTES))
            moved = True
        return moved

    def _send(self, channel: paramiko.Channel) -> bool:
        if self._pending is None or channel.closed:
            return False
        if not self._pending:
            self._pending = memoryview(self._stdin.read(_CHUNK_BYTES))
            if not self._pending:
                self._pending = None
                with contextlib.suppress(OSError, EOFError):
                    channel.shutdown_write()
                return True
        if not channel.send_ready():
            return False
        try:
            sent = channel.send(bytes(self._pending[:_PACKET_BYTES]))
        except TimeoutError:
            return False
        self._pending = self._pending[sent:]
        return sent > 0

    def _take(self, stream: int, data: bytes) -> None:
        self._outputs[stream].add(data)
        if data and self._limits.on_output is not None:
            self._limits.on_output(data)

    def _take_stderr(self, data: bytes) -> None:
        if self._first is not None:
            # login scripts may have written before the pid line
            self._first += data
            before, mark, after = self._first.partition(_MARK)
            number, newline, rest = after.partition(b"\n")
            if not (mark and newline):
                return
            self.pid = int(number)
            self._first = None
            data = before + rest
        self._take(1, data)

    def _result(
        self, status: int | None, *, timed_out: bool = False, lost: bool = False
    ) -> ExecResult:
        if self._first:
            self._take(1, self._first)
            self._first = None
        return ExecResult(
            command=self._command,
            exit_status=status,
            stdout=self._outputs[0].value(),
            stderr=self._outputs[1].value(),
            duration_s=time.monotonic() - self._begin,
            timed_out=timed_out,
            lost=lost,
            truncated=any(output.truncated for output in self._outputs),
        )
