# SPDX-License-Identifier: GPL-2.0-only
"""A program that answers lines, over a real sshd on loopback."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from harness.adapters.dialogue import Dialogue
from harness.adapters.ssh import SshConnection
from harness.errors import MachineError
from tests.integration.loopback_sshd import LoopbackSshd

ECHO = "echo hello; while read -r line; do echo \"got $line\"; done; touch '{}'"


def test_each_line_gets_its_answer(ssh: SshConnection, tmp_path: Path) -> None:
    end = tmp_path / "ended"
    dialogue = Dialogue(ssh, ECHO.format(end))
    assert dialogue.read_line(10) == "hello"
    assert [dialogue.ask(f"line {n}", 10) for n in range(3)] == [f"got line {n}" for n in range(3)]
    dialogue.close()
    assert end.exists(), "the program saw the end of its input"
    dialogue.close()


def test_two_answers_in_one_piece_are_kept_apart(ssh: SshConnection) -> None:
    dialogue = Dialogue(ssh, "printf 'one\\ntwo\\n'; cat > /dev/null")
    assert (dialogue.read_line(10), dialogue.read_line(10)) == ("one", "two")
    dialogue.close()


def test_no_answer_is_told_with_the_question(ssh: SshConnection) -> None:
    dialogue = Dialogue(ssh, "cat > /dev/null")
    begin = time.monotonic()
    with pytest.raises(MachineError, match="no answer to `state` in 1 s"):
        dialogue.ask("state", 1)
    assert time.monotonic() - begin < 5
    dialogue.close()


def test_a_program_that_ended_is_told(ssh: SshConnection) -> None:
    dialogue = Dialogue(ssh, "read -r line; echo 'half an ans'; exec true")
    assert dialogue.ask("x", 10) == "half an ans"
    with pytest.raises(MachineError, match=r"ended without an answer|does not read"):
        dialogue.ask("y", 10)
    dialogue.close()


def test_a_flood_without_a_line_end_is_cut_off(ssh: SshConnection) -> None:
    dialogue = Dialogue(ssh, "exec tr '\\0' x < /dev/zero")
    with pytest.raises(MachineError, match="ended without an answer"):
        dialogue.read_line(20)
    dialogue.close()


def test_a_lost_connection_is_told(sshd: LoopbackSshd, ssh: SshConnection) -> None:
    dialogue = Dialogue(ssh, "cat > /dev/null")
    sshd.cut()
    with pytest.raises(MachineError):
        dialogue.ask("state", 5)
    with contextlib.suppress(MachineError):
        dialogue.ask("again", 1)
    dialogue.close()
