# SPDX-License-Identifier: GPL-2.0-only
"""A read-only web server for this machine's own user: bound to loopback, GET and HEAD only.

What it serves is decided by a function of the path. Requests that a page elsewhere could have made
(another Host: DNS rebinding) are refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from harness.errors import UserError, cause

ADDRESS = "127.0.0.1"
_IDLE_S = 30.0
_BLOCK_BYTES = 256 * 1024
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path gets. body: the bytes, or a file to send as it is at this moment.

    policy: the Content-Security-Policy. location: of a redirection (status 302), a path.
    """

    body: bytes | Path
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    policy: str = "default-src 'none'; sandbox"
    location: str = ""


NOT_FOUND = Answer(b"not found\n", status=404)
Site = Callable[[str], Answer]  # of the path, decoded, without the query


def bind(site: Site, port: int) -> ThreadingHTTPServer:
    """A server that listens on loopback; port 0: any that is free. UserError when it is taken."""
    try:
        server = _Server((ADDRESS, port), partial(_Handler, site))
    except (OSError, OverflowError) as exc:
        raise UserError(
            f"--port {port}: {cause(exc)}",
            hint="--port 0 takes any port that is free",
        ) from exc
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of an answer is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_S
    server_version = "tdisp-harness"
    sys_version = ""

    def __init__(self, site: Site, request: socket.socket, address: object, server: object) -> None:
        self._site = site
        super().__init__(request, address, server)  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        """The terminal is for the user, not for requests."""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        answer = self._found()
        with contextlib.ExitStack() as stack:
            stream = None
            if isinstance(answer.body, Path):
                try:
                    stream = stack.enter_context(answer.body.open("rb"))
                    size = os.fstat(stream.fileno()).st_size
                except OSError:
                    answer, size = NOT_FOUND, len(NOT_FOUND.body)  # type: ignore[arg-type]
            else:
                size = len(answer.body)
            self.send_response(answer.status)
            headers = {
                "Content-Type": answer.kind,
                "Content-Length": str(size),
                "Content-Security-Policy": answer.policy,
                **({"Location": answer.location} if answer.location else {}),
                **_HEADERS,
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body and stream is not None:
                self._send(stream, size)
            elif with_body and isinstance(answer.body, bytes):
                self.wfile.write(answer.body)

    def _send(self, stream: BinaryIO, left: int) -> None:
        """What the file held when its size was told; it may be growing."""
        while left > 0 and (block := stream.read(min(_BLOCK_BYTES, left))):
            self.wfile.write(block)
            left -= len(block)

    def _found(self) -> Answer:
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            return Answer(b"this server answers to its own name only\n", status=403)
        try:
            path = unquote(urlsplit(self.path).path, errors="strict")
        except ValueError:
            return NOT_FOUND
        return self._site(path)
