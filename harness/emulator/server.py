# SPDX-License-Identifier: GPL-2.0-only
"""The sockets: one per PCI function, one thread, nothing blocks.

A client that stops in the middle of a message, sends nonsense, never reads or dies costs only
itself: its connection ends, its memory and interrupts are dropped, the function waits for the next.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from harness.emulator import vfio_user
from harness.emulator.eventlog import EventLog
from harness.emulator.function import PciFunction
from harness.emulator.platform import Platform
from harness.emulator.session import Message, Session
from harness.emulator.vfio_user import HEADER_BYTES, ProtocolError
from harness.errors import InfraError, UserError

_POLL_S = 0.2
_MAX_UNREAD_BYTES = 4 << 20
_MESSAGES_PER_TURN = 64  # so that one client cannot starve the others
_MAX_CLIENTS = 8  # of a socket: one is served, the others wait to be told EBUSY
_ANCILLARY = socket.CMSG_SPACE(4 * vfio_user.MAX_MSG_FDS)


class Stop(Protocol):
    """Such as threading.Event."""

    def is_set(self) -> bool: ...


class MessageReader:
    """Takes whole messages from a non-blocking socket. Never reads past the current message.

    That keeps descriptors with the message they came with.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._data = bytearray()
        self._fds: list[int] = []
        self._header: vfio_user.Header | None = None

    def next(self) -> Message | None:
        """A message, or None when there is no whole one yet.

        Raises ProtocolError, EOFError (the client is gone), OSError.
        """
        while True:
            if self._header is None and len(self._data) == HEADER_BYTES:
                self._header = vfio_user.decode_header(bytes(self._data))
                self._data.clear()
            if self._header is not None and len(self._data) == self._header.body_bytes:
                message = Message(self._header, bytes(self._data), self._fds)
                self._header, self._data, self._fds = None, bytearray(), []
                return message
            wanted = HEADER_BYTES if self._header is None else self._header.body_bytes
            if not self._receive(wanted - len(self._data)):
                return None

    def _receive(self, count: int) -> bool:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(count, _ANCILLARY)
        except BlockingIOError:
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._fds) > vfio_user.MAX_MSG_FDS:
            raise ProtocolError("more descriptors than we said we take")
        if not data:
            raise EOFError
        self._data += data
        return True

    def close(self) -> None:
        close_all(self._fds)
        self._fds = []


def close_all(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


class Client:
    """One connection. on_end(): called once when it is over."""

    def __init__(
        self,
        connection: socket.socket,
        session: Session,
        selector: selectors.BaseSelector,
        on_end: Callable[[str], None],
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._session = session
        self._selector = selector
        self._on_end = on_end
        self._reader = MessageReader(connection)
        self._unsent = bytearray()
        self._closing = False
        self._open = True
        selector.register(connection, selectors.EVENT_READ, self)

    def ready(self, mask: int) -> None:
        """The selector says that something can be done."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._send(b"")
            if mask & selectors.EVENT_READ and not self._closing:
                self._read()
        except EOFError:
            self.end("closed by the client")
        except ProtocolError as exc:
            self.end(f"protocol error: {exc}")
        except OSError as exc:
            self.end(f"connection lost: {exc}")

    def _read(self) -> None:
        for _ in range(_MESSAGES_PER_TURN):
            message = self._reader.next()
            if message is None:
                return
            try:
                reply, goes_on = self._session.handle(message)
            finally:
                close_all(message.fds)
            if not goes_on:
                self._closing = True
            self._send(reply)
            if self._closing:
                return

    def _send(self, data: bytes) -> None:
        if not self._unsent and data:
            with contextlib.suppress(BlockingIOError):
                data = data[self._socket.send(data) :]
        elif self._unsent:
            with contextlib.suppress(BlockingIOError):
                del self._unsent[: self._socket.send(self._unsent)]
        self._unsent += data
        if len(self._unsent) > _MAX_UNREAD_BYTES:
            raise ProtocolError("the client does not read its replies")
        if self._closing and not self._unsent:
            self.end("refused")
            return
        events = selectors.EVENT_READ
        if self._unsent:
            events = selectors.EVENT_WRITE | (0 if self._closing else selectors.EVENT_READ)
        if self._selector.get_key(self._socket).events != events:
            self._selector.modify(self._socket, events, self)

    def end(self, why: str) -> None:
        if not self._open:
            return
        self._open = False
        self._selector.unregister(self._socket)
        self._reader.close()
        self._socket.close()
        self._on_end(why)


class Listener:
    """The socket of one function. Serves one client; further ones are told EBUSY."""

    def __init__(self, path: Path, function: PciFunction, server: Server) -> None:
        self.path = path
        self.function = function
        self._server = server
        self._socket = bind_socket(path)
        self.clients: set[Client] = set()
        self.current: Client | None = None
        server.selector.register(self._socket, selectors.EVENT_READ, self)

    def ready(self, mask: int) -> None:
        del mask
        try:
            connection, _ = self._socket.accept()
        except OSError:  # the client went away again, or we are out of descriptors
            return
        if len(self.clients) >= _MAX_CLIENTS:
            connection.close()
            return
        refused = self.current is not None
        session = Session(self.function, busy=refused)

        def ended(why: str) -> None:
            self.clients.discard(client)
            self._server.log.write("client-end", function=self.function.name, why=why)
            if self.current is client:
                self.current = None
                self.function.client_gone()
                self._server.client_gone(greeted=session.greeted)

        client = Client(connection, session, self._server.selector, ended)
        self.clients.add(client)
        if refused:
            self._server.log.write("client-refused", function=self.function.name)
        else:
            self.current = client
            self.function.client_connected()

    def end_clients(self) -> None:
        for client in list(self.clients):
            client.end("the platform ends")

    def close(self) -> None:
        """End clients, remove the socket file."""
        self.end_clients()
        self._server.selector.unregister(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)


def bind_socket(path: Path) -> socket.socket:
    """Listen. A socket file that nobody listens on any more is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            _remove_dead(path)
        listener.bind(str(path))
        listener.listen(8)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise UserError(f"{path}: another platform serves this socket") from exc
        raise InfraError(f"{path}: {exc}") from exc
    return listener


def _remove_dead(path: Path) -> None:
    if not path.is_socket():
        if path.exists():
            raise UserError(f"{path}: exists and is not a socket")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


class Server:
    """Serves a platform until told to stop, or (unless `stay`) until its last client is gone."""

    def __init__(self, platform: Platform, directory: Path, log: EventLog, *, stay: bool) -> None:
        self.log = log
        self.selector = selectors.DefaultSelector()
        self._platform = platform
        self._stay = stay
        self._served = False
        self._done = False
        self.listeners: list[Listener] = []
        try:
            for function in platform.functions:
                path = directory / f"{function.name}.sock"
                self.listeners.append(Listener(path, function, self))
        except BaseException:
            self.close()
            raise

    def add(self, source: socket.socket, ready: Callable[[int], None]) -> None:
        """Watch a further socket, such as the control socket's."""
        self.selector.register(source, selectors.EVENT_READ, _Callback(ready))

    def wait_for(self, source: socket.socket, events: int) -> None:
        """What to watch it for from now on."""
        key = self.selector.get_key(source)
        if key.events != events:
            self.selector.modify(source, events, key.data)

    def remove(self, source: socket.socket) -> None:
        self.selector.unregister(source)

    def client_gone(self, *, greeted: bool) -> None:
        """Ends the platform with its last client; who only looks whether it is there is none."""
        self._served = self._served or greeted
        gone = all(one.current is None for one in self.listeners)
        self._done = self._served and gone and not self._stay

    def run(self, stop: Stop, each_turn: Callable[[], None] = lambda: None) -> None:
        while not stop.is_set() and not self._done:
            self.turn()
            each_turn()

    def turn(self) -> None:
        """Wait for something to happen (at most 0.2 s) and do it."""
        timeout = _POLL_S
        if self._platform.busy():
            timeout = 0
        else:
            due = self._platform.deadline()
            if due is not None:
                timeout = max(0.0, min(timeout, due - self._platform.clock()))
        for key, mask in self.selector.select(timeout):
            key.data.ready(mask)
        if self._platform.busy():
            self._platform.step()

    def end_clients(self) -> None:
        """End every connection; the sockets stay until close()."""
        for listener in self.listeners:
            listener.end_clients()

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.selector.close()


class _Callback:
    def __init__(self, ready: Callable[[int], None]) -> None:
        self.ready = ready
