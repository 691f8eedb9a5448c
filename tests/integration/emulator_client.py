# SPDX-License-Identifier: GPL-2.0-only
"""A platform as a real process, and a vfio-user client on a real socket."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.emulator import vfio_user
from harness.emulator.vfio_user import HEADER, Operation

WAIT_S = 30.0
BAR0, CONFIG = vfio_user.REGION_BAR0, vfio_user.REGION_CONFIG


def wait_for(condition: Any, what: str) -> None:
    """Poll until `condition()` is true."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.02)


class PlatformProcess:
    """python -m harness.emulator."""

    def __init__(self, directory: Path, *options: str, stdout: int = subprocess.PIPE) -> None:
        self.directory = directory
        self._clients: list[Client] = []
        argv = [sys.executable, "-m", "harness.emulator", "--socket-dir", str(directory), *options]
        self.process = subprocess.Popen(argv, stdout=stdout, stderr=subprocess.STDOUT)

    def ready(self) -> PlatformProcess:
        wait_for(
            lambda: self._listens() or self.process.poll() is not None, "the platform's sockets"
        )
        return self

    def _listens(self) -> bool:
        # the file alone may be a dead platform's
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.directory / "control.sock"))
            return True
        return False

    def socket(self, name: str = "tdi0") -> Path:
        return self.directory / f"{name}.sock"

    def client(self, name: str = "tdi0", greet: bool = True) -> Client:
        """A connection that is closed with the platform."""
        client = Client(self.socket(name), greet)
        self._clients.append(client)
        return client

    def end(self, signum: int = signal.SIGTERM) -> tuple[int, str]:
        """(exit code, output)."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        output = b""
        if self.process.stdout is not None and not self.process.stdout.closed:
            output, _ = self.process.communicate(timeout=WAIT_S)
        else:
            self.process.wait(WAIT_S)
        return self.process.returncode, output.decode()

    def close(self) -> None:
        self.end(signal.SIGKILL)
        for client in self._clients:
            client.close()

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def log(self) -> list[dict[str, Any]]:
        lines = (self.directory / "platform.jsonl").read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request over the control socket."""
        return self.ask_raw(json.dumps(request).encode())

    def ask_raw(self, line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(WAIT_S)
            control.connect(str(self.directory / "control.sock"))
            control.sendall(line + b"\n")
            answer: dict[str, Any] = json.loads(control.makefile().readline())
            return answer


class Client:
    """A vfio-user client."""

    def __init__(self, path: Path, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._id = 0
        if greet:
            self.ok(Operation.VERSION, struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0')

    def close(self) -> None:
        self.socket.close()

    def send(self, command: int, body: bytes = b"", *fds: int, flags: int = 0) -> None:
        self._id = (self._id + 1) & 0xFFFF
        data = HEADER.pack(self._id, command, 16 + len(body), flags, 0) + body
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], rights)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self) -> tuple[int, bytes]:
        """(errno or 0, body). Raises EOFError when the platform closed the connection."""
        head = self._exactly(16)
        message_id, _, size, flags, error = HEADER.unpack(head)
        assert message_id == self._id
        body = self._exactly(size - 16)
        return (error if flags & vfio_user.FLAG_ERROR else 0), body

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def call(self, command: int, body: bytes = b"", *fds: int) -> tuple[int, bytes]:
        self.send(command, body, *fds)
        return self.receive()

    def ok(self, command: int, body: bytes = b"", *fds: int) -> bytes:
        error, reply = self.call(command, body, *fds)
        assert error == 0, os.strerror(error)
        return reply

    def read(self, region: int, offset: int, count: int) -> bytes:
        return self.ok(Operation.REGION_READ, struct.pack("<QII", offset, region, count))[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.ok(Operation.REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data)

    def power(self) -> None:
        self.write(CONFIG, 4, b"\x06\x00")

    def map(self, fd: int, address: int, size: int, offset: int = 0) -> None:
        self.ok(Operation.DMA_MAP, struct.pack("<IIQQQ", 32, 3, offset, address, size), fd)

    def arm(self, vector: int, fd: int) -> None:
        self.ok(Operation.SET_IRQS, struct.pack("<IIIII", 20, 0x24, 2, vector, 1), fd)

    def closed(self) -> bool:
        """Whether the platform ends this connection (waits for it)."""
        with contextlib.suppress(ConnectionError):
            return self.socket.recv(1) == b""
        return True
