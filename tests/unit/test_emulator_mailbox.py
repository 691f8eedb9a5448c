# SPDX-License-Identifier: GPL-2.0-only
"""The security processor's commands through its mailbox, in every state."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from harness.emulator import mailbox
from harness.emulator.config_space import DEVCTL, DEVCTL_FLR
from harness.emulator.judge import Knobs
from harness.emulator.words import ALL_ONES, Command, Injection, Model, Reason, Result, TdiState
from tests.unit.emulator_rig import RAM_BYTES, ROOT, Rig, u32

C, R = Command, Result


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Knobs(Model.N))
    yield rig
    rig.close()


def to_state(rig: Rig, state: TdiState) -> None:
    if state is TdiState.UNLOCKED:
        return
    generation = rig.command(C.LOCK)[1][0]
    if state is TdiState.LOCKED:
        return
    rig.command(C.RUN, generation)
    if state is TdiState.ERROR:
        rig.command(C.SET_ERROR)


# command -> what it gives in UNLOCKED, LOCKED, RUN, ERROR, and the state after success
IN_STATES = {
    C.LOCK: (R.OK, R.INVALID_STATE, R.INVALID_STATE, R.INVALID_STATE),
    C.RUN: (R.INVALID_STATE, R.OK, R.INVALID_STATE, R.INVALID_STATE),
    C.UNLOCK: (R.OK, R.OK, R.OK, R.OK),
    C.ENABLE_DMA: (R.INVALID_STATE, R.INVALID_STATE, R.OK, R.INVALID_STATE),
    C.DISABLE_DMA: (R.OK, R.OK, R.OK, R.OK),
    C.SET_ERROR: (R.INVALID_STATE, R.OK, R.OK, R.OK),
}


@pytest.mark.parametrize("command", IN_STATES)
@pytest.mark.parametrize("state", list(TdiState))
def test_commands_in_every_state(rig: Rig, command: Command, state: TdiState) -> None:
    to_state(rig, state)
    argument = rig.platform.tdis[0].generation if command is C.RUN else ALL_ONES
    if command is C.LOCK:
        argument = 0x0208
    result, _ = rig.command(command, argument)
    assert result is IN_STATES[command][state]
    if result is not R.OK:
        assert rig.state() is state, "a refused command changes nothing"


def test_lock_names_the_tdi_and_counts_generations(rig: Rig) -> None:
    assert rig.command(C.LOCK, 0x0208)[1][0] == 1
    assert rig.platform.tdis[0].bdf == "02:01.0"
    rig.command(C.UNLOCK)
    assert rig.command(C.LOCK)[1][0] == 2
    assert rig.command(C.RUN, 1)[0] is R.STALE
    assert rig.state() is TdiState.LOCKED
    assert rig.command(C.RUN, 2)[0] is R.OK
    assert [(e["before"], e["after"]) for e in rig.events("transition")] == [
        ("UNLOCKED", "LOCKED"),
        ("LOCKED", "UNLOCKED"),
        ("UNLOCKED", "LOCKED"),
        ("LOCKED", "RUN"),
    ]


@pytest.mark.parametrize("leave", [C.UNLOCK, C.SET_ERROR])
def test_leaving_run_ends_private_dma(rig: Rig, leave: Command) -> None:
    rig.to_run(0, ALL_ONES)
    assert rig.write(0x800000, trusted=True)[1] == Reason.NONE
    rig.command(leave)
    assert rig.write(0x800000, trusted=True)[1] == Reason.TDI_STATE
    assert not rig.platform.tdis[0].dma_enabled


def test_host_commands_and_their_order() -> None:
    rig = Rig(Knobs(Model.N), autobind=False)
    assert rig.command(C.LOCK)[0] is R.NOT_CONNECTED
    assert rig.command(C.BIND, host=True)[0] is R.NOT_CONNECTED
    assert rig.command(C.CONNECT, host=True)[0] is R.OK
    assert rig.command(C.CONNECT, host=True)[0] is R.INVALID_STATE
    assert rig.command(C.LOCK)[0] is R.NOT_BOUND
    assert rig.command(C.BIND, 0x0300, host=True)[0] is R.OK
    assert rig.platform.tdis[0].bdf == "03:00.0"
    assert rig.command(C.BIND, host=True)[0] is R.INVALID_STATE
    rig.to_run(0, ALL_ONES)
    assert rig.command(C.UNBIND, host=True)[0] is R.OK
    assert rig.state() is TdiState.UNLOCKED
    assert rig.write(0x800000, trusted=True)[1] == Reason.TDI_STATE
    assert rig.command(C.UNBIND, host=True)[0] is R.NOT_BOUND
    rig.command(C.BIND, host=True)
    rig.to_run()
    assert rig.command(C.DISCONNECT, host=True)[0] is R.OK
    assert rig.state() is TdiState.UNLOCKED
    assert rig.command(C.DISCONNECT, host=True)[0] is R.NOT_CONNECTED
    rig.close()


def test_what_the_guest_attached_outlives_the_binding() -> None:
    """The vIOMMU is the guest's; the host takes the TDI away and gives it back."""
    rig = Rig(Knobs(Model.B))
    assert rig.command(C.ATTACH_TABLE, ROOT, 3)[0] is R.OK
    table = rig.platform.tdis[0].table
    assert table is not None
    assert rig.command(C.UNBIND, host=True)[0] is R.OK
    assert rig.command(C.BIND, host=True)[0] is R.OK
    assert rig.platform.tdis[0].table == table
    rig.close()


@pytest.mark.parametrize("command", [C.CONNECT, C.DISCONNECT, C.BIND, C.UNBIND])
def test_guests_may_not_give_host_commands(rig: Rig, command: Command) -> None:
    assert rig.command(command)[0] is R.DENIED
    assert rig.platform.tdis[0].bound


@pytest.mark.parametrize(
    "command", [c for c in Command if 0x10 <= c < 0x80 and c is not C.TDI_INFO]
)
def test_hosts_may_not_give_guest_commands(rig: Rig, command: Command) -> None:
    assert rig.command(command, host=True)[0] is R.DENIED


def test_both_may_ask_what_a_tdi_is(rig: Rig) -> None:
    connected, bound = 1 << 8, 1 << 9
    rig.command(C.UNBIND, host=True)
    for host in (True, False):
        result, outs = rig.command(C.TDI_INFO, host=host)
        assert (result, outs[0] & (connected | bound)) == (R.OK, connected)


@pytest.mark.parametrize("opcode", [0x0F, 0x7F, 0xFFFFFFFF])
def test_unknown_commands(rig: Rig, opcode: int) -> None:
    assert rig.command(opcode)[0] is R.UNKNOWN_COMMAND


@pytest.mark.parametrize("tdi", [2, 0xFFFFFFFF])
@pytest.mark.parametrize(
    "command", [C.LOCK, C.RUN, C.UNLOCK, C.EVIDENCE, C.ENABLE_DMA, C.DETACH_TABLE, C.TDI_INFO]
)
def test_unknown_tdis(rig: Rig, command: Command, tdi: int) -> None:
    assert rig.command(command, tdi=tdi)[0] is R.BAD_TDI


# -- page states


@pytest.mark.parametrize(
    ("args", "result"),
    [
        ((0x1001, 1, 1), R.BAD_ARGUMENT),
        ((0x1000, 0, 1), R.BAD_ARGUMENT),
        ((0x1000, 1, 2), R.BAD_ARGUMENT),
        ((RAM_BYTES, 1, 1), R.BAD_ADDRESS),
        ((RAM_BYTES - 4096, 2, 1), R.BAD_ADDRESS),
        ((0x1000, ALL_ONES, 1), R.BAD_ADDRESS),
        ((ALL_ONES - 4095, 2, 1), R.BAD_ADDRESS),
    ],
)
def test_bad_page_state_changes(rig: Rig, args: tuple[int, ...], result: Result) -> None:
    assert rig.command(C.PAGE_STATE, *args)[0] is result
    assert rig.command(C.PAGE_STATE_QUERY)[1][1] == 0


def test_page_state_counts_and_resets(rig: Rig) -> None:
    assert rig.command(C.PAGE_STATE, 0x10000, 16, 1) == (R.OK, (16, 0, 0, 0))
    assert rig.command(C.PAGE_STATE, 0x18000, 16, 1)[1][0] == 8
    assert rig.command(C.PAGE_STATE, 0x10000, 4, 0)[1][0] == 4
    assert rig.command(C.PAGE_STATE_QUERY, 0x14000)[1][:2] == (1, 20)
    assert rig.command(C.PAGE_STATE_QUERY, 0x10000)[1][:2] == (0, 20)
    assert rig.command(C.PAGE_STATE_RESET)[1][0] == 20
    assert rig.command(C.PAGE_STATE_QUERY, 0x14000)[1][:2] == (0, 0)


def test_page_state_list_is_all_or_nothing(rig: Rig) -> None:
    good = [(0x10000, 4, 1), (0x20000, 8, 1), (0x10000, 1, 0)]
    rig.poke(0x5000, b"".join(struct.pack("<QII", *entry) for entry in good))
    assert rig.command(C.PAGE_STATE_LIST, 0x5000, 3) == (R.OK, (13, 0, 0, 0))
    rig.poke(0x5000 + 16, struct.pack("<QII", RAM_BYTES, 1, 1))
    rig.poke(0x5000, struct.pack("<QII", 0x30000, 4, 1))
    assert rig.command(C.PAGE_STATE_LIST, 0x5000, 3) == (R.BAD_ADDRESS, (1, 0, 0, 0))
    assert rig.command(C.PAGE_STATE_QUERY, 0x30000)[1][:2] == (0, 11)
    assert rig.command(C.PAGE_STATE_LIST, RAM_BYTES, 1)[0] is R.BAD_ADDRESS
    assert rig.command(C.PAGE_STATE_LIST, 0x5000, 0)[0] is R.BAD_ARGUMENT
    assert rig.command(C.PAGE_STATE_LIST, 0x5000, 1 << 40)[0] is R.BAD_ARGUMENT


def test_a_long_list_behind_a_viommu_does_not_hold_up_the_platform(rig: Rig) -> None:
    memory, pages = rig.platform.guest_port.memory, RAM_BYTES // 4096
    memory.unmap_all()
    for page in range(pages):
        memory.map(page * 4096, 4096, fd=rig.ram, offset=page * 4096, flags=3)
    rig.poke(0x5000, struct.pack("<QII", 0, pages, 1) * 8000)
    begin = time.process_time()
    assert rig.command(C.PAGE_STATE_LIST, 0x5000, 8000) == (R.OK, (pages, 0, 0, 0))
    assert time.process_time() - begin < 5


# -- tables


@pytest.mark.parametrize(
    ("root", "mode"), [(ROOT + 8, 3), (ROOT, 7), (ROOT, 0), (1 << 52, 3), (ROOT, ALL_ONES)]
)
def test_impossible_tables(root: int, mode: int) -> None:
    rig = Rig(Knobs(Model.B))
    assert rig.command(C.ATTACH_TABLE, root, mode)[0] is R.BAD_ARGUMENT
    rig.to_run()
    assert rig.command(C.ENABLE_DMA, root, mode)[0] is R.BAD_ARGUMENT
    assert not rig.platform.tdis[0].dma_enabled
    rig.close()


def test_attach_and_detach() -> None:
    rig = Rig(Knobs(Model.B))
    assert rig.command(C.ATTACH_TABLE, RAM_BYTES * 4, 3)[0] is R.OK  # the walk finds out
    assert rig.write(0x1000)[1] == Reason.TABLE_OUTSIDE
    rig.command(C.DETACH_TABLE)
    assert rig.write(0x1000)[1] == Reason.NO_TABLE
    rig.close()


def test_no_tables_in_model_n(rig: Rig) -> None:
    assert rig.command(C.ATTACH_TABLE, ROOT, 3)[0] is R.INVALID_STATE


# -- the mailbox itself


def test_injected_error_and_its_count(rig: Rig) -> None:
    assert rig.command(C.INJECT, C.LOCK, Injection.ERROR, R.FAILED, 2)[0] is R.OK
    for _ in range(2):
        assert rig.command(C.LOCK)[0] is R.FAILED
        assert rig.state() is TdiState.UNLOCKED
    assert rig.command(C.LOCK)[0] is R.OK


def test_injected_delay(rig: Rig) -> None:
    port = rig.platform.guest_port
    rig.command(C.INJECT, C.LOCK, Injection.DELAY, 500, 1)
    rig.submit(C.LOCK)
    rig.platform.step()
    assert u32(port, mailbox.STATUS) == mailbox.STATUS_BUSY
    assert rig.state() is TdiState.UNLOCKED
    rig.submit(C.UNLOCK)  # ignored while busy
    assert rig.events("bad-register")
    deadline = rig.platform.deadline()
    assert deadline is not None
    rig.clock.now = deadline
    assert rig.platform.busy()
    rig.platform.step()
    assert u32(port, mailbox.STATUS) == mailbox.STATUS_DONE
    assert rig.state() is TdiState.LOCKED
    assert rig.platform.deadline() is None


def test_no_answer_until_given_up(rig: Rig) -> None:
    port = rig.platform.guest_port
    rig.command(C.INJECT, C.RUN, Injection.NO_ANSWER, 0, 1)
    rig.submit(C.RUN, 1)
    assert u32(port, mailbox.STATUS) == mailbox.STATUS_BUSY
    assert not rig.platform.busy()
    port.bar_write(mailbox.COMMAND, bytes(4))
    assert u32(port, mailbox.STATUS) == mailbox.STATUS_IDLE
    assert rig.command(C.TDI_INFO)[0] is R.OK


@pytest.mark.parametrize(
    "args",
    [
        (C.INJECT, Injection.ERROR, 1, 1),
        (0x7777, Injection.ERROR, 1, 1),
        (C.LOCK, 99, 1, 1),
        (C.LOCK, Injection.ERROR, 0, 1),
        (C.LOCK, Injection.ERROR, 99, 1),
        (C.LOCK, Injection.WRONG_KEY, 0, 1),
        (C.LOCK, Injection.DELAY, 10**9, 1),
        (C.LOCK, Injection.ERROR, 1, 0),
    ],
)
def test_bad_injections(rig: Rig, args: tuple[int, ...]) -> None:
    assert rig.command(C.INJECT, *args)[0] is R.BAD_ARGUMENT
    assert rig.command(C.LOCK)[0] is R.OK


def test_fault_records_reach_the_guest(rig: Rig) -> None:
    assert rig.command(C.READ_FAULT)[0] is R.EMPTY
    rig.write(0x9000, 32)
    rig.dma(1, 0x800000, 64, trusted=True, tdi=1)
    assert u32(rig.platform.guest_port, mailbox.FAULTS) == 2
    _, (head, iova, gpa, length) = rig.command(C.READ_FAULT)
    assert head == Reason.PRIVATE_PAGE << 32 | 1 << 49
    assert (iova, gpa, length) == (0x9000, 0x9000, 32)
    _, (head, iova, _, _) = rig.command(C.READ_FAULT)
    assert head == 1 | Reason.TDI_STATE << 32 | 1 << 48
    assert rig.command(C.READ_FAULT)[0] is R.EMPTY
    for _ in range(300):
        rig.write(0x9000)
    assert u32(rig.platform.guest_port, mailbox.FAULTS) == 256
    assert u32(rig.platform.guest_port, mailbox.FAULTS_LOST) == 44


def test_a_guest_reset_forgets_the_guest(rig: Rig) -> None:
    rig.share(0x10000, 4)
    rig.to_run(0, ALL_ONES)
    rig.write(0x9000)
    rig.platform.guest_port.conventional_reset()
    rig.platform.tdi_functions[0].conventional_reset()
    assert rig.platform.pages.shared_pages() == 0
    assert rig.state() is TdiState.UNLOCKED
    assert not rig.platform.tdis[0].dma_enabled
    assert rig.platform.tdis[0].bound, "the host's doing survives"
    rig.power(rig.platform.guest_port)
    assert rig.command(C.READ_FAULT)[0] is R.EMPTY


def test_an_flr_of_the_guest_port_forgets_the_guest_too(rig: Rig) -> None:
    """What vfio-pci of a host machine does before and after it hands the functions to a guest."""
    rig.share(0x10000, 4)
    rig.to_run(0, ALL_ONES)
    rig.platform.guest_port.config.write(DEVCTL, DEVCTL_FLR.to_bytes(2, "little"))
    assert rig.platform.pages.shared_pages() == 0
    assert rig.state() is TdiState.UNLOCKED
    assert rig.platform.tdis[0].bound, "the host's doing survives"
    assert [event["function"] for event in rig.events("flr")] == ["tsm-guest"]
    # the other functions follow, in any order
    rig.platform.tdi_functions[0].config.write(DEVCTL, DEVCTL_FLR.to_bytes(2, "little"))
    assert rig.state() is TdiState.UNLOCKED
    rig.power(rig.platform.guest_port)
    rig.power(rig.platform.tdi_functions[0])
    rig.to_run(0, ALL_ONES)
    rig.platform.tdi_functions[0].config.write(DEVCTL, DEVCTL_FLR.to_bytes(2, "little"))
    assert rig.state() is TdiState.ERROR
    rig.platform.guest_port.config.write(DEVCTL, DEVCTL_FLR.to_bytes(2, "little"))
    assert rig.state() is TdiState.UNLOCKED, "the next guest does not find it in ERROR"


def test_the_hosts_port_resets_no_guest(rig: Rig) -> None:
    rig.share(0x10000, 4)
    rig.platform.host_port.config.write(DEVCTL, DEVCTL_FLR.to_bytes(2, "little"))
    assert rig.platform.pages.shared_pages() == 4


def test_identification_registers() -> None:
    rig = Rig(Knobs(Model.A, vtom=1 << 40, c_bit=47))
    port = rig.platform.guest_port
    assert port.bar_read(mailbox.ID, 4) == b"TSMP"
    assert u32(port, mailbox.FEATURES) & 3 == 0
    assert u32(port, mailbox.C_BIT) == 47
    assert int.from_bytes(port.bar_read(mailbox.VTOM, 8), "little") == 1 << 40
    assert u32(port, mailbox.TDI_COUNT) == 2
    assert u32(rig.platform.host_port, mailbox.FEATURES) & mailbox.FEATURE_HOST
    rig.power(port, 0)
    assert port.bar_read(mailbox.ID, 4) == b"\xff" * 4
    rig.close()
