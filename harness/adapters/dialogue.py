# SPDX-License-Identifier: GPL-2.0-only
"""A program on a machine that reads lines and answers each with one line."""

from __future__ import annotations

import contextlib
import threading
import time

import paramiko

from harness.adapters.ssh import SshConnection
from harness.errors import MachineError

_CHUNK_BYTES = 4096
_LONGEST_BYTES = 64 << 10
_END_S = 5.0


class Dialogue:
    """Starts the program at once; close() it in any case.

    Several may run over one connection; one may be asked by several threads, one after the other.
    """

    def __init__(self, ssh: SshConnection, command: str) -> None:
        self._what = f"{ssh.name}: `{command}`"
        self._pending = b""
        self._turn = threading.Lock()
        try:
            self._channel = ssh.open_session()
            self._channel.exec_command(command)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise MachineError(f"{self._what}: cannot be started: {exc}") from exc

    def read_line(self, timeout_s: float) -> str:
        """The next line, without its end. MachineError when none comes."""
        with self._turn:
            return self._line(timeout_s)

    def ask(self, line: str, timeout_s: float) -> str:
        """The answer to a line. MachineError when the program is gone or late."""
        with self._turn:
            try:
                self._channel.settimeout(timeout_s)
                self._channel.sendall(line.encode() + b"\n")
            except (OSError, EOFError, paramiko.SSHException) as exc:
                raise MachineError(f"{self._what}: does not read `{line}`: {exc}") from exc
            return self._line(timeout_s, line)

    def _line(self, timeout_s: float, asked: str = "") -> str:
        deadline = time.monotonic() + timeout_s
        said = f" to `{asked}`" if asked else ""
        while b"\n" not in self._pending:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self._channel.recv(_CHUNK_BYTES)
            except TimeoutError as exc:
                raise MachineError(f"{self._what}: no answer{said} in {timeout_s:.0f} s") from exc
            except (OSError, EOFError, paramiko.SSHException) as exc:
                raise MachineError(f"{self._what}: no answer{said}: {exc}") from exc
            self._pending += data
            if not data or len(self._pending) > _LONGEST_BYTES:
                raise MachineError(f"{self._what}: ended without an answer{said}")
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def close(self) -> None:
        """End of input; waits a moment for the program to end. Idempotent, never raises."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if not self._channel.closed:
                self._channel.shutdown_write()
                self._channel.status_event.wait(_END_S)
            self._channel.close()
