# SPDX-License-Identifier: GPL-2.0-only
"""The IOMMU: walks AMD v1 IO page tables in guest RAM; its IOTLB forgets only when told to.

Format: AMD I/O Virtualization Technology (IOMMU) Specification, section "I/O Page Tables for Host
Translations"; kernel file drivers/iommu/generic_pt/fmt/amdv1.h. Levels are 1 (4 KiB entries)
to 6; the root has level `mode`. The C-bit stands in the output address field at a given position.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass

from harness.emulator.memory import GuestMemory, OutsideMemory
from harness.emulator.page_state import PageStates
from harness.emulator.words import PAGE_BYTES, Reason

_PRESENT = 1 << 0
_READ = 1 << 61
_WRITE = 1 << 62
_ADDRESS = ((1 << 52) - 1) & ~0xFFF
_ENTRY_BITS = 9
_LEAF_DEFAULT = 0
_LEAF_SIZED = 7
MAX_LEVEL = 6
# A guest could otherwise fill our memory with entries; the oldest go first.
IOTLB_ENTRIES = 1 << 18


@dataclass(frozen=True, slots=True)
class Table:
    """An IO page table. root: GPA of the top page; mode: its level, 1 to 6."""

    root: int
    mode: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A translation of [iova, iova + 2**size_lg2) to [gpa, ...)."""

    iova: int
    gpa: int
    size_lg2: int
    private: bool  # the C-bit
    readable: bool
    writable: bool


class WalkFault(Exception):  # noqa: N818  (a verdict)
    """The walk found no translation."""

    def __init__(self, reason: Reason, address: int) -> None:
        super().__init__(f"{reason.name} at {address:#x}")
        self.reason = reason


def _span_lg2(level: int) -> int:
    """log2 of what one entry of a table at `level` covers."""
    return 12 + _ENTRY_BITS * (level - 1)


def _index(iova: int, level: int) -> int:
    return iova >> _span_lg2(level) & ((1 << _ENTRY_BITS) - 1)


class Iommu:
    """Walker and IOTLB. c_bit: position of the C-bit in entries (the address above it is lost)."""

    def __init__(self, c_bit: int, pages: PageStates) -> None:
        self._c_mask = 1 << c_bit
        self._pages = pages
        self._iotlb: OrderedDict[tuple[int, int, int, int], Leaf] = OrderedDict()
        self._sizes: dict[int, int] = {}  # size_lg2 -> entries of that size

    def translate(self, tdi: int, table: Table, iova: int, memory: GuestMemory) -> Leaf:
        """The leaf for `iova`, from the IOTLB or by a walk. Raises WalkFault."""
        for size_lg2 in self._sizes:
            leaf = self._iotlb.get((tdi, table.root, size_lg2, iova >> size_lg2))
            if leaf is not None:
                return leaf
        leaf = self.walk(table, iova, memory)
        key = (tdi, table.root, leaf.size_lg2, leaf.iova >> leaf.size_lg2)
        self._iotlb[key] = leaf
        self._sizes[leaf.size_lg2] = self._sizes.get(leaf.size_lg2, 0) + 1
        if len(self._iotlb) > IOTLB_ENTRIES:
            self._forget(next(iter(self._iotlb)))
        return leaf

    def _forget(self, key: tuple[int, int, int, int]) -> None:
        del self._iotlb[key]
        left = self._sizes[key[2]] - 1
        if left:
            self._sizes[key[2]] = left
        else:
            del self._sizes[key[2]]

    def invalidate(self, tdi: int | None, iova: int = 0, length: int = 1 << 64) -> int:
        """Forget entries of `tdi` (None: of all) that touch the range; how many."""
        end = iova + length
        doomed = [
            key
            for key, leaf in self._iotlb.items()
            if (tdi is None or key[0] == tdi)
            and leaf.iova < end
            and leaf.iova + (1 << leaf.size_lg2) > iova
        ]
        for key in doomed:
            self._forget(key)
        return len(doomed)

    def walk(self, table: Table, iova: int, memory: GuestMemory) -> Leaf:
        """Walk the tables, without the IOTLB. Raises WalkFault."""
        if not 1 <= table.mode <= MAX_LEVEL or table.root % PAGE_BYTES:
            raise WalkFault(Reason.TABLE_MALFORMED, table.root)
        if table.mode < MAX_LEVEL and iova >> _span_lg2(table.mode + 1):
            raise WalkFault(Reason.NOT_PRESENT, iova)
        page, level = table.root, table.mode
        readable = writable = True
        while True:
            entry = self._entry(page, _index(iova, level), memory)
            if not entry & _PRESENT:
                raise WalkFault(Reason.NOT_PRESENT, iova)
            readable = readable and bool(entry & _READ)
            writable = writable and bool(entry & _WRITE)
            next_level = entry >> 9 & 7
            if level == 1 or next_level in (_LEAF_DEFAULT, _LEAF_SIZED):
                return self._leaf(entry, level, iova, (readable, writable))
            # The level falls with each step, so no table can make us loop.
            if next_level >= level:
                raise WalkFault(Reason.TABLE_MALFORMED, page)
            skipped = (1 << _span_lg2(level)) - (1 << _span_lg2(next_level + 1))
            if iova & skipped:
                raise WalkFault(Reason.NOT_PRESENT, iova)
            page, level = entry & _ADDRESS & ~self._c_mask, next_level

    def _entry(self, page: int, index: int, memory: GuestMemory) -> int:
        if not memory.contains(page, PAGE_BYTES):
            raise WalkFault(Reason.TABLE_OUTSIDE, page)
        if self._pages.is_shared(page):
            # Tables live in trusted VM memory: the host could rewrite a shared one.
            raise WalkFault(Reason.TABLE_SHARED, page)
        try:
            value: int = struct.unpack("<Q", memory.read(page + 8 * index, 8))[0]
        except OutsideMemory as exc:
            raise WalkFault(Reason.TABLE_OUTSIDE, page) from exc
        return value

    def _leaf(self, entry: int, level: int, iova: int, rights: tuple[bool, bool]) -> Leaf:
        private = bool(entry & self._c_mask)
        address = entry & _ADDRESS & ~self._c_mask
        next_level = entry >> 9 & 7
        if next_level == _LEAF_SIZED:
            # the size stands in the address: ones below the first zero, see amdv1pt_entry_oa()
            code = address >> 12
            ones = (~code & (code + 1)).bit_length() - 1
            size_lg2 = 12 + ones + 1
            low, high = _span_lg2(level), _span_lg2(level + 1)
            if not low < size_lg2 < high or size_lg2 > 51:
                raise WalkFault(Reason.TABLE_MALFORMED, iova)
            address &= ~((1 << size_lg2) - 1)
        elif next_level == _LEAF_DEFAULT:
            size_lg2 = _span_lg2(level)
            if level == MAX_LEVEL or address & ((1 << size_lg2) - 1):
                raise WalkFault(Reason.TABLE_MALFORMED, iova)
        else:
            raise WalkFault(Reason.TABLE_MALFORMED, iova)
        base = iova >> size_lg2 << size_lg2
        return Leaf(base, address, size_lg2, private, rights[0], rights[1])
