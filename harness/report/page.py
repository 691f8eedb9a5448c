# SPDX-License-Identifier: GPL-2.0-only
"""What all pages share: the template environment, their one script, the policy that admits it."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from harness.report import timeline
from harness.report.text import clean, duration, moment, one_line, plural


def environment(filters: dict[str, Callable[..., Any]]) -> jinja2.Environment:
    """Templates whose every value is cleaned and escaped on its way out."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value is cleaned on its way out, so no template line can forget it.
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    made.filters.update(
        duration=duration,
        moment=moment,
        one_line=one_line,
        plural=plural,
        tone=timeline.tone,
        **filters,
    )
    return made


def script(name: str) -> Markup:
    """A script of ours (templates/<name>), as it stands between its tags."""
    return Markup(_text(name))


def policy(name: str, *, connect: bool = False) -> str:
    """The Content-Security-Policy of a page with the script `name` and nothing else.

    The script is admitted by its hash (CSP level 2), so nothing that a log holds can ever run.
    connect: it may speak to the server that it came from.
    """
    digest = base64.b64encode(hashlib.sha256(_text(name).encode()).digest()).decode()
    parts = [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "form-action 'none'",
        "base-uri 'none'",
    ]
    return "; ".join([*parts, *(["connect-src 'self'"] if connect else [])])


@functools.cache
def _text(name: str) -> str:
    file = resources.files("harness.report").joinpath("templates", name)
    return file.read_text(encoding="utf-8")
