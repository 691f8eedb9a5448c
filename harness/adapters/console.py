# SPDX-License-Identifier: GPL-2.0-only
"""Serial consoles: a file that grows, and how it gets here from another machine."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paramiko

from harness.adapters.ssh import SshConnection
from harness.core.kernel_log import KernelLog
from harness.errors import MachineError

BOOT_ID = "/proc/sys/kernel/random/boot_id"

_POLL_S = 0.02
_BLOCK_BYTES = 1 << 20
_TAIL_BYTES = 64 << 10
_REOPEN_S = 1.0
_FOLLOW_S = 0.1
_DMESG = "dmesg"
_DMESG_S = 60.0


def _never() -> bool:
    return False


class ConsoleFile:
    """A console captured in a file that something else (QEMU, a stream) writes.

    ended: tells that nothing more will come, so that waiting is pointless.
    """

    def __init__(self, path: Path, ended: Callable[[], bool] = _never) -> None:
        self.path = path
        self._ended = ended

    def size(self) -> int:
        """Bytes captured so far."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int = 0) -> bytes:
        """Everything from byte `start` on."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def tail(self, lines: int = 40, start: int = 0) -> str:
        """The last lines, none from before byte `start`."""
        text = self.read(max(start, self.size() - _TAIL_BYTES)).decode(errors="replace")
        return "\n".join(line.rstrip("\r") for line in text.rstrip().split("\n")[-lines:])

    def wait_for(self, needle: bytes, timeout_s: float, start: int = 0) -> bool:
        """Wait until `needle` shows at or after byte `start`."""
        return self.wait_any((needle,), timeout_s, start) is not None

    def wait_any(
        self,
        needles: tuple[bytes, ...],
        timeout_s: float,
        start: int = 0,
        quiet_s: float = math.inf,
    ) -> bytes | None:
        """The first of `needles` that is seen.

        None after `timeout_s`, at the console's end, or when nothing was printed for `quiet_s`.
        """
        quiet_since = time.monotonic()
        deadline = quiet_since + timeout_s
        at, rest = start, b""
        overlap = max(map(len, needles)) - 1
        while True:
            # the order matters: what was written before the end must be looked at
            now = time.monotonic()
            last = self._ended() or now >= deadline or now - quiet_since > quiet_s
            block = self._block(at)
            if block:
                at += len(block)
                rest += block
                quiet_since = now
                for needle in needles:
                    if needle in rest:
                        return needle
                rest = rest[-overlap:] if overlap else b""
            elif last:
                return None
            else:
                time.sleep(_POLL_S)

    def _block(self, start: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(_BLOCK_BYTES)
        except FileNotFoundError:
            return b""


class RemoteStream:
    """Copies the output of a command on a machine to a local file while it appears.

    command: a shell command, given the number of bytes already here ("{start}"). When the
    connection is lost it is run again, until `close`; what was copied stays. log: for a command
    that prints a kernel log from its start each time.
    """

    def __init__(
        self, ssh: SshConnection, command: str, local: Path, log: KernelLog | None = None
    ) -> None:
        self._ssh = ssh
        self._log = log
        self._command = command
        self._local = local
        self._copied = 0
        self._closing = threading.Event()
        self._channel: paramiko.Channel | None = None
        local.touch()
        self._thread = threading.Thread(target=self._loop, name=f"stream {local.name}", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(MachineError, OSError, EOFError, paramiko.SSHException):
                # never connect anew from here: that is for whoever runs a command
                if self._ssh.connected():
                    self._copy()
            self._closing.wait(_REOPEN_S)

    def _copy(self) -> None:
        channel = self._ssh.open_session()
        self._channel = channel
        with contextlib.closing(channel), self._local.open("ab", buffering=0) as file:
            channel.exec_command(self._command.format(start=self._copied))
            if self._log is not None:
                self._log.begin()
            while data := channel.recv(_BLOCK_BYTES):
                file.write(data if self._log is None else self._log.feed(data))
                self._copied += len(data)

    def close(self, settle_s: float = 0.0) -> None:
        """Stop copying. settle_s: wait until nothing has come for that long, at most 5 s."""
        give_up = time.monotonic() + 5.0
        copied = -1
        while settle_s and copied != self._copied and time.monotonic() < give_up:
            copied = self._copied
            if self._closing.wait(settle_s) or not self._ssh.connected():
                break
        self._closing.set()
        if self._channel is not None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                self._channel.close()
        self._thread.join(5.0)


def follow_file(ssh: SshConnection, remote: str, local: Path) -> RemoteStream:
    """Copy a growing file, also what it held before.

    A serial console grows by single bytes. With inotify GNU tail sends each of them as a packet of
    its own: on an emulated host machine a guest then took 22 s to boot instead of 18. So it polls.
    """
    quoted = shlex.quote(remote).replace("{", "{{").replace("}", "}}")
    # tail counts from 1; `exec`: the channel's end is tail's end
    command = (
        f"poll='---disable-inotify -s {_FOLLOW_S}'; tail $poll /dev/null 2>/dev/null || poll=; "
        f'exec tail $poll -c +"$(({{start}} + 1))" -F {quoted} 2>/dev/null'
    )
    return RemoteStream(ssh, command, local)


def follow_kernel_log(ssh: SshConnection, local: Path) -> RemoteStream:
    """Copy the kernel log of a machine without a console, each boot's once, from now on."""
    log = KernelLog()
    log.feed(ssh.run(f"cat {BOOT_ID}; {_DMESG} 2>/dev/null", timeout_s=_DMESG_S).stdout)
    command = f"cat {BOOT_ID}; exec {_DMESG} --follow 2>/dev/null"
    return RemoteStream(ssh, command, local, log)
