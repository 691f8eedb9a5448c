# SPDX-License-Identifier: GPL-2.0-only
"""Which test a splat belongs to; taint bits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.attribution import (
    attribute,
    begin_marker,
    describe_taint,
    end_marker,
    grave_taint,
    taint_delta,
)
from harness.core.splat import find_splats, load_rules

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data" / "splat"
RULES = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))
TOKEN = "a secret of the run"


def warning(function: str) -> str:
    return f"WARNING: a.c:1 at {function}+0x1/0x2, CPU#0: x/1"


def owners(*messages: str) -> list[tuple[str, str]]:
    """(guilty function, test) of each splat of a console that printed these messages."""
    console = "".join(f"[    1.{n:06d}] {text}\n" for n, text in enumerate(messages)).encode()
    found = attribute(console, find_splats(console, RULES), TOKEN)
    return [(splat.frame, test) for splat, test in found]


def test_before_between_and_after() -> None:
    assert owners(
        warning("early"),
        begin_marker("guest:tsm:a", TOKEN),
        warning("in_a"),
        end_marker("guest:tsm:a", TOKEN),
        warning("between"),
        begin_marker("guest:tsm:b", TOKEN),
        warning("in_b"),
        warning("in_b_too"),
        end_marker("guest:tsm:b", TOKEN),
        warning("after"),
    ) == [
        ("early", ""),
        ("in_a", "guest:tsm:a"),
        ("between", ""),
        ("in_b", "guest:tsm:b"),
        ("in_b_too", "guest:tsm:b"),
        ("after", ""),
    ]


def test_golden_log_of_a_real_machine() -> None:
    """The markers went through /dev/kmsg of a real kernel."""
    data = (DATA / "null-two-tasks.log").read_bytes()
    found = attribute(data, find_splats(data, RULES), "golden-token")
    assert [test for _, test in found] == ["guest:tsm:two", "guest:tsm:two"]
    assert [test for _, test in attribute(data, find_splats(data, RULES), "other")] == ["", ""]


def test_forged_markers_do_not_count() -> None:
    assert owners(
        begin_marker("guest:tsm:a", TOKEN),
        end_marker("guest:tsm:a", "guessed"),
        begin_marker("guest:tsm:innocent", "guessed"),
        "tdisp-harness: end guest:tsm:a 0 000000000000",
        begin_marker("guest:tsm:a", TOKEN).replace("begin", "end"),
        begin_marker("guest:tsm:a", TOKEN).replace(":a", ":b"),
        warning("culprit"),
    ) == [("culprit", "guest:tsm:a")]


def test_a_replayed_begin_does_not_count() -> None:
    first = begin_marker("guest:tsm:a", TOKEN)
    assert owners(
        first,
        end_marker("guest:tsm:a", TOKEN),
        begin_marker("guest:tsm:b", TOKEN),
        first,
        end_marker("guest:tsm:a", TOKEN),
        warning("culprit"),
    ) == [("culprit", "guest:tsm:b")]


def test_each_attempt_has_its_own_marker() -> None:
    assert owners(
        begin_marker("guest:tsm:a", TOKEN, 1),
        end_marker("guest:tsm:a", TOKEN, 1),
        begin_marker("guest:tsm:a", TOKEN, 2),
        warning("again"),
    ) == [("again", "guest:tsm:a")]


def test_a_test_that_was_cut_off_ends_with_the_next() -> None:
    assert owners(
        begin_marker("guest:tsm:a", TOKEN),
        warning("first"),
        begin_marker("guest:tsm:b", TOKEN),
        warning("second"),
    ) == [("first", "guest:tsm:a"), ("second", "guest:tsm:b")]


def test_a_reboot_ends_the_test() -> None:
    assert owners(
        begin_marker("guest:tsm:a", TOKEN),
        warning("first"),
        "Linux version 7.3.4-tdisp (tdisp@harness) #1 SMP",
        warning("at_boot"),
    ) == [("first", "guest:tsm:a"), ("at_boot", "")]


def test_a_marker_after_unfinished_output_counts() -> None:
    console = f"dots....[    1.000000] {begin_marker('k:t', TOKEN)}\n{warning('f')}\n".encode()
    ((_, test),) = attribute(console, find_splats(console, RULES), TOKEN)
    assert test == "k:t"


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "ünï", "", "x" * 1000])
def test_a_marker_is_one_printable_line(key: str) -> None:
    text = begin_marker(key, TOKEN)
    assert re.fullmatch(r"tdisp-harness: begin [\x21-\x7e]+ 0 [0-9a-f]{12}", text)
    assert len(text) < 320
    assert owners(text, warning("f"))[0][1]
    assert TOKEN not in text


def test_no_splats() -> None:
    assert attribute(b"", (), TOKEN) == ()


def test_taint() -> None:
    assert describe_taint(0) == ()
    assert describe_taint(512 | 128) == (
        "D (bit 7): kernel died recently, i.e. there was an OOPS or BUG",
        "W (bit 9): kernel issued warning",
    )
    assert describe_taint(1 << 19)[0].startswith("J (bit 19): ")
    assert describe_taint(1 << 25) == ("bit 25: unknown to this harness",)
    assert describe_taint(-1) == ()


def test_taint_delta() -> None:
    assert taint_delta(4096, 4096) == ()
    assert taint_delta(4096, 4096 | 512) == ("W (bit 9): kernel issued warning",)
    assert taint_delta(512, 0) == ()


def test_taint_that_a_kernel_at_fault_gives_itself() -> None:
    warn, module, oops = 1 << 9, 1 << 12, 1 << 7
    assert grave_taint(0, module) == ()
    assert grave_taint(warn, warn | module) == ()
    assert grave_taint(module, module | warn) == ("W (bit 9): kernel issued warning",)
    assert len(grave_taint(0, warn | oops)) == 2
