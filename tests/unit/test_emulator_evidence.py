# SPDX-License-Identifier: GPL-2.0-only
"""Evidence: good evidence is accepted, and each kind of bad evidence is refused for its reason."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.emulator.evidence import (
    Claims,
    Device,
    EvidenceError,
    Statement,
    interface_report,
    split_chain,
    verify,
)
from harness.emulator.judge import Knobs
from harness.emulator.words import Command, Injection, Model, Result, TdiState
from tests.unit.emulator_rig import RAM_BYTES, Rig

CHAIN, MEASUREMENTS, REPORT = 0, 1, 2
BUFFER, NONCE_AT = 0x200000, 0x300000
NONCE = bytes(range(32))


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Knobs(Model.N))
    rig.poke(NONCE_AT, NONCE)
    yield rig
    rig.close()


@dataclass(frozen=True)
class Evidence:
    statement: bytes
    chain: bytes
    report: bytes
    root: bytes

    def check(self, nonce: bytes = NONCE) -> Statement:
        return verify(self.statement, self.chain, self.root, nonce, self.report)


def fetch(rig: Rig, kind: int, nonce_len: int = 32) -> bytes:
    args = (kind, BUFFER, 0x10000, NONCE_AT, nonce_len)
    result, outs = rig.command(Command.EVIDENCE, *args)
    assert result is Result.OK
    return rig.peek(BUFFER, outs[0])


def collect(rig: Rig) -> Evidence:
    """As a guest does. Injections hit the measurements first, then the chain."""
    statement = fetch(rig, MEASUREMENTS)
    chain = fetch(rig, CHAIN)
    return Evidence(statement, chain, fetch(rig, REPORT), rig.platform.device.root_der())


def test_good_evidence(rig: Rig) -> None:
    rig.command(Command.LOCK)
    rig.command(Command.UNLOCK)
    rig.command(Command.LOCK)
    statement = collect(rig).check()
    assert statement.generation == 2
    assert statement.state is TdiState.LOCKED
    assert statement.interface_id == 0
    assert set(statement.measurements) == {1, 2, 3}


def test_the_report_fits_into_no_page(rig: Rig) -> None:
    """So the guest has to ask again with a larger buffer, and to tell it in several messages."""
    rig.command(Command.LOCK)
    result, outs = rig.command(Command.EVIDENCE, REPORT, BUFFER, 4096, NONCE_AT, 32)
    assert result is Result.TOO_SMALL
    assert outs[0] == len(fetch(rig, REPORT))
    (specific,) = struct.unpack_from("<I", fetch(rig, REPORT), 32)
    assert 36 + specific == outs[0]


@pytest.mark.parametrize("length", [0, 1, 16, 32])
def test_nonces_of_all_lengths(rig: Rig, length: int) -> None:
    rig.command(Command.LOCK)
    statement = fetch(rig, MEASUREMENTS, length)
    chain, report = fetch(rig, CHAIN), fetch(rig, REPORT)
    root = rig.platform.device.root_der()
    assert verify(statement, chain, root, NONCE[:length], report).nonce == NONCE[:length]


@pytest.mark.parametrize(
    ("injection", "count", "message"),
    [
        (Injection.WRONG_KEY, 1, "bad signature"),
        (Injection.WRONG_NONCE, 1, "nonce differs"),
        (Injection.WRONG_MEASUREMENT, 1, "measurement differs"),
        (Injection.WRONG_CHAIN, 2, "certificate chain"),
    ],
)
def test_wrong_evidence(rig: Rig, injection: Injection, count: int, message: str) -> None:
    rig.command(Command.LOCK)
    rig.command(Command.INJECT, Command.EVIDENCE, injection, 0, count)
    with pytest.raises(EvidenceError, match=message):
        collect(rig).check()
    assert collect(rig).check(), "only the injected ones are wrong"


def test_another_devices_evidence(rig: Rig) -> None:
    rig.command(Command.LOCK)
    mine, other = collect(rig), Device()
    with pytest.raises(EvidenceError, match="trusted root"):
        verify(mine.statement, mine.chain, other.root_der(), NONCE, mine.report)
    foreign = other.statement(Claims(0, TdiState.LOCKED, 1, NONCE, mine.report))
    with pytest.raises(EvidenceError, match="bad signature"):
        verify(foreign, mine.chain, mine.root, NONCE, mine.report)


def test_replayed_and_tampered(rig: Rig) -> None:
    rig.command(Command.LOCK)
    good = collect(rig)
    with pytest.raises(EvidenceError, match="nonce"):
        good.check(bytes(32))
    with pytest.raises(EvidenceError, match="interface report"):
        verify(good.statement, good.chain, good.root, NONCE, interface_report(1, 0))
    for at in (8, 60, len(good.statement) - 1):
        broken = bytearray(good.statement)
        broken[at] ^= 1
        with pytest.raises(EvidenceError, match="signature"):
            verify(bytes(broken), good.chain, good.root, NONCE, good.report)
    for cut in (0, 10, 200):
        with pytest.raises(EvidenceError):
            verify(good.statement[:cut], good.chain, good.root, NONCE, good.report)


@pytest.mark.parametrize("chain", [b"", b"\x31\x00", b"\x30\x82\xff\xff", b"\x30\x03abc"])
def test_chains_that_are_none(rig: Rig, chain: bytes) -> None:
    with pytest.raises(EvidenceError, match="certificate chain"):
        verify(b"", chain, rig.platform.device.root_der(), NONCE, b"")


def test_chain_is_root_then_device(rig: Rig) -> None:
    root, leaf = split_chain(rig.platform.device.chain())
    assert root == rig.platform.device.root_der()
    assert leaf != root


@pytest.mark.parametrize(
    ("args", "result"),
    [
        ((MEASUREMENTS, BUFFER, 0x1000, NONCE_AT, 33), Result.BAD_ARGUMENT),
        ((MEASUREMENTS, BUFFER, 0x1000, RAM_BYTES - 8, 32), Result.BAD_ADDRESS),
        ((MEASUREMENTS, RAM_BYTES - 8, 0x1000, NONCE_AT, 32), Result.BAD_ADDRESS),
        ((MEASUREMENTS, BUFFER, 10, NONCE_AT, 32), Result.TOO_SMALL),
        ((3, BUFFER, 0x1000, NONCE_AT, 32), Result.BAD_ARGUMENT),
        ((REPORT, BUFFER, 0x1000, 0, 0), Result.INVALID_STATE),  # UNLOCKED: there is no report
    ],
)
def test_refused_requests(rig: Rig, args: tuple[int, ...], result: Result) -> None:
    rig.poke(BUFFER, b"\xa5" * 64)
    got, outs = rig.command(Command.EVIDENCE, *args)
    assert got is result
    assert rig.peek(BUFFER, 64) == b"\xa5" * 64
    if result is Result.TOO_SMALL:
        assert outs[0] == len(fetch(rig, MEASUREMENTS))


def test_no_evidence_without_a_session() -> None:
    rig = Rig(Knobs(Model.N), autobind=False)
    assert rig.command(Command.EVIDENCE, CHAIN, BUFFER, 0x1000)[0] is Result.NOT_CONNECTED
    rig.close()
