# SPDX-License-Identifier: GPL-2.0-only
"""Answers of kselftests/tsm/tdi_tool.c."""

from __future__ import annotations

import re
from typing import cast

import pytest

from harness.layout import KSELFTESTS
from harness.machines import tdi
from harness.machines.remote import RemoteMachine
from harness.machines.tdi import Answer, GuestTdi, NoTdiError, TdiRefusedError, parse_answer


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rc=0", Answer(0, {})),
        ("rc=-16", Answer(-16, {})),
        ("rc=0 slot=3 addr=0x1f000", Answer(0, {"slot": "3", "addr": "0x1f000"})),
        ("rc=0 bdf=0000:01:00.0 tsm=", Answer(0, {"bdf": "0000:01:00.0", "tsm": ""})),
        ("rc=-5 ret=-1", Answer(-5, {"ret": "-1"})),
        ("rc=-19 why=no such TDI", Answer(-19, {}, "no such TDI")),
        ("rc=-19 why=none", Answer(-19, {}, "none")),
        ("rc=-5 status=3 why=read at 0x1: x=1", Answer(-5, {"status": "3"}, "read at 0x1: x=1")),
    ],
)
def test_an_answer(line: str, expected: Answer) -> None:
    assert parse_answer(line) == expected


@pytest.mark.parametrize(
    "line", ["", "rc=", "rc=x", "0", "-bash: tdi_tool: not found", "rc=0 slot"]
)
def test_no_answer(line: str) -> None:
    assert parse_answer(line) is None


class Greeting:
    """A tool, and a machine, that say one line."""

    name, ssh = "guest", None

    def __init__(self, line: str) -> None:
        self.line, self.closed = line, False

    def read_line(self, _timeout_s: float) -> str:
        return self.line

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("rc=-19 why=no TDI of the emulated platform", NoTdiError),
        ("-bash: tdi_tool: not found", NoTdiError),
        ("rc=-5 why=there is a devsec TSM, and the TDI has no tsm/lock", TdiRefusedError),
    ],
)
def test_what_is_broken_is_no_reason_to_skip(
    line: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = Greeting(line)
    monkeypatch.setattr(tdi, "Dialogue", lambda *_: tool)
    with pytest.raises(error):
        GuestTdi(cast("RemoteMachine", tool))
    assert tool.closed


def test_numbers() -> None:
    answer = parse_answer("rc=0 addr=0x20 done=16")
    assert answer is not None
    assert (answer.number("addr"), answer.number("done"), answer["done"]) == (32, 16, "16")


def test_every_command_is_documented_in_the_tool() -> None:
    text = (KSELFTESTS / "tsm" / "tdi_tool.c").read_text()
    head, _, code = text.partition("#include")
    commands = set(re.findall(r'\{ "([\w-]+)", \d, cmd_', code))
    assert len(commands) > 10
    described = set(re.findall(r"^ \*\t([\w-]+(?: \| [\w-]+)*)", head, re.MULTILINE))
    words = {word for line in described for word in line.split(" | ")}
    assert commands <= words, commands - words
