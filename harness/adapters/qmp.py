# SPDX-License-Identifier: GPL-2.0-only
"""QMP, QEMU's control channel (docs/interop/qmp-spec.rst): commands, and events with their time.

Synchronous, over any byte stream: a UNIX socket here, an SSH channel to a socket elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.errors import MachineError

_COMMAND_S = 10.0


class ByteStream(Protocol):
    """What a socket and an SSH channel have in common."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """An asynchronous event. seen_s: time.monotonic() of the controller."""

    name: str  # "SHUTDOWN", "RESET", "GUEST_PANICKED", ...
    data: dict[str, Any] = field(default_factory=dict)
    seen_s: float = 0.0


class Qmp:
    """A QMP session. Thread-safe. Events are kept in order."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        """Negotiates the capabilities. MachineError when QEMU does not answer."""
        self._stream = stream
        self._name = name
        self._events: list[QmpEvent] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._receive, name=f"qmp {name}", daemon=True)
        self._thread.start()
        try:
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float = _COMMAND_S,
    ) -> Any:
        """Run a command; its return value. MachineError when refused or not answered."""
        request: dict[str, Any] = {"execute": command, "arguments": dict(arguments or {})}
        with self._lock:
            self._number += 1
            try:
                self._stream.sendall(json.dumps({**request, "id": self._number}).encode() + b"\n")
                answer = self._answer(self._number, time.monotonic() + timeout_s)
            except (OSError, EOFError) as exc:
                raise MachineError(f"{self._name}: QMP {command}: {exc}") from exc
        if "error" in answer:
            raise MachineError(f"{self._name}: QMP {command}: {answer['error'].get('desc', '?')}")
        return answer.get("return")

    def _answer(self, number: int, deadline: float) -> dict[str, Any]:
        """The answer to one request; late answers to earlier ones are dropped."""
        while True:
            try:
                answer = self._answers.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                raise TimeoutError("no answer in time") from None
            if answer.get("id", number) == number:
                return answer

    def events(self, name: str = "") -> tuple[QmpEvent, ...]:
        """The events so far, all or those of one name."""
        return tuple(event for event in self._events if not name or event.name == name)

    def status(self) -> str:
        """The run state: "running", "paused", "shutdown", "guest-panicked", ..."""
        return str(self.execute("query-status")["status"])

    def ended(self) -> bool:
        """QEMU closed the channel."""
        return self._ended.is_set()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until QEMU closed the channel, so that all its events are here."""
        return self._ended.wait(timeout_s)

    def close(self) -> None:
        """End the session, not QEMU. Idempotent, never raises."""
        with contextlib.suppress(OSError, EOFError):
            if isinstance(self._stream, socket.socket):
                # close() alone does not wake up a recv() in another thread
                self._stream.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, EOFError):
            self._stream.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def _receive(self) -> None:
        rest = b""
        try:
            while data := self._stream.recv(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._take(json.loads(line))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self._ended.set()
            # whoever waits for an answer need not wait for the limit
            self._answers.put({"error": {"desc": "QEMU closed the channel"}})

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            event = QmpEvent(message["event"], message.get("data", {}), time.monotonic())
            self._events.append(event)
        elif "QMP" not in message:
            self._answers.put(message)


def connect_unix(path: Path, name: str) -> Qmp:
    """A session over a UNIX socket. OSError when nobody listens there."""
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.connect(str(path))
    except OSError:
        stream.close()
        raise
    return Qmp(stream, name)
