# SPDX-License-Identifier: GPL-2.0-only
"""Showing reports to a person: a browser on one run, or a server for a folder of runs."""

from __future__ import annotations

import contextlib
import webbrowser
from collections.abc import Callable
from pathlib import Path

from harness.adapters import web
from harness.errors import UserError
from harness.report.site import RunsSite

DEFAULT_PORT = 8737


def open_report(page: Path) -> bool:
    """Open a page in the user's browser ($BROWSER or the desktop's); False when there is none."""
    try:
        return webbrowser.open(page.resolve().as_uri())
    except (webbrowser.Error, OSError):
        return False


def serve(runs: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve a folder of runs until Ctrl-C. UserError: no such folder, or the port is taken."""
    if not runs.is_dir():
        raise UserError(
            f"{runs}: no such directory", hint="name the folder of your runs with --runs-dir"
        )
    server = web.bind(_site(runs), port)
    with server:
        say(f"http://{web.ADDRESS}:{server.server_address[1]}/ shows {runs}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    say("ended")


def _site(runs: Path) -> web.Site:
    pages = RunsSite(runs)

    def answer(path: str) -> web.Answer:
        page = pages.page(path)
        if page is None:
            return web.NOT_FOUND
        if page.location:
            return web.Answer(b"", status=302, location=page.location)
        found = web.Answer(page.body, page.kind)
        return web.Answer(page.body, page.kind, policy=page.policy) if page.policy else found

    return answer
