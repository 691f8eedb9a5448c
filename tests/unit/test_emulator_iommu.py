# SPDX-License-Identifier: GPL-2.0-only
"""The walker on good and hostile tables, and an IOTLB that forgets only on command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.emulator import iommu
from harness.emulator.iommu import Iommu, Table, WalkFault
from harness.emulator.judge import Knobs
from harness.emulator.memory import GuestMemory
from harness.emulator.words import Command, Model, Reason, Result
from tests.unit.emulator_rig import C_BIT, PRESENT, RAM_BYTES, READ, ROOT, WRITE, Rig, Tables

RW = READ | WRITE


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(Knobs(Model.B))
    yield rig
    rig.close()


def memory(rig: Rig) -> GuestMemory:
    return rig.platform.tdi_functions[0].memory


def walk(rig: Rig, table: Table, iova: int) -> iommu.Leaf:
    return rig.platform.iommu.walk(table, iova, memory(rig))


def fault(rig: Rig, table: Table, iova: int) -> Reason:
    with pytest.raises(WalkFault) as caught:
        walk(rig, table, iova)
    return caught.value.reason


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 5, 6])
def test_every_depth(rig: Rig, mode: int) -> None:
    tables = Tables(rig, mode)
    iova = (1 << 12 + 9 * mode - 1) + 0x3000 if mode < 6 else (1 << 60) + 0x3000
    tables.map(iova, 0x800000, private=True)
    leaf = walk(rig, Table(ROOT, mode), iova + 5)
    assert (leaf.iova, leaf.gpa, leaf.size_lg2, leaf.private) == (iova, 0x800000, 12, True)
    assert fault(rig, Table(ROOT, mode), iova + 4096) is Reason.NOT_PRESENT


def test_large_pages_and_encoded_sizes(rig: Rig) -> None:
    tables = Tables(rig)
    tables.map(0x40000000, 0x800000, private=False, level=2)
    leaf = walk(rig, Table(ROOT, 3), 0x40000000 + 0x1FFFFF)
    assert (leaf.gpa, leaf.size_lg2) == (0x800000, 21)
    # 64 KiB as 16 equal entries: ones below the first zero of the address give the size
    encoded = (0x10000 * 7 | 0x7 << 12) | 7 << 9
    for page in range(16):
        tables.map(0x10000 + page * 4096, encoded, private=True)
    leaf = walk(rig, Table(ROOT, 3), 0x1F123)
    assert (leaf.iova, leaf.gpa, leaf.size_lg2) == (0x10000, 0x70000, 16)
    assert leaf.private


def test_cbit_position_is_configurable(rig: Rig) -> None:
    other = Iommu(47, rig.platform.pages)
    Tables(rig, 1).put(ROOT, 0, 0x5000 | 1 << 47 | PRESENT | RW)
    leaf = other.walk(Table(ROOT, 1), 0, memory(rig))
    assert (leaf.gpa, leaf.private) == (0x5000, True)
    leaf = walk(rig, Table(ROOT, 1), 0)  # the other position: part of the address
    assert (leaf.gpa, leaf.private) == (0x5000 | 1 << 47, False)


def test_cbit_in_a_table_pointer_is_not_part_of_its_address(rig: Rig) -> None:
    tables = Tables(rig, 2)
    tables.map(0, 0x5000, private=True)
    tables.put(ROOT, 0, tables.entry(ROOT, 0) | 1 << C_BIT)
    assert walk(rig, Table(ROOT, 2), 0).gpa == 0x5000


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Table(RAM_BYTES, 3), Reason.TABLE_OUTSIDE),
        (Table(1 << 51, 3), Reason.TABLE_OUTSIDE),
        (Table(ROOT + 8, 3), Reason.TABLE_MALFORMED),
        (Table(ROOT, 0), Reason.TABLE_MALFORMED),
        (Table(ROOT, 7), Reason.TABLE_MALFORMED),
        (Table(ROOT, 3), Reason.NOT_PRESENT),
    ],
)
def test_bad_roots(rig: Rig, table: Table, reason: Reason) -> None:
    assert fault(rig, table, 0x1000) is reason


def test_a_table_that_points_to_itself_ends(rig: Rig) -> None:
    tables = Tables(rig, 6)
    for level in range(2, 7):  # same or higher level: malformed, whatever the level
        tables.put(ROOT, 0, ROOT | PRESENT | min(level, 6) << 9 | RW)
        reason = fault(rig, Table(ROOT, level), 0)
        assert reason is Reason.TABLE_MALFORMED
    tables.put(ROOT, 0, ROOT | PRESENT | 1 << 9 | RW)  # falls to level 1, where it is no leaf
    assert fault(rig, Table(ROOT, 6), 0) is Reason.TABLE_MALFORMED


def test_tables_lie_in_trusted_memory(rig: Rig) -> None:
    tables = Tables(rig)
    tables.map(0x1000, 0x5000, private=True)
    rig.share(ROOT + 4096, 1)  # the second level
    assert fault(rig, Table(ROOT, 3), 0x1000) is Reason.TABLE_SHARED


def test_pointer_out_of_ram_and_skipped_levels(rig: Rig) -> None:
    tables = Tables(rig)
    tables.put(ROOT, 0, RAM_BYTES | PRESENT | 2 << 9 | RW)
    assert fault(rig, Table(ROOT, 3), 0) is Reason.TABLE_OUTSIDE
    tables.put(ROOT, 0, (ROOT + 4096) | PRESENT | 1 << 9 | RW)  # from level 3 to 1
    tables.put(ROOT + 4096, 3, 0x7000 | PRESENT | RW)
    assert walk(rig, Table(ROOT, 3), 0x3000).gpa == 0x7000
    assert fault(rig, Table(ROOT, 3), 0x203000) is Reason.NOT_PRESENT  # a skipped bit is set


@pytest.mark.parametrize(
    "leaf",
    [
        0x1000 | PRESENT | RW,  # level 2, but not 2 MiB aligned
        0x200000 | 7 << 9 | PRESENT | RW,  # encoded size of 8 KiB, below the level's own
    ],
)
def test_misaligned_large_pages(rig: Rig, leaf: int) -> None:
    Tables(rig, 2).put(ROOT, 0, leaf)
    assert fault(rig, Table(ROOT, 2), 0) is Reason.TABLE_MALFORMED


def test_rights_are_those_of_all_levels(rig: Rig) -> None:
    tables = Tables(rig, 2)
    tables.map(0, 0x5000, private=True)
    tables.put(ROOT, 0, tables.entry(ROOT, 0) & ~WRITE)
    leaf = walk(rig, Table(ROOT, 2), 0)
    assert (leaf.readable, leaf.writable) == (True, False)


def test_iotlb_forgets_only_on_command(rig: Rig) -> None:
    tables = Tables(rig)
    tables.map(0x5000, 0x800000, private=True)
    rig.to_run(0, tables.root, tables.mode)
    assert rig.write(0x5000, trusted=True)[1] == Reason.NONE
    tables.map(0x5000, 0x900000, private=True)
    rig.write(0x5000, trusted=True, pattern=0xAA)
    assert rig.peek(0x800000, 1) == b"\xaa", "a missing flush has to show"
    assert rig.command(Command.IOTLB_INVALIDATE, 0x6000, 4096)[1][0] == 0
    assert rig.command(Command.IOTLB_INVALIDATE, 0x5000, 4096)[1][0] == 1
    rig.write(0x5000, trusted=True, pattern=0xBB)
    assert (rig.peek(0x900000, 1), rig.peek(0x800000, 1)) == (b"\xbb", b"\xaa")


def test_iotlb_faults_are_not_kept_and_tdis_are_apart(rig: Rig) -> None:
    tables = Tables(rig)
    rig.to_run(0, tables.root, tables.mode)
    assert rig.write(0x5000, trusted=True)[1] == Reason.NOT_PRESENT
    tables.map(0x5000, 0x800000, private=True)
    assert rig.write(0x5000, trusted=True)[1] == Reason.NONE
    assert rig.command(Command.IOTLB_INVALIDATE, tdi=1)[1][0] == 0
    assert rig.command(Command.IOTLB_INVALIDATE, tdi=0xFFFFFFFF)[1][0] == 1
    assert rig.command(Command.IOTLB_INVALIDATE, tdi=9)[0] is Result.BAD_TDI


def test_iotlb_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iommu, "IOTLB_ENTRIES", 4)
    tables = Tables(rig)
    table = Table(tables.root, tables.mode)
    for page in range(8):
        tables.map(page << 12, 0x800000 + (page << 12), private=True)
        rig.platform.iommu.translate(0, table, page << 12, memory(rig))
    assert rig.platform.iommu.invalidate(None) == 4
    assert rig.platform.iommu.invalidate(None) == 0
