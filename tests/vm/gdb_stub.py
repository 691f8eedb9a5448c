# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's gdb stub, as far as a test needs it: stop at a function, look at and change memory.

With it a kernel can be shown a machine that QEMU cannot emulate.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RSP = 7  # number of the register in gdb's order


def arguments(path: Path) -> tuple[str, ...]:
    """QEMU arguments: a stub on the socket `path`, and a machine that waits for it."""
    return (
        "-chardev",
        f"socket,id=gdb0,path={path},server=on,wait=off",
        "-gdb",
        "chardev:gdb0",
        "-S",
    )


class Stub:
    """A connection to the stub. The machine stands still but for the time of go()."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                assert time.monotonic() < self._deadline, "QEMU opened no socket for gdb"
                time.sleep(0.05)
        self._socket.settimeout(timeout_s)
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def _send(self, text: str) -> None:
        self._socket.sendall(f"${text}#{sum(text.encode()) & 0xFF:02x}".encode())

    def _receive(self) -> str:
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start)
            if 0 <= start < end and len(self._buffer) >= end + 3:
                packet, self._buffer = self._buffer[start + 1 : end], self._buffer[end + 3 :]
                self._socket.sendall(b"+")
                return packet.decode()
            block = self._socket.recv(65536)
            assert block, "QEMU closed gdb's socket"
            self._buffer += block

    def ask(self, text: str) -> str:
        """The answer to one packet."""
        self._send(text)
        return self._receive()

    def stop_at(self, address: int) -> None:
        """Let the machine run until it executes the instruction at `address`."""
        assert self.ask(f"Z1,{address:x},1") == "OK"
        stopped = self.ask("c")
        assert stopped.startswith(("T05", "S05")), stopped
        assert self.ask(f"z1,{address:x},1") == "OK"

    def go(self) -> None:
        """Let the machine run, without waiting for it to stop."""
        self._send("D")
        assert self._receive() == "OK"

    def register(self, number: int) -> int:
        """A 64-bit register."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def return_address(self) -> int:
        """At the first instruction of a function: where it returns to."""
        return int.from_bytes(self.read(self.register(_RSP), 8), "little")

    def read(self, address: int, length: int) -> bytes:
        return bytes.fromhex(self.ask(f"m{address:x},{length:x}"))

    def write(self, address: int, data: bytes) -> None:
        assert self.ask(f"M{address:x},{len(data):x}:{data.hex()}") == "OK"


@contextmanager
def attached(path: Path, timeout_s: float = 120.0) -> Iterator[Stub]:
    stub = Stub(path, timeout_s)
    try:
        yield stub
    finally:
        stub.close()
