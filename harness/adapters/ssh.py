# SPDX-License-Identifier: GPL-2.0-only
"""One SSH connection per machine, kept open; further machines are reached through it.

The host key is pinned: an unknown key is refused, never learnt. A lost connection is a fact about
the machine, not an exception: `run` reports it as ExecResult.lost, and the next call connects anew.
"""

from __future__ import annotations

import binascii
import contextlib
import io
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.adapters.ssh_exec import Exchange, Limits, Readable
from harness.errors import MachineError
from harness.model.machine import ExecResult

_CONNECT_S = 20.0
_BANNER_S = 10.0
_KEEPALIVE_S = 10
_RETRY_S = 0.1
# dropbear ends the connection at a command of 9000 bytes: longer ones go through stdin
_LONG_COMMAND = 4000
# AES-GCM: in hardware on the controller; against AES-CTR no difference was seen under TCG
_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr")
_KEX = ("curve25519-sha256@libssh.org", "curve25519-sha256")

# paramiko logs what it also raises; without a handler Python prints it to stderr
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshRefusedError(MachineError):
    """The machine is somebody else, or does not let us in: trying again does not help."""


@dataclass(frozen=True, slots=True)
class SshEndpoint:
    """Where sshd listens and who it must be.

    key: private key file. host_key: "TYPE BASE64" as in known_hosts. via: the connection of the
    machine from which host:port is reached, None for a direct connection.
    """

    host: str
    port: int
    user: str
    key: Path
    host_key: str
    via: SshConnection | None = None

    @property
    def by_hand(self) -> str:
        """A command that opens the same connection."""
        jump = f" (on {self.via.endpoint.host}:{self.via.endpoint.port})" if self.via else ""
        return f"ssh -i {self.key} -p {self.port} {self.user}@{self.host}{jump}"


def _never() -> bool:
    return False


class SshConnection:
    """The connection to one machine. Thread-safe: commands may run side by side.

    ended: tells that the machine is known to be gone, so that waiting for it is pointless.
    """

    def __init__(
        self, name: str, endpoint: SshEndpoint, ended: Callable[[], bool] = _never
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self._ended = ended
        self._transport: paramiko.Transport | None = None
        self._lock = threading.RLock()
        self._closed = False

    # connecting

    def connect(self, timeout_s: float = _CONNECT_S) -> None:
        """Connect unless connected. MachineError when it does not answer or is somebody else."""
        self._live(time.monotonic() + timeout_s)

    def connected(self) -> bool:
        transport = self._transport
        return transport is not None and transport.is_active()

    def drop(self) -> None:
        """Forget the connection; the next call connects anew."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def close(self) -> None:
        """Drop the connection for good. Idempotent, never raises."""
        self._closed = True
        self.drop()

    def _live(self, deadline: float) -> paramiko.Transport:
        with self._lock:
            if self._transport is not None and self._transport.is_active():
                return self._transport
            self.drop()
            self._transport = self._establish(deadline)
            return self._transport

    def _establish(self, deadline: float) -> paramiko.Transport:
        reason = "no attempt"
        while not self._closed:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._ended():
                reason = "the machine has ended"
                break
            try:
                return self._handshake(min(left, _BANNER_S))
            except (OSError, EOFError, paramiko.SSHException) as exc:
                self._refuse(exc)
                reason = str(exc) or type(exc).__name__
            time.sleep(_RETRY_S)
        raise MachineError(
            f"{self.name}: SSH does not answer: {reason}", command=self.endpoint.by_hand
        )

    def _refuse(self, exc: Exception) -> None:
        """Raise SshRefusedError for what repetition does not mend."""
        wrong_key = isinstance(exc, paramiko.BadHostKeyException)
        if wrong_key or isinstance(exc, paramiko.ssh_exception.IncompatiblePeer):
            # "no acceptable host key": a server without a key of the pinned type
            wrong_key = wrong_key or "host key" in str(exc)
            raise SshRefusedError(
                f"{self.name}: {'wrong SSH host key' if wrong_key else 'SSH'}: {exc}",
                hint="another machine answers at this address, or its key was replaced"
                if wrong_key
                else "sshd needs curve25519-sha256 and aes128-gcm@openssh.com or aes128-ctr",
                command=self.endpoint.by_hand,
            ) from exc
        # an authentication cut off by a reboot or a slow machine is an AuthenticationException too
        unwanted = isinstance(exc, paramiko.BadAuthenticationType)
        if unwanted or (
            isinstance(exc, paramiko.AuthenticationException)
            and str(exc) == "Authentication failed."
        ):
            raise SshRefusedError(
                f"{self.name}: SSH login as {self.endpoint.user} refused: {exc}",
                hint=f"is the public part of {self.endpoint.key} in its authorized_keys?",
                command=self.endpoint.by_hand,
            ) from exc

    def _handshake(self, timeout_s: float) -> paramiko.Transport:
        kind, _, base64 = self.endpoint.host_key.partition(" ")
        key = load_private_key(self.endpoint.key)
        transport = paramiko.Transport(self._socket(timeout_s))
        try:
            transport.banner_timeout = timeout_s
            transport.handshake_timeout = timeout_s
            transport.auth_timeout = timeout_s
            options = transport.get_security_options()
            options.ciphers = _CIPHERS
            options.kex = tuple(kex for kex in _KEX if kex in options.kex)
            options.key_types = ("rsa-sha2-512",) if kind == "ssh-rsa" else (kind,)
            transport.start_client(timeout=timeout_s)
            seen = transport.get_remote_server_key()
            if (seen.get_name(), seen.get_base64()) != (kind, base64.split(maxsplit=1)[0]):
                expected = paramiko.PKey.from_type_string(kind, _decode(base64))
                raise paramiko.BadHostKeyException(self.endpoint.host, seen, expected)
            transport.auth_publickey(self.endpoint.user, key)
            transport.set_keepalive(_KEEPALIVE_S)
        except BaseException:
            transport.close()
            raise
        return transport

    def _socket(self, timeout_s: float) -> socket.socket | paramiko.Channel:
        target = (self.endpoint.host, self.endpoint.port)
        if self.endpoint.via is None:
            plain = socket.create_connection(target, timeout_s)
            # a command is several small packets: Nagle's algorithm holds them back for 40 ms
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain
        return self.endpoint.via.open_tcp(*target, timeout_s=timeout_s)

    def open_tcp(self, host: str, port: int, *, timeout_s: float) -> paramiko.Channel:
        """A TCP connection from the machine to host:port. OSError or SSHException on failure."""
        try:
            transport = self._live(time.monotonic() + timeout_s)
        except MachineError as exc:
            raise OSError(exc.message) from exc
        return transport.open_channel(
            "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout_s
        )

    # using it

    def open_session(self, timeout_s: float = _CONNECT_S) -> paramiko.Channel:
        """A new session channel. MachineError or SSHException on failure."""
        deadline = time.monotonic() + timeout_s
        transport = self._live(deadline)
        return transport.open_session(timeout=max(deadline - time.monotonic(), 0.1))

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes | Readable = b"",
        on_output: Callable[[bytes], None] | None = None,
        max_output_bytes: int = 8 << 20,
    ) -> ExecResult:
        """Run a command in the login shell (POSIX). Never raises for what the machine does.

        Raises SshRefusedError only, when the machine is not the one it should be.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        limits = Limits(timeout_s, max_output_bytes, on_output, self._ended)
        source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        if len(text) > _LONG_COMMAND:
            if stdin != b"":
                raise MachineError(f"{self.name}: a command of {len(text)} characters and an input")
            source = io.BytesIO(text.encode())
            text = 'script=$(cat); exec sh -c "$script" < /dev/null'
        exchange = Exchange(text, source, limits)
        try:
            channel = self.open_session(min(timeout_s, _CONNECT_S))
        except SshRefusedError:
            raise
        except MachineError:
            return exchange.lost()
        except (OSError, EOFError, paramiko.SSHException):
            return exchange.lost(timed_out=self.connected())
        try:
            result = exchange.over(channel)
        finally:
            _close(channel)
        if result.timed_out and exchange.pid:
            self._kill(exchange.pid)
        if result.lost and not self.connected():
            self.drop()
        return result

    def _kill(self, leader: int) -> None:
        """End a command on the machine: its process group where it leads one, and its descendants.

        OpenSSH gives a command a session of its own; under dropbear its group is that of the
        connection. Processes that left both the group and their parent stay. pkill: the kill of
        dash takes no group after "--".
        """
        command = f"""
below() {{ echo "$1"; for child in $(pgrep -P "$1"); do below "$child"; done; }}
all=$(below {leader})
pkill -TERM -g {leader}; kill -TERM $all
sleep 0.3
pkill -KILL -g {leader}; kill -KILL $all $(below {leader})
"""
        with contextlib.suppress(MachineError, OSError, EOFError, paramiko.SSHException):
            channel = self.open_session(5.0)
            try:
                Exchange(command, io.BytesIO(), Limits(5.0, 1024, None, self._ended)).over(channel)
            finally:
                _close(channel)


def _close(channel: paramiko.Channel) -> None:
    # closing tells the other side, which may be gone
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        channel.close()


def load_private_key(path: Path) -> paramiko.PKey:
    """Any unencrypted OpenSSH private key. MachineError when unusable."""
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, TypeError, paramiko.SSHException) as exc:
        raise MachineError(f"{path}: unusable SSH key: {exc}") from exc


def _decode(base64: str) -> bytes:
    return binascii.a2b_base64(base64.split(maxsplit=1)[0])
