# SPDX-License-Identifier: GPL-2.0-only
"""Cleaning and bounding of console text."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x1bcy", "xy"),
        ("a\x00b", "a<U+0000>b"),
        ("\u202etxt.exe", "<U+202E>txt.exe"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\ud800", "<U+D800>"),
        ("\x1b", "<U+001B>"),
        ("tab\té漢🦀", "tab\té漢🦀"),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned


@given(st.text(st.characters()))
def test_cleaned_text_is_xml(raw: str) -> None:
    element = ElementTree.Element("x")
    element.text = text.clean(raw)
    again = ElementTree.fromstring(ElementTree.tostring(element))
    assert (again.text or "") == text.clean(raw)


def test_clean_of_an_unterminated_string_keeps_the_rest() -> None:
    assert "important" in text.clean("\x1b]0;" + "x" * 10_000 + " important")


def test_one_line() -> None:
    assert text.one_line(" a\n\tb ") == "a b"
    assert len(text.one_line("x" * 10_000, 50)) == 50
    assert text.one_line("x" * 10_000, 50).endswith("…")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (65, "1 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


def test_clip_keeps_both_ends() -> None:
    whole = "\n".join(f"line {i}" for i in range(1000))
    clipped = text.clip(whole, 1000)
    assert clipped.text.startswith("line 0\n")
    assert clipped.text.endswith("line 999")
    assert "left out" in clipped.note
    assert len(clipped.text) < 1200
    assert text.clip(whole, 100_000) == text.Excerpt(whole)


def test_read_log_caps_a_large_log(tmp_path: Path) -> None:
    (tmp_path / "big.log").write_bytes(b"first\n" + b"x\n" * 500_000 + b"last\n")
    excerpt = text.read_log(tmp_path, "big.log", 64 * 1024)
    assert excerpt.text.startswith("first\n")
    assert excerpt.text.endswith("last\n")
    assert "big.log" in excerpt.text
    assert "of 1,000,011 bytes left out" in excerpt.note
    assert len(excerpt.text) < 66 * 1024


def test_read_log_of_a_small_log(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"\xff ok\n")
    assert text.read_log(tmp_path, "a.log", 100) == text.Excerpt("\ufffd ok\n")


@pytest.mark.parametrize(
    "name", ["", "absent.log", "../secret", "/etc/passwd", "link", "a\0b", "."]
)
def test_read_log_reads_nothing_else(name: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (tmp_path / "secret").write_text("secret")
    (run_dir / "link").symlink_to(tmp_path / "secret")
    excerpt = text.read_log(run_dir, name, 1000)
    assert excerpt.text == ""
    assert excerpt.note
