# SPDX-License-Identifier: GPL-2.0-only
"""Every cell of the judging table of DESIGN.md section 3, seen from the guest's registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from harness.emulator import tdi_function
from harness.emulator.config_space import COMMAND_MEMORY
from harness.emulator.dma_engine import Operation, Status
from harness.emulator.judge import Knobs
from harness.emulator.words import ALL_ONES, Command, Model, Reason, Result, TdiState
from tests.unit.emulator_rig import READ, WRITE, Rig, Tables

SHARED, PRIVATE = 0x400000, 0x800000  # pages of that state in every rig
VTOM = 1 << 40
Make = Callable[..., Rig]


@pytest.fixture
def make() -> Iterator[Make]:
    rigs: list[Rig] = []

    def build(model: Model, **knobs: object) -> Rig:
        rig = Rig(Knobs(model, **knobs))  # type: ignore[arg-type]
        rigs.append(rig)
        rig.share(SHARED, 16)
        return rig

    yield build
    for rig in rigs:
        rig.close()


def run_with_tables(rig: Rig) -> Tables:
    """A trusted TDI over tables that map SHARED with C=0 and PRIVATE with C=1 to themselves."""
    tables = Tables(rig)
    for page in range(16):
        tables.map(SHARED + page * 4096, SHARED + page * 4096, private=False)
        tables.map(PRIVATE + page * 4096, PRIVATE + page * 4096, private=True)
    rig.to_run(0, tables.root, tables.mode)
    return tables


def verdict(rig: Rig, iova: int, **more: object) -> Reason:
    status, reason, _ = rig.write(iova, **more)  # type: ignore[arg-type]
    assert status == (Status.DONE if reason == 0 else Status.FAILED)
    return Reason(reason)


@pytest.mark.parametrize("model", list(Model))
def test_nothing_without_bus_mastering(make: Make, model: Model) -> None:
    rig = make(model)
    rig.power(rig.platform.tdi_functions[0], COMMAND_MEMORY)
    assert verdict(rig, SHARED) is Reason.BUS_MASTER_OFF
    assert rig.peek(SHARED, 64) == bytes(64)


@pytest.mark.parametrize("model", [Model.A, Model.N])
def test_untrusted_without_translation(make: Make, model: Model) -> None:
    rig = make(model)
    assert verdict(rig, SHARED) is Reason.NONE
    assert rig.peek(SHARED, 8) == bytes.fromhex("0807060504030201")
    assert verdict(rig, PRIVATE) is Reason.PRIVATE_PAGE
    assert rig.peek(PRIVATE, 64) == bytes(64)


def test_model_a_untrusted_ignores_the_tables(make: Make) -> None:
    rig = make(Model.A)
    tables = run_with_tables(rig)
    tables.map(0x5000, SHARED, private=False)
    assert verdict(rig, SHARED) is Reason.NONE
    assert verdict(rig, 0x5000) is Reason.PRIVATE_PAGE  # identity, not SHARED


def test_model_a_trusted_walks_and_is_private_only(make: Make) -> None:
    rig = make(Model.A)
    tables = run_with_tables(rig)
    tables.map(0x5000, PRIVATE + 0x1000, private=True)
    assert verdict(rig, 0x5000, trusted=True) is Reason.NONE
    assert rig.peek(PRIVATE + 0x1000, 1) == b"\x08"
    assert verdict(rig, SHARED, trusted=True) is Reason.PTE_SHARED


def test_model_b_untrusted_walks_the_same_tables(make: Make) -> None:
    rig = make(Model.B)
    assert verdict(rig, SHARED) is Reason.NO_TABLE
    tables = run_with_tables(rig)
    tables.map(0x5000, SHARED, private=False)
    tables.map(0x6000, SHARED, private=True)
    tables.map(0x7000, PRIVATE, private=False)
    assert verdict(rig, 0x5000) is Reason.NONE
    assert verdict(rig, 0x6000) is Reason.PTE_PRIVATE
    assert verdict(rig, 0x7000) is Reason.PRIVATE_PAGE
    assert verdict(rig, 0x8000) is Reason.NOT_PRESENT


def test_model_b_trusted_cbit_matches_page_state(make: Make) -> None:
    rig = make(Model.B)
    tables = run_with_tables(rig)
    tables.map(0x6000, SHARED, private=True)
    tables.map(0x7000, PRIVATE, private=False)
    assert verdict(rig, SHARED, trusted=True) is Reason.NONE
    assert verdict(rig, PRIVATE, trusted=True) is Reason.NONE
    assert verdict(rig, 0x6000, trusted=True) is Reason.SHARED_PAGE
    assert verdict(rig, 0x7000, trusted=True) is Reason.PRIVATE_PAGE


def test_model_n_vtom_edges(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run(0, VTOM)
    below, above = PRIVATE, VTOM + SHARED
    assert verdict(rig, below, trusted=True) is Reason.NONE
    assert verdict(rig, above, trusted=True) is Reason.NONE
    assert rig.peek(SHARED, 1) == b"\x08"
    assert verdict(rig, SHARED, trusted=True) is Reason.SHARED_PAGE
    assert verdict(rig, VTOM + PRIVATE, trusted=True) is Reason.PRIVATE_PAGE
    assert verdict(rig, VTOM, trusted=True) is Reason.PRIVATE_PAGE  # X itself: GPA 0, private
    assert verdict(rig, VTOM - 1, length=1, trusted=True) is Reason.OUTSIDE_RAM  # X-1 is private
    assert verdict(rig, VTOM - 32, trusted=True) is Reason.VTOM_STRADDLE


def test_model_n_vtom_all_ones_is_all_private(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run(0, ALL_ONES)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.NONE
    assert verdict(rig, SHARED, trusted=True) is Reason.SHARED_PAGE
    assert verdict(rig, VTOM + SHARED, trusted=True) is Reason.OUTSIDE_RAM


@pytest.mark.parametrize("model", list(Model))
def test_trusted_needs_run_and_enabled_dma(make: Make, model: Model) -> None:
    rig = make(model)
    tables = Tables(rig)
    tables.map(PRIVATE, PRIVATE, private=True)
    enable = (ALL_ONES,) if model is Model.N else (tables.root, tables.mode)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.TDI_STATE
    generation = rig.command(Command.LOCK)[1][0]
    assert verdict(rig, PRIVATE, trusted=True) is Reason.TDI_STATE
    rig.command(Command.RUN, generation)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.DMA_DISABLED
    rig.command(Command.ENABLE_DMA, *enable)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.NONE
    rig.command(Command.DISABLE_DMA)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.DMA_DISABLED
    rig.command(Command.SET_ERROR)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.TDI_STATE


@pytest.mark.parametrize(
    ("knob", "expected"), [("allow", Reason.NONE), ("block", Reason.T0_LOCKED)]
)
def test_untrusted_while_locked(make: Make, knob: str, expected: Reason) -> None:
    rig = make(Model.A, locked_t0=knob)
    assert verdict(rig, SHARED) is Reason.NONE
    rig.to_run()
    assert verdict(rig, SHARED) is expected
    rig.command(Command.SET_ERROR)
    assert verdict(rig, SHARED) is expected  # blocked until the TDI is unlocked, ERROR included
    rig.command(Command.UNLOCK)
    assert verdict(rig, SHARED) is Reason.NONE


def test_models_a_and_b_differ_for_one_untrusted_iova(make: Make) -> None:
    resolved = {}
    for model in (Model.A, Model.B):
        rig = make(model)
        tables = Tables(rig)
        tables.map(SHARED, SHARED + 0x3000, private=False)
        rig.command(Command.ATTACH_TABLE, tables.root, tables.mode)
        assert verdict(rig, SHARED) is Reason.NONE
        resolved[model] = rig.events("tlp")[-1]["gpa"]
    assert resolved == {Model.A: hex(SHARED), Model.B: hex(SHARED + 0x3000)}


@pytest.mark.parametrize("model", [Model.B, Model.N])
def test_private_and_shared_interleaved(make: Make, model: Model) -> None:
    rig = make(model)
    if model is Model.B:
        run_with_tables(rig)
        shared = SHARED
    else:
        rig.to_run(0, VTOM)
        shared = VTOM + SHARED
    for round_ in range(8):
        assert verdict(rig, PRIVATE + 64 * round_, trusted=True, pattern=round_) is Reason.NONE
        assert verdict(rig, shared + 64 * round_, trusted=True, pattern=~round_ & 0xFF) is (
            Reason.NONE
        )
    for round_ in range(8):
        assert rig.peek(PRIVATE + 64 * round_, 1)[0] == round_
        assert rig.peek(SHARED + 64 * round_, 1)[0] == ~round_ & 0xFF


def test_a_bus_reset_leaves_the_table_and_a_new_guest_does_not(make: Make) -> None:
    rig = make(Model.B)
    run_with_tables(rig)
    function = rig.platform.tdi_functions[0]
    function.conventional_reset()  # what a secondary bus reset of the guest comes to
    rig.power(function)
    assert rig.state() is TdiState.UNLOCKED
    assert verdict(rig, SHARED) is Reason.NONE
    rig.platform.guest_port.conventional_reset()
    assert verdict(rig, SHARED) is Reason.NO_TABLE


@pytest.mark.parametrize("rights", [READ, WRITE])
def test_permissions_of_the_leaf(make: Make, rights: int) -> None:
    rig = make(Model.B)
    tables = run_with_tables(rig)
    tables.map(0x9000, PRIVATE, private=True, rights=rights)
    write = verdict(rig, 0x9000, trusted=True)
    _, read, _ = rig.dma(Operation.READ, 0x9000, 64, trusted=True)
    assert (write, read) == (
        (Reason.PERMISSION, Reason.NONE) if rights == READ else (Reason.NONE, Reason.PERMISSION)
    )


def test_a_transfer_stops_at_the_first_bad_page(make: Make) -> None:
    rig = make(Model.A)
    start = SHARED + 15 * 4096
    status, reason, done = rig.write(start, 3 * 4096)
    assert (status, Reason(reason), done) == (Status.FAILED, Reason.PRIVATE_PAGE, 4096)
    assert rig.peek(start, 4096) != bytes(4096)
    assert rig.peek(start + 4096, 8192) == bytes(8192)
    ok, blocked = rig.events("tlp")
    assert (ok["verdict"], ok["len"], ok["gpa"]) == ("ok", 4096, hex(start))
    assert (blocked["verdict"], blocked["reason"]) == ("blocked", "private-page")
    assert (blocked["bdf"], blocked["T"], blocked["dir"]) == ("01:00.0", 0, "write")


def test_second_function_is_judged_on_its_own(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run(0, ALL_ONES)
    assert verdict(rig, PRIVATE, trusted=True) is Reason.NONE
    assert verdict(rig, PRIVATE, trusted=True, tdi=1) is Reason.TDI_STATE
    assert rig.state(1) is TdiState.UNLOCKED


def test_vtom_that_moves_into_a_running_transfer(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run(0, ALL_ONES)
    function = rig.platform.tdi_functions[0]
    border = PRIVATE + (1 << 20) + 0x8000
    flags = Operation.WRITE << 4 | tdi_function.FLAG_TRUSTED
    function.bar_write(tdi_function.FLAGS, struct.pack("<I", flags))
    function.bar_write(tdi_function.IOVA, struct.pack("<4Q", PRIVATE, 0, 4 << 20, 1))
    function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 1))
    rig.command(Command.DISABLE_DMA)
    assert rig.command(Command.ENABLE_DMA, border)[0] is Result.OK
    while rig.platform.busy():
        rig.platform.step()
    blocked = rig.events("tlp")[-1]
    assert (blocked["iova"], blocked["gpa"]) == (hex(border), hex(0))
    assert blocked["reason"] == "private-page"
    assert rig.peek(border, 64) == bytes(64)


def test_a_border_means_nothing_while_private_dma_is_off(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run(0, PRIVATE)
    assert verdict(rig, PRIVATE - 32, trusted=True) is Reason.VTOM_STRADDLE
    rig.command(Command.DISABLE_DMA)
    assert verdict(rig, PRIVATE - 32, trusted=True) is Reason.DMA_DISABLED
    rig.command(Command.UNLOCK)
    assert verdict(rig, PRIVATE - 32, trusted=True) is Reason.TDI_STATE


def test_vtom_must_be_aligned_and_dma_is_enabled_once(make: Make) -> None:
    rig = make(Model.N)
    rig.to_run()
    assert rig.command(Command.ENABLE_DMA, 0x1234)[0] is Result.BAD_ARGUMENT
    assert rig.command(Command.ENABLE_DMA, VTOM)[0] is Result.OK
    assert rig.command(Command.ENABLE_DMA, ALL_ONES)[0] is Result.INVALID_STATE
    assert rig.platform.tdis[0].vtom == VTOM
