# SPDX-License-Identifier: GPL-2.0-only
"""A kernel log that is read several times from its start: each line is taken once."""

from __future__ import annotations

import pytest

from harness.core.kernel_log import KernelLog

LOG = (
    b"[    0.000000] Linux version 7.3\n"
    b"[    1.000001] one\n"
    b"[    1.000002] two\n"
    b"              goes on\n"
    b"[    1.000002] two\n"
    b"[    1.000002] three\n"
    b"[    1.000001] overtaken\n"
    b"[   12.000000] four\n"
)


def read(log: KernelLog, data: bytes, boot: bytes = b"b1") -> bytes:
    log.begin()
    data = boot + b"\n" + data
    return b"".join(log.feed(data[at : at + 7]) for at in range(0, len(data), 7))


def test_the_first_reading_is_the_whole_log() -> None:
    assert read(KernelLog(), LOG) == LOG


@pytest.mark.parametrize("cut", range(len(LOG) + 1))
def test_two_readings_give_the_log_once(cut: int) -> None:
    log = KernelLog()
    first = read(log, LOG[:cut])
    assert LOG[:cut].startswith(first)
    assert first + read(log, LOG) == LOG
    assert read(log, LOG) == b""
    assert read(log, LOG + b"[   13.000000] five\n") == b"[   13.000000] five\n"


def test_what_the_kernel_has_forgotten_meanwhile_changes_nothing() -> None:
    log = KernelLog()
    read(log, LOG)
    later = b"[   13.000000] five\n"
    assert read(log, LOG[60:] + later) == later
    assert read(log, b"[   99.000000] six\n") == b"[   99.000000] six\n"


def test_another_boot_is_another_log() -> None:
    log = KernelLog()
    read(log, LOG)
    assert read(log, LOG, b"b2") == LOG
    assert read(log, LOG, b"b2") == b""


def test_a_reading_that_was_cut_off_before_the_log() -> None:
    log = KernelLog()
    log.begin()
    assert log.feed(b"b") == b""
    assert read(log, LOG) == LOG
    log = KernelLog()
    assert read(log, b"") == b""
    assert read(log, LOG) == LOG
