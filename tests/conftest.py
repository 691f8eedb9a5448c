# SPDX-License-Identifier: GPL-2.0-only
"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Golden = Callable[[Path, Any], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden files with what the code gives"
    )


def pytest_configure() -> None:
    # a shell starts what it puts in the background with SIGINT ignored, and that is inherited:
    # the tests of Ctrl-C would wait for what cannot come
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """golden(path, value): value equals the golden file (.json: as JSON, else as text).

    With --update-golden the file is written instead, and the test is skipped rather than
    passed: somebody has to read the difference.
    """

    def compare(path: Path, value: Any) -> None:
        if path.suffix == ".json":
            text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        else:
            text = str(value)
        if request.config.getoption("--update-golden"):
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                pytest.skip(f"golden file {path.name} rewritten")
            return
        if not path.exists():
            pytest.fail(f"{path}: no golden file\nhint: pytest --update-golden writes it")
        assert text == path.read_text(encoding="utf-8")

    return compare
