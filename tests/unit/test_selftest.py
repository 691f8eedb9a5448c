# SPDX-License-Identifier: GPL-2.0-only
"""The command around a kselftest, run by a real shell against a fake kselftest tree."""

from __future__ import annotations

from harness.model.kernel import Role
from harness.model.plan import TestId
from harness.stages.selftest import _split_status, command

TEST = TestId(Role.GUEST, "tsm", "dma_freeze")


def test_the_status_line_is_taken_off_the_output() -> None:
    output = b"TAP version 13\n1..1\nok 1 a\n\ncafe status=1 taint=0,512\n"
    rest, status, taint = _split_status(output, "cafe")
    assert rest == b"TAP version 13\n1..1\nok 1 a\n"
    assert (status, taint) == (1, (0, 512))


def test_a_status_line_that_the_test_printed_is_no_status() -> None:
    output = b"deadbeef status=0 taint=0,0\n"
    assert _split_status(output, "cafe") == (output, None, (0, 0))


def test_an_output_cut_off_has_no_status() -> None:
    assert _split_status(b"ok 1 a\n", "cafe")[1] is None


def test_names_are_quoted_and_the_timeout_is_at_least_a_second() -> None:
    script = command(TestId(Role.GUEST, "tsm", "a b"), ("<m'>", "e"), "cafe", 0.2)
    assert "-o 1 -t 'tsm:a b'" in script
    assert "'<5><m'\"'\"'>'" in script


def test_the_secret_of_the_run_is_not_in_the_command() -> None:
    assert "token" not in command(TEST, ("begin", "end"), "cafe", 10)
