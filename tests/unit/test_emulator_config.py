# SPDX-License-Identifier: GPL-2.0-only
"""Configuration space: capabilities, masks, FLR, DOE."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from harness.emulator import config_space as cs
from harness.emulator import doe
from harness.emulator.dma_engine import Operation
from harness.emulator.judge import Knobs
from harness.emulator.words import Model, Reason, TdiState
from tests.unit.emulator_rig import Rig

DISCOVERY = (0x00000001, 3)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Knobs(Model.A))
    yield rig
    rig.close()


def config(rig: Rig, tdi: int = 0) -> cs.ConfigSpace:
    return rig.platform.tdi_functions[tdi].config


def get(space: cs.ConfigSpace, offset: int, count: int = 4) -> int:
    return int.from_bytes(space.read(offset, count), "little")


def put(space: cs.ConfigSpace, offset: int, value: int, count: int = 4) -> None:
    space.write(offset, value.to_bytes(count, "little"))


def capabilities(space: cs.ConfigSpace) -> dict[int, int]:
    found, at = {}, get(space, 0x34, 1)
    while at:
        found[get(space, at, 1)] = at
        at = get(space, at + 1, 1)
    return found


def extended(space: cs.ConfigSpace) -> dict[int, int]:
    found, at = {}, 0x100
    while at:
        header = get(space, at)
        found[header & 0xFFFF] = at
        at = header >> 20
    return found


def test_capabilities_of_a_tdi(rig: Rig) -> None:
    space = config(rig, 1)
    caps = capabilities(space)
    assert set(caps) == {0x10, 0x11}
    devcap = get(space, caps[0x10] + 4)
    assert devcap & 1 << 30, "TEE"
    assert devcap & 1 << 28, "FLR"
    assert get(space, caps[0x11] + 2, 2) & 0x7FF == 3
    ext = extended(space)
    assert set(ext) == {0x2E, 0x23, 0x30}
    assert get(space, ext[0x23] + 12) == 1, "the interface id"
    assert get(space, ext[0x30] + 4) & 1 << 1, "selective IDE streams"


def test_ports_are_no_tdis(rig: Rig) -> None:
    for port in (rig.platform.guest_port, rig.platform.host_port):
        assert not get(port.config, capabilities(port.config)[0x10] + 4) & 1 << 30
        assert get(port.config, 0x100) == 0


def test_bar_size_and_read_only_bits(rig: Rig) -> None:
    space = config(rig)
    put(space, 0x10, 0xFFFFFFFF)
    assert get(space, 0x10) == 0xFFFFC000
    before = bytes(space.read(0, 4))
    put(space, 0, 0xFFFFFFFF)
    assert space.read(0, 4) == before
    put(space, cs.PCIE_CAP + 4, 0)
    assert get(space, cs.PCIE_CAP + 4) & cs.DEVCAP_TEE
    put(space, cs.COMMAND, 0xFFFF, 2)
    assert get(space, cs.COMMAND, 2) == 0x0546


def test_access_at_and_over_the_end(rig: Rig) -> None:
    space = config(rig)
    assert space.read(4094, 4)[2:] == b"\xff\xff"
    space.write(4094, b"\x11\x22\x33\x44")


def test_flr_resets_the_function_and_a_locked_tdi_fails(rig: Rig) -> None:
    rig.share(0x400000, 1)
    rig.dma(Operation.READ, 0x400000, 64)
    rig.to_run()
    put(config(rig), cs.DEVCTL, cs.DEVCTL_FLR, 2)
    assert rig.state() is TdiState.ERROR
    assert get(config(rig), cs.COMMAND, 2) == 0
    assert get(config(rig), cs.DEVCTL, 2) & cs.DEVCTL_FLR == 0
    assert rig.platform.tdi_functions[0].engine.progress.status == 0
    rig.power(rig.platform.tdi_functions[0])
    assert rig.write(0x400000)[1] == Reason.NONE  # T=0 works, trust is gone
    assert rig.write(0x800000, trusted=True)[1] == Reason.TDI_STATE


def test_flr_of_an_unlocked_tdi_keeps_it_unlocked(rig: Rig) -> None:
    put(config(rig), cs.DEVCTL, cs.DEVCTL_FLR, 2)
    assert rig.state() is TdiState.UNLOCKED
    assert [event["function"] for event in rig.events("flr")] == ["tdi0"]


@pytest.mark.parametrize(("knob", "state"), [("error", "ERROR"), ("ignore", "RUN")])
def test_clearing_bus_mastering_while_locked(knob: str, state: str) -> None:
    rig = Rig(Knobs(Model.N, bme_clear=knob))
    rig.to_run(0, (1 << 64) - 1)
    rig.power(rig.platform.tdi_functions[0], cs.COMMAND_MEMORY)
    assert rig.state().name == state
    assert rig.write(0x800000, trusted=True)[1] == Reason.BUS_MASTER_OFF
    rig.close()


@pytest.mark.parametrize("change", ["bar", "memory"])
def test_locked_configuration(rig: Rig, change: str) -> None:
    put(config(rig), 0x10, 0xFE000000)
    assert rig.state() is TdiState.UNLOCKED
    rig.to_run()
    put(config(rig), 0x10, 0xFE000000)  # the same address is no change
    assert rig.state() is TdiState.RUN
    if change == "bar":
        put(config(rig), 0x10, 0xFD000000)
    else:
        put(config(rig), cs.COMMAND, cs.COMMAND_MASTER, 2)
    assert rig.state() is TdiState.ERROR


# -- DOE


def doe_put(space: cs.ConfigSpace, register: int, value: int) -> None:
    put(space, cs.DOE_CAP + register, value)


def doe_get(space: cs.ConfigSpace, register: int) -> int:
    return get(space, cs.DOE_CAP + register)


def send(space: cs.ConfigSpace, *dwords: int) -> None:
    for dword in dwords:
        doe_put(space, doe.REG_WRITE, dword)
    doe_put(space, doe.REG_CTRL, doe.CTRL_GO)


def receive(space: cs.ConfigSpace) -> list[int]:
    got = []
    while doe_get(space, doe.REG_STATUS) & doe.STATUS_READY:
        got.append(doe_get(space, doe.REG_READ))
        doe_put(space, doe.REG_READ, 0)
    return got


def abort(space: cs.ConfigSpace) -> None:
    doe_put(space, doe.REG_CTRL, doe.CTRL_ABORT)
    assert doe_get(space, doe.REG_STATUS) == 0


def test_discovery_lists_every_feature_once(rig: Rig) -> None:
    space, index, found = config(rig), 0, []
    while True:
        send(space, *DISCOVERY, index)
        header, length, answer = receive(space)
        assert (header, length) == (1, 3)
        found.append((answer & 0xFFFF, answer >> 16 & 0xFF))
        index = answer >> 24
        if index == 0:
            break
    assert found == [(1, 0), (1, 1), (1, 2)]
    send(space, *DISCOVERY, 77)
    assert receive(space)[2] & 0xFFFF == 0xFFFF


def test_cma_is_answered_with_an_spdm_error(rig: Rig) -> None:
    send(config(rig), 0x00010001, 3, 0x00008410)  # GET_VERSION
    assert receive(config(rig)) == [0x00010001, 3, 0x84077F10]


@pytest.mark.parametrize(
    "dwords",
    [
        (),
        (1,),
        (1, 2, 0),  # longer than it says
        (1, 4, 0),  # shorter than it says
        (1, 2),  # discovery without its index
        (1, 4, 0, 0),  # discovery with too much
        (1, 0, 0),  # length 0 stands for 2**18 dwords
        tuple([1] * 1025),  # more than the mailbox holds
    ],
    ids=["empty", "one", "long", "short", "no-index", "extra", "max", "overflow"],
)
def test_disorder_sets_error_until_abort(rig: Rig, dwords: tuple[int, ...]) -> None:
    space = config(rig)
    send(space, *dwords)
    assert doe_get(space, doe.REG_STATUS) == doe.STATUS_ERROR
    send(space, *DISCOVERY, 0)
    assert doe_get(space, doe.REG_STATUS) == doe.STATUS_ERROR
    abort(space)
    send(space, *DISCOVERY, 0)
    assert len(receive(space)) == 3


def test_an_answer_that_is_never_read(rig: Rig) -> None:
    space = config(rig)
    send(space, *DISCOVERY, 0)
    send(space, *DISCOVERY, 1)  # out of order: the first answer still waits
    assert doe_get(space, doe.REG_STATUS) == doe.STATUS_ERROR
    abort(space)
    send(space, *DISCOVERY, 0)
    put(space, cs.DEVCTL, cs.DEVCTL_FLR, 2)
    assert doe_get(space, doe.REG_STATUS) == 0


def test_reading_without_an_answer_and_partial_writes(rig: Rig) -> None:
    space = config(rig)
    put(space, cs.DOE_CAP + doe.REG_WRITE, 1, 2)  # not a dword: ignored
    send(space, *DISCOVERY, 0)
    assert len(receive(space)) == 3
    doe_put(space, doe.REG_READ, 0)
    assert doe_get(space, doe.REG_STATUS) == doe.STATUS_ERROR
    assert doe_get(space, doe.REG_READ) == 0


def test_unknown_objects_are_dropped(rig: Rig) -> None:
    send(config(rig), 0x00051234, 3, 0)
    assert doe_get(config(rig), doe.REG_STATUS) == 0


def test_header_of_the_doe_capability_is_read_beside_its_registers(rig: Rig) -> None:
    data = config(rig).read(cs.DOE_CAP, doe.SIZE_BYTES)
    header, _, _, status, _, _ = struct.unpack("<6I", data)
    assert (header & 0xFFFF, status) == (0x2E, 0)
