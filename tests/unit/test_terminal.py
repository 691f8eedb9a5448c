# SPDX-License-Identifier: GPL-2.0-only
"""Progress: a status line on a terminal, elsewhere plain lines, few of them."""

from __future__ import annotations

import io
import os

import pytest

from harness.terminal import TerminalProgress, duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_status_line_and_keeps_what_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock, stream = Clock(), Terminal()
    progress = TerminalProgress(stream, clock)
    progress.stage("build [guest]")
    for done in range(50):
        clock.now += 1.0
        progress.count(done, 100, "objects")
    progress.say("a warning")
    progress.stage("boot")
    progress.close()
    said = stream.getvalue()
    assert "build [guest]: 49 of about 100 objects, 51.0 s left" in said
    for kept in ("a warning", "build [guest] (50.0 s)", "boot (0.0 s)"):
        assert f"[   50.0] {kept}\n" in said


def test_plain_lines_with_time_and_without_control_characters() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = TerminalProgress(stream, clock)
    progress.stage("build guest")
    for done in range(0, 1000, 10):
        clock.now += 1.0
        progress.count(done, 1000, "objects")
    progress.say("[not markup]")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[    0.0] build guest"
    assert lines[-1] == "[  100.0] [not markup]"
    assert 5 <= len(lines) <= 10, "one line in 15 s, not one per object"
    assert "of about 1000 objects" in lines[2]
    assert lines[2].endswith("left")
    assert "\x1b" not in stream.getvalue()


def test_time_left_counts_from_the_start_of_its_stage() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = TerminalProgress(stream, clock)
    for role in ("host", "guest"):
        progress.stage(f"build {role}")
        for done in range(0, 1000, 10):
            clock.now += 1.0
            progress.count(done, 1000, "objects")
    progress.close()
    said = [line.split("]")[1].partition(": ")[2] for line in stream.getvalue().splitlines()]
    host, guest = said[1:7], said[8:14]
    assert len(host) == 6
    assert guest == host


def test_time_left_of_tests_whatever_is_said_of_the_one_that_runs() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = TerminalProgress(stream, clock)
    progress.stage("kselftests")
    for done in range(20):
        progress.count(done, 20, f"tests done, now guest:tsm:test{done}")
        clock.now += 10.0
    said = stream.getvalue().splitlines()
    assert said[-1].endswith("18 of about 20 tests done, now guest:tsm:test18, 20.0 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (185, "3 min 05 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_that_nobody_reads_any_more_ends_no_run() -> None:
    """rich would end the program with 1, which says that a test failed."""
    reader, writer = os.pipe()
    with open(writer, "w", buffering=1) as stream:  # noqa: PTH123
        progress = TerminalProgress(stream, Clock())
        os.close(reader)
        progress.stage("build guest")
        progress.say("built")
        progress.close()
