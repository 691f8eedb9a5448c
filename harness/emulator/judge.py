# SPDX-License-Identifier: GPL-2.0-only
"""The judging table of DESIGN.md section 3, pure: may this TLP reach memory, and where?

    model | T=0                                | T=1 (RUN, private DMA enabled)
    A     | GPA = IOVA, page shared            | walk; C-bit set, page private
    B     | walk; C-bit clear, page shared     | walk; C-bit equals page state
    N     | GPA = IOVA, page shared            | below vTOM private, above it (minus vTOM) shared

Bus-master enable comes before everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.emulator.iommu import Iommu, Table, WalkFault
from harness.emulator.memory import GuestMemory
from harness.emulator.page_state import PageStates
from harness.emulator.tdisp import Tdi
from harness.emulator.words import ALL_ONES, PAGE_BYTES, Direction, Model, Reason, TdiState

_MAX_RUN = 1 << 30


@dataclass(frozen=True, slots=True)
class Knobs:
    """The platform's settings. vtom: what model N suggests to guests (page-aligned or all ones)."""

    model: Model = Model.B
    vtom: int = ALL_ONES
    locked_t0: str = "allow"  # or "block": T=0 blocked until the TDI is unlocked
    bme_clear: str = "error"  # or "ignore": clearing bus mastering while locked
    c_bit: int = 51


@dataclass(frozen=True, slots=True)
class Requester:
    """Who sends: the TDI, whether its COMMAND has bus mastering on, and its memory."""

    tdi: Tdi
    bus_master: bool
    memory: GuestMemory


class Verdict(NamedTuple):
    """For [iova, iova + length): reason NONE means it may go to `gpa`."""

    reason: Reason
    length: int
    gpa: int | None = None


class Judge:
    """Judges stretches of a transfer."""

    def __init__(self, knobs: Knobs, iommu: Iommu, pages: PageStates) -> None:
        self.knobs = knobs
        self._iommu = iommu
        self._pages = pages

    def whole(self, tdi: Tdi, trusted: bool, iova: int, length: int) -> Reason:
        """What is wrong with a transfer as a whole: no TLP of it is sent then."""
        if iova + length > 1 << 64:
            return Reason.IOVA_WRAP
        split = trusted and self.knobs.model is Model.N and tdi.dma_enabled
        if split and tdi.vtom != ALL_ONES and iova < tdi.vtom < iova + length:
            return Reason.VTOM_STRADDLE
        return Reason.NONE

    def stretch(
        self, who: Requester, trusted: bool, iova: int, length: int, direction: Direction
    ) -> Verdict:
        """The verdict on the longest stretch from `iova` on that shares one. length > 0.

        A blocked stretch is at most the rest of its page: that is where the transfer stops.
        """
        blocked = min(length, PAGE_BYTES - iova % PAGE_BYTES)
        reason = self._may_send(who, trusted)
        if reason is not Reason.NONE:
            return Verdict(reason, blocked)
        try:
            gpa, covered, wants_private = self._resolve(who, trusted, iova, direction)
        except WalkFault as fault:
            return Verdict(fault.reason, blocked)
        if self._pages.is_shared(gpa) == wants_private:
            reason = Reason.SHARED_PAGE if wants_private else Reason.PRIVATE_PAGE
            return Verdict(reason, blocked, gpa)
        covered = self._pages.run_bytes(gpa, min(covered, length))
        if not who.memory.contains(gpa, covered):
            covered = min(covered, PAGE_BYTES - gpa % PAGE_BYTES)
            if not who.memory.contains(gpa, covered):
                return Verdict(Reason.OUTSIDE_RAM, blocked, gpa)
        return Verdict(Reason.NONE, covered, gpa)

    def _may_send(self, who: Requester, trusted: bool) -> Reason:
        if not who.bus_master:
            return Reason.BUS_MASTER_OFF
        if not trusted:
            held = self.knobs.locked_t0 == "block" and who.tdi.state is not TdiState.UNLOCKED
            return Reason.T0_LOCKED if held else Reason.NONE
        if who.tdi.state is not TdiState.RUN:
            return Reason.TDI_STATE
        return Reason.NONE if who.tdi.dma_enabled else Reason.DMA_DISABLED

    def _resolve(
        self, who: Requester, trusted: bool, iova: int, direction: Direction
    ) -> tuple[int, int, bool]:
        """(GPA, bytes that the translation covers, whether the access is to private memory)."""
        model = self.knobs.model
        if model is Model.N and trusted:
            vtom = who.tdi.vtom
            if vtom == ALL_ONES:
                return iova, _MAX_RUN, True
            if iova < vtom:  # it may have moved into a transfer that was begun before
                return iova, vtom - iova, True
            return iova - vtom, _MAX_RUN, False
        if model is not Model.B and not trusted:
            return iova, _MAX_RUN, False
        return self._walk(who, trusted, iova, direction)

    def _walk(
        self, who: Requester, trusted: bool, iova: int, direction: Direction
    ) -> tuple[int, int, bool]:
        table: Table | None = who.tdi.table
        if table is None:
            raise WalkFault(Reason.NO_TABLE, iova)
        leaf = self._iommu.translate(who.tdi.index, table, iova, who.memory)
        if not (leaf.readable if direction is Direction.READ else leaf.writable):
            raise WalkFault(Reason.PERMISSION, iova)
        if leaf.private and not trusted:
            raise WalkFault(Reason.PTE_PRIVATE, iova)
        if not leaf.private and trusted and self.knobs.model is Model.A:
            raise WalkFault(Reason.PTE_SHARED, iova)
        inside = iova - leaf.iova
        return leaf.gpa + inside, (1 << leaf.size_lg2) - inside, leaf.private
