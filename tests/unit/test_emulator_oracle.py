# SPDX-License-Identifier: GPL-2.0-only
"""The oracle's verdict on an event log file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.emulator import oracle
from harness.emulator.judge import Knobs
from harness.emulator.words import Command, Model, Reason
from harness.errors import InfraError
from tests.unit.emulator_rig import Rig

SHARED = 0x400000
LINE = b'{"t":1,"event":"flr","function":"tdi0"}\n'
END = b'{"t":2,"event":"stop"}\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "platform.jsonl"


def rig_with(log: Path) -> Rig:
    rig = Rig(Knobs(Model.A), log)
    rig.share(SHARED, 16)
    return rig


def test_clean_and_unclean(log: Path) -> None:
    rig = rig_with(log)
    rig.write(SHARED, 8192)
    verdict = oracle.judge(oracle.read(log))
    assert verdict.clean
    assert (verdict.tlps_ok, verdict.tlps_blocked) == (2, 0)
    rig.write(0x9000)
    verdict = oracle.judge(oracle.read(log))
    assert not verdict.clean
    assert [record["reason"] for record in verdict.unannounced] == ["private-page"]
    rig.close()


def test_announced_faults_are_clean_and_missing_ones_are_not(log: Path) -> None:
    rig = rig_with(log)
    rig.command(Command.ANNOUNCE, Reason.PRIVATE_PAGE, 2)
    rig.write(0x9000)
    assert oracle.judge(oracle.read(log)).missing == (
        {"tdi": 0, "reason": "private-page", "count": 1},
    )
    rig.write(0x9000)
    assert oracle.judge(oracle.read(log)).clean
    rig.command(Command.ANNOUNCE, Reason.ANY, 1)
    rig.command(Command.CHECK)
    verdict = oracle.judge(oracle.read(log))
    assert [missing["reason"] for missing in verdict.missing] == ["any"]
    rig.close()


def test_another_platform_knows_of_no_announcement() -> None:
    """The platforms of a run share a log: a check of the second one says nothing of the first."""
    announced = {"t": 0.0, "event": "announce", "tdi": 0, "reason": "tdi-state", "count": 1}
    start = {"t": 1.0, "event": "start"}
    came = {
        "t": 2.0, "event": "tlp", "tdi": 0, "reason": "tdi-state", "verdict": "blocked",
        "announced": True,
    }  # fmt: skip
    check = {"t": 3.0, "event": "check", "missing": []}
    wanted = ({"tdi": 0, "reason": "tdi-state", "count": 1},)
    assert oracle.judge([announced, start, check]).missing == wanted
    assert oracle.judge([announced, start, announced, came, check]).missing == wanted


def test_a_window_of_time() -> None:
    records = [
        {"t": float(at), "event": "tlp", "verdict": "blocked", "reason": "tdi-state", "tdi": 0,
         "tlps": 1, "announced": False}
        for at in range(5)
    ]  # fmt: skip
    assert oracle.judge(records, since=1, until=3).tlps_blocked == 2


def test_a_torn_last_line_and_a_broken_one(log: Path) -> None:
    rig = rig_with(log)
    rig.write(SHARED)
    rig.close()
    whole = len(oracle.read(log))
    log.write_bytes(log.read_bytes() + b'{"t":1,"event":"tl')
    assert len(oracle.read(log)) == whole
    log.write_bytes(log.read_bytes() + b"\n")
    with pytest.raises(InfraError, match="not JSON"):
        oracle.read(log)
    log.write_text("[]\n")
    with pytest.raises(InfraError, match="not an event record"):
        oracle.read(log)
    with pytest.raises(InfraError):
        oracle.read(log.parent / "missing")


def test_a_log_is_followed_record_by_record(log: Path) -> None:
    tail = oracle.Tail(log)
    log.write_bytes(LINE + b'{"t":2,"eve')
    assert [record["t"] for record in tail.read()] == [1]
    assert not tail.lost, "the other half may still come"
    log.write_bytes(log.read_bytes() + b'nt":"stop"}\n' + LINE)
    assert [record["event"] for record in tail.read()] == ["stop", "flr"]
    assert list(tail.read(over=True)) == []
    assert not tail.lost


def test_a_record_that_cannot_be_read_is_told_once_and_hides_no_other(log: Path) -> None:
    tail = oracle.Tail(log)
    log.write_bytes(LINE + b"not JSON\n" + LINE)
    assert len(list(tail.read())) == 2
    assert tail.lost.startswith(f"byte {len(LINE)}: not JSON")
    assert list(tail.read()) == []
    assert not tail.lost


@pytest.mark.parametrize("kept", [0, 1, 10, len(LINE)])
@pytest.mark.parametrize("added", [0, 1, 5])
def test_a_log_that_was_cut_is_noticed(log: Path, kept: int, added: int) -> None:
    """Also when it has grown beyond what was read since."""
    tail = oracle.Tail(log)
    log.write_bytes(LINE + LINE + END)
    list(tail.read())
    log.write_bytes((LINE + LINE + END)[:kept] + LINE * added)
    assert list(tail.read()) == []
    assert tail.lost == "was cut or replaced"
    log.write_bytes(log.read_bytes() + END)
    assert [record["event"] for record in tail.read()] == ["stop"]
    assert not tail.lost, "told once"


def test_half_a_record_does_not_swallow_the_next_one(log: Path) -> None:
    """A platform that ran into a full disk, and the one after it."""
    tail = oracle.Tail(log)
    log.write_bytes(LINE + LINE[:9])
    assert len(list(tail.read(over=True))) == 1
    assert tail.lost == f"byte {len(LINE)}: half a record"
    rig_with(log).close()
    assert list(tail.read())
    assert not tail.lost
    rig_with(log).close()
    assert b"\n\n" not in log.read_bytes()


def test_every_line_is_flushed_at_once(log: Path) -> None:
    rig = rig_with(log)
    for count in range(1, 4):
        rig.write(SHARED)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert sum(line["event"] == "tlp" for line in lines) == count
        assert lines[-1] == rig.log.recent[-1]
    rig.close()
