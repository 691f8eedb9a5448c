# SPDX-License-Identifier: GPL-2.0-only
"""control.sock: the harness asks about the running platform and disturbs it, from outside the VM.

One JSON object per line, one JSON object back. {"op": "state"}, {"op": "error", "tdi": 0},
{"op": "announce", "tdi": 0, "reason": "private-page", "count": 1}, {"op": "check", "label": "x"},
{"op": "inject", "command": "lock", "kind": "error", "value": 12, "count": 1}, {"op": "unbind",
"tdi": 0}, {"op": "pages"}. An answer has "ok"; when it is false, "error" says why.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.emulator.platform import Platform
from harness.emulator.server import Server, bind_socket
from harness.emulator.tdisp import Tdi
from harness.emulator.words import Command, Injection, Reason, Result, TdiState, word_name

_MAX_LINE_BYTES = 64 << 10
Answer = dict[str, Any]
Word = TypeVar("Word", Reason, Command, Injection)


class ControlError(Exception):
    """A request that cannot be carried out; goes back to the asker."""


class Control:
    """Requests to answers, pure."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._table: dict[str, Callable[[Answer], Answer]] = {
            "state": self._state,
            "error": self._error,
            "announce": self._announce,
            "check": self._check,
            "inject": self._inject,
            "bind": self._bind,
            "unbind": self._unbind,
            "pages": self._pages,
        }

    def answer(self, line: bytes) -> bytes:
        """One line in, one line out; never raises for what a client sends."""
        try:
            request = json.loads(line)
            operation = request.get("op") if isinstance(request, dict) else None
            if not isinstance(operation, str) or operation not in self._table:
                raise ControlError(f"unknown op; known: {', '.join(self._table)}")
            answer = {"ok": True, **self._table[operation](request)}
        except (ControlError, ValueError, RecursionError) as exc:
            answer = {"ok": False, "error": str(exc)}
        return json.dumps(answer).encode() + b"\n"

    def _tdi(self, request: Answer) -> Tdi:
        index = request.get("tdi")
        tdis = self._platform.tdis
        if not isinstance(index, int) or not 0 <= index < len(tdis):
            raise ControlError(f"tdi: a number from 0 to {len(tdis) - 1}")
        return tdis[index]

    def _state(self, request: Answer) -> Answer:
        del request
        return {
            "model": self._platform.knobs.model.value,
            "tdis": [
                {
                    "tdi": tdi.index,
                    "bdf": tdi.bdf,
                    "state": tdi.state.name,
                    "connected": tdi.connected,
                    "bound": tdi.bound,
                    "dma_enabled": tdi.dma_enabled,
                    "generation": tdi.generation,
                    "bus_master": function.config.bus_master,
                }
                for tdi, function in zip(
                    self._platform.tdis, self._platform.tdi_functions, strict=True
                )
            ],
            "shared_pages": self._platform.pages.shared_pages(),
            "pending": self._platform.announcements.pending,
            "unannounced": self._platform.announcements.unannounced,
        }

    def _pages(self, request: Answer) -> Answer:
        del request
        ranges = self._platform.pages.ranges()
        return {"shared": [{"gpa": hex(gpa), "pages": pages} for gpa, pages in ranges]}

    def _error(self, request: Answer) -> Answer:
        tdi = self._tdi(request)
        tdi.error("on demand")
        if tdi.state is not TdiState.ERROR:
            raise ControlError(f"TDI {tdi.index} is {tdi.state.name}: only a locked one can fail")
        return {}

    def _unbind(self, request: Answer) -> Answer:
        result = self._tdi(request).unbind()
        if result is not Result.OK:
            raise ControlError(result.name.lower())
        return {}

    def _bind(self, request: Answer) -> Answer:
        """What --no-autobind leaves to the host: connect, if need be, and bind."""
        tdi = self._tdi(request)
        if not tdi.connected:
            tdi.connect()
        result = tdi.bind("")
        if result is not Result.OK:
            raise ControlError(result.name.lower())
        return {}

    def _announce(self, request: Answer) -> Answer:
        tdi = self._tdi(request)
        reason = _by_name(Reason, request.get("reason"), "reason")
        self._platform.announcements.announce(tdi.index, reason, _count(request, "count", 1))
        return {}

    def _check(self, request: Answer) -> Answer:
        unannounced, missing = self._platform.announcements.check(str(request.get("label", "")))
        return {"unannounced": unannounced, "missing": missing}

    def _inject(self, request: Answer) -> Answer:
        command = _by_name(Command, request.get("command"), "command")
        kind = _by_name(Injection, request.get("kind"), "kind")
        value, count = _count(request, "value", 0), _count(request, "count", 1)
        result = self._platform.processor.injections.add(command, kind, value, count)
        if result is not Result.OK:
            raise ControlError(f"inject: {result.name.lower()}")
        return {}


def _count(request: Answer, key: str, default: int) -> int:
    value = request.get(key, default)
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ControlError(f"{key}: a number from 0")
    return value


def _by_name(words: type[Word], name: object, key: str) -> Word:
    by_name = {word_name(word): word for word in words}
    if not isinstance(name, str) or name not in by_name:
        raise ControlError(f"{key}: one of {', '.join(by_name)}")
    return by_name[name]


class _Asker:
    """One connection. Takes no further line before the answer to the last one is sent."""

    def __init__(self, connection: socket.socket, control: Control) -> None:
        self._socket = connection
        self._control = control
        self._pending = bytearray()
        self._unsent = bytearray()

    def ready(self, mask: int) -> int:
        """The events to wait for next, 0 when it is over. Raises OSError."""
        if mask & selectors.EVENT_READ:
            data = self._socket.recv(_MAX_LINE_BYTES)
            if not data:
                return 0
            self._pending += data
        self._send()
        while b"\n" in self._pending and not self._unsent:
            line, _, self._pending = self._pending.partition(b"\n")
            self._unsent += self._control.answer(bytes(line))
            self._send()
        if self._unsent:
            return selectors.EVENT_WRITE
        return selectors.EVENT_READ if len(self._pending) <= _MAX_LINE_BYTES else 0

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]


class ControlSocket:
    """Serves a Control next to the functions' sockets; at most 8 askers at a time."""

    def __init__(self, path: Path, control: Control, server: Server) -> None:
        self._path = path
        self._control = control
        self._server = server
        self._socket = bind_socket(path)
        self._connections: dict[socket.socket, _Asker] = {}
        server.add(self._socket, self._accept)

    def _accept(self, mask: int) -> None:
        del mask
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            if len(self._connections) >= 8:
                connection.close()
                return
            connection.setblocking(False)
            self._connections[connection] = _Asker(connection, self._control)
            self._server.add(connection, lambda mask: self._ready(connection, mask))

    def _ready(self, connection: socket.socket, mask: int) -> None:
        try:
            events = self._connections[connection].ready(mask)
        except OSError:
            events = 0
        if events:
            self._server.wait_for(connection, events)
        else:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        del self._connections[connection]
        self._server.remove(connection)
        connection.close()

    def close(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        self._server.remove(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)
