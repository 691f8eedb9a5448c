# SPDX-License-Identifier: GPL-2.0-only
"""Golden KTAP texts: real output of runner.sh and its tests, and every odd form met so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.ktap import parse, to_json

DATA = Path(__file__).parent / "data" / "ktap"
TEXTS = sorted(DATA.glob("*.ktap"))


def test_there_are_golden_texts_and_no_stale_answers() -> None:
    assert len(TEXTS) >= 12
    assert {text.stem for text in TEXTS} == {answer.stem for answer in DATA.glob("*.json")}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_golden(text: Path, golden: Callable[[Path, Any], None]) -> None:
    golden(text.with_suffix(".json"), to_json(parse(text.read_bytes())))
