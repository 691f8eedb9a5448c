# SPDX-License-Identifier: GPL-2.0-only
"""The TDI's registers: transfers, bad descriptors, interrupts, announcements, garbage."""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Iterator

import pytest

from harness.emulator import mailbox, tdi_function
from harness.emulator.dma_engine import MAX_LENGTH, Operation, Status
from harness.emulator.function import BAR_BYTES
from harness.emulator.interrupts import MSIX
from harness.emulator.judge import Knobs
from harness.emulator.words import ALL_ONES, Command, Model, Reason, Result
from tests.unit.emulator_rig import RAM_BYTES, Rig, u32

SHARED = 0x400000


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Knobs(Model.N))
    rig.share(SHARED, 1024)
    yield rig
    rig.close()


def test_operations(rig: Rig) -> None:
    data = random.Random(1).randbytes(9000)
    rig.poke(SHARED + 100, data)
    function = rig.platform.tdi_functions[0]
    assert rig.dma(Operation.READ, SHARED + 100, 9000) == (Status.DONE, 0, 9000)
    assert u32(function, tdi_function.CRC) == zlib.crc32(data)
    assert function.bar_read(tdi_function.BUFFER, 4096) == data[:4096]
    assert rig.dma(Operation.COPY, SHARED + 100, 9000, target=SHARED + 0x10001)[2] == 9000
    assert rig.peek(SHARED + 0x10001, 9000) == data
    function.bar_write(tdi_function.BUFFER, b"hello")
    rig.dma(Operation.WRITE_BUFFER, SHARED, 5)
    assert rig.peek(SHARED, 6) == b"hello" + rig.peek(SHARED + 5, 1)
    rig.write(SHARED, 11, pattern=0x0807060504030201)
    assert rig.peek(SHARED, 11) == bytes([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3])


def test_a_long_transfer_goes_in_slices(rig: Rig) -> None:
    function = rig.platform.tdi_functions[0]
    function.bar_write(tdi_function.FLAGS, struct.pack("<I", Operation.WRITE << 4))
    function.bar_write(tdi_function.IOVA, struct.pack("<4Q", SHARED, 0, 4 << 20, 1))
    function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 1))
    assert u32(function, tdi_function.STATUS) == Status.BUSY
    assert u32(function, tdi_function.DONE) == 1 << 20
    function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 1))  # ignored while busy
    rig.platform.step()
    assert u32(function, tdi_function.DONE) == 2 << 20
    function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 2))
    assert u32(function, tdi_function.REASON) == Reason.ABORTED
    assert not rig.platform.busy()
    assert rig.peek(SHARED + (2 << 20), 8) == bytes(8)


@pytest.mark.parametrize(
    ("operation", "iova", "length", "reason"),
    [
        (Operation.WRITE, SHARED, 0, Reason.BAD_LENGTH),
        (Operation.WRITE, SHARED, 1 << 32, Reason.BAD_LENGTH),
        (Operation.WRITE, SHARED, MAX_LENGTH + 1, Reason.BAD_LENGTH),
        (Operation.WRITE, SHARED, ALL_ONES, Reason.BAD_LENGTH),
        (Operation.WRITE_BUFFER, SHARED, 4097, Reason.BAD_LENGTH),
        (0, SHARED, 8, Reason.BAD_DESCRIPTOR),
        (15, SHARED, 8, Reason.BAD_DESCRIPTOR),
        (Operation.WRITE, ALL_ONES - 3, 8, Reason.IOVA_WRAP),
        (Operation.COPY, ALL_ONES, 4096, Reason.IOVA_WRAP),
        (Operation.WRITE, RAM_BYTES, 8, Reason.PRIVATE_PAGE),
        (Operation.WRITE, ALL_ONES - 7, 8, Reason.PRIVATE_PAGE),
    ],
)
def test_bad_descriptors_touch_nothing(
    rig: Rig, operation: int, iova: int, length: int, reason: Reason
) -> None:
    before = zlib.crc32(rig.peek(0, RAM_BYTES))
    assert rig.dma(operation, iova, length) == (Status.FAILED, reason, 0)
    assert zlib.crc32(rig.peek(0, RAM_BYTES)) == before
    assert not [event for event in rig.events("tlp") if event["verdict"] == "ok"]


def test_the_direction_of_a_transfer_that_is_wrong_as_a_whole(rig: Rig) -> None:
    for operation in (Operation.READ, Operation.WRITE, Operation.COPY):
        assert rig.dma(operation, ALL_ONES, 64)[1] == Reason.IOVA_WRAP
    rig.dma(Operation.COPY, SHARED, 64, target=ALL_ONES)
    assert [tlp["dir"] for tlp in rig.events("tlp")] == ["read", "write", "read", "write"]


def test_a_copy_to_a_bad_target(rig: Rig) -> None:
    status, reason, done = rig.dma(Operation.COPY, SHARED, 8192, target=SHARED - 4096)
    assert (status, reason, done) == (Status.FAILED, Reason.PRIVATE_PAGE, 0)
    assert rig.dma(Operation.COPY, SHARED, 64, target=ALL_ONES)[1] == Reason.IOVA_WRAP


def test_interrupts(rig: Rig) -> None:
    function = rig.platform.tdi_functions[0]
    rig.write(SHARED, vector=1)  # before MSI-X is set
    assert rig.events("irq")[-1]["lost"] == "no-msix"
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    function.interrupts.assign(MSIX, 1, os.dup(fd))
    rig.write(SHARED, vector=1)
    rig.write(SHARED, 0, vector=1)  # a failed transfer ends with an interrupt too
    assert os.eventfd_read(fd) == 2
    function.bar_write(tdi_function.RAISE, struct.pack("<I", 1))
    assert os.eventfd_read(fd) == 1
    function.bar_write(tdi_function.RAISE, struct.pack("<I", 200))
    rig.power(function, 2)  # an MSI is a memory write: none without bus mastering
    function.bar_write(tdi_function.RAISE, struct.pack("<I", 1))
    assert rig.events("irq")[-1]["lost"] == "bus-master-off"
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    os.close(fd)


def test_masked_interrupts_wait(rig: Rig) -> None:
    lines = rig.platform.guest_port.interrupts
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    lines.assign(MSIX, mailbox.VECTOR_STATE, os.dup(fd))
    lines.mask(MSIX, mailbox.VECTOR_STATE, True)
    rig.command(Command.LOCK)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    lines.mask(MSIX, mailbox.VECTOR_STATE, False)
    assert os.eventfd_read(fd) == 1
    rig.command(Command.SET_ERROR)
    assert os.eventfd_read(fd) == 1
    os.close(fd)


@pytest.mark.parametrize("leave", [Command.UNLOCK, Command.SET_ERROR])
def test_confidential_data_does_not_outlive_run(rig: Rig, leave: Command) -> None:
    rig.poke(0x800000, b"secret")
    rig.to_run(0, ALL_ONES)
    rig.dma(Operation.READ, 0x800000, 64, trusted=True)
    function = rig.platform.tdi_functions[0]
    assert function.bar_read(tdi_function.BUFFER, 6) == b"secret"
    rig.command(leave)
    assert function.bar_read(tdi_function.BUFFER, 6) == bytes(6)
    assert u32(function, tdi_function.DONE) == 64


def test_error_in_the_middle_of_a_transfer(rig: Rig) -> None:
    rig.to_run(0, ALL_ONES)
    function = rig.platform.tdi_functions[0]
    function.bar_write(tdi_function.FLAGS, struct.pack("<I", Operation.WRITE << 4 | 1))
    function.bar_write(tdi_function.IOVA, struct.pack("<4Q", 0x800000, 0, 4 << 20, 1))
    function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 1))
    rig.command(Command.SET_ERROR)
    assert u32(function, tdi_function.STATUS) == Status.FAILED
    assert not rig.platform.busy()
    assert rig.peek(0x800000 + (1 << 20), 8) == bytes(8)


def announce(rig: Rig, reason: int, count: int) -> None:
    function = rig.platform.tdi_functions[0]
    function.bar_write(tdi_function.ANNOUNCE, struct.pack("<I", reason | count << 8))


def test_announcements(rig: Rig) -> None:
    function = rig.platform.tdi_functions[0]
    announce(rig, Reason.PRIVATE_PAGE, 2)
    assert u32(function, tdi_function.PENDING) == 2
    rig.write(0x9000)
    assert rig.events("tlp")[-1]["announced"] is True
    rig.write(0x9000, trusted=True)  # another reason
    assert rig.events("tlp")[-1]["announced"] is False
    assert u32(function, tdi_function.UNANNOUNCED) == 1
    function.bar_write(tdi_function.CHECK, struct.pack("<I", 7))
    check = rig.events("check")[-1]
    assert check["unannounced"] == 1
    assert check["missing"] == [{"tdi": 0, "reason": "private-page", "count": 1}]
    assert u32(function, tdi_function.PENDING) == 0
    announce(rig, Reason.ANY, 1)
    rig.write(0x9000, trusted=True)
    assert rig.events("tlp")[-1]["announced"] is True
    announce(rig, Reason.TDI_STATE, 3)
    announce(rig, Reason.TDI_STATE, 0)
    assert rig.command(Command.CHECK)[1][:2] == (0, 0)
    announce(rig, 99, 1)  # no such reason
    assert u32(function, tdi_function.PENDING) == 0


def test_announcement_by_command(rig: Rig) -> None:
    assert rig.command(Command.ANNOUNCE, Reason.TDI_STATE, 1, tdi=1)[0] is Result.OK
    assert rig.command(Command.ANNOUNCE, 0, 1)[0] is Result.BAD_ARGUMENT
    assert rig.command(Command.ANNOUNCE, 77, 1)[0] is Result.BAD_ARGUMENT
    assert rig.command(Command.ANNOUNCE, Reason.TDI_STATE, 1, tdi=5)[0] is Result.BAD_TDI
    rig.write(0x9000, trusted=True, tdi=1)
    assert rig.command(Command.CHECK)[1][:2] == (0, 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("port_too", [False, True])
def test_a_driver_that_writes_garbage_everywhere(rig: Rig, seed: int, port_too: bool) -> None:
    """No register value breaks the platform. A TDI's own registers never open private memory."""
    dice = random.Random(seed)
    targets = rig.platform.functions if port_too else rig.platform.tdi_functions
    private = zlib.crc32(rig.peek(0x800000, RAM_BYTES - 0x800000))
    for _ in range(1500):
        function = dice.choice(list(targets))
        size = dice.choice([1, 2, 4, 8, 64])
        value = dice.choice([dice.randbytes(size), bytes(size), b"\xff" * size])
        if dice.random() < 0.2:
            function.config.write(dice.randrange(4096), value)
        else:
            top = 0x210 if dice.random() < 0.9 else BAR_BYTES
            function.bar_write(dice.randrange(top - size + 1), value)
        function.bar_read(dice.randrange(BAR_BYTES - 64), dice.choice([1, 2, 4, 8, 64]))
        function.config.read(dice.randrange(4096), dice.choice([1, 2, 4]))
        rig.platform.step()
    if not port_too:
        assert zlib.crc32(rig.peek(0x800000, RAM_BYTES - 0x800000)) == private
        assert rig.platform.pages.ranges() == [(SHARED, 1024)]
        assert not [e for e in rig.events("tlp") if e["verdict"] == "ok" and e["T"]]
    # and it still works
    for function in rig.platform.functions:
        function.conventional_reset()
        rig.power(function)
    rig.share(SHARED, 16)
    assert rig.write(SHARED)[1] == Reason.NONE


def test_garbage_into_every_register_one_by_one(rig: Rig) -> None:
    for function in rig.platform.functions:
        for offset in range(0, 0x210, 4):
            for value in (0, 1, 0xFFFFFFFF, 0x80000000):
                function.bar_write(offset, struct.pack("<I", value))
                function.bar_read(offset, 4)
    rig.platform.step()
    identification = rig.platform.tdi_functions[0].bar_read(0, 12)
    assert identification == b"TDID" + struct.pack("<II", 0x10000, 0)
