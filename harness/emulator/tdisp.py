# SPDX-License-Identifier: GPL-2.0-only
"""The TDISP state machine of one TDI (PCIe r7.0, section 11), and what its host bound it to.

    UNLOCKED --lock--> LOCKED --run--> RUN        unlock: from any state to UNLOCKED
                          |             |
                          +--> ERROR <--+         a change of locked configuration, FLR, fault

Leaving RUN always ends private DMA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.emulator.iommu import Table
from harness.emulator.words import Result, TdiState


@dataclass(frozen=True, slots=True)
class Transition:
    """A change that the event log records."""

    tdi: int
    before: TdiState
    after: TdiState
    cause: str


class Tdi:
    """One TDI. on_transition is told of each change, after it happened."""

    def __init__(self, index: int, bdf: str, on_transition: Callable[[Transition], None]) -> None:
        self.index = index
        self.bdf = bdf
        self.state = TdiState.UNLOCKED
        self.connected = False  # TSM-DSM session of its device
        self.bound = False  # to the TVM
        self.generation = 0  # counts locks: evidence of an older lock is stale
        self.dma_enabled = False
        self.vtom = 0
        self.table: Table | None = None
        self._on_transition = on_transition

    def _move(self, after: TdiState, cause: str) -> None:
        before, self.state = self.state, after
        if after is not TdiState.RUN:
            self.dma_enabled = False
        if before is not after:
            self._on_transition(Transition(self.index, before, after, cause))

    def lock(self) -> Result:
        if not self.connected:
            return Result.NOT_CONNECTED
        if not self.bound:
            return Result.NOT_BOUND
        if self.state is not TdiState.UNLOCKED:
            return Result.INVALID_STATE
        self.generation += 1
        self._move(TdiState.LOCKED, "lock")
        return Result.OK

    def run(self, generation: int) -> Result:
        """generation: of the lock whose evidence the guest accepted."""
        if self.state is not TdiState.LOCKED:
            return Result.INVALID_STATE
        if generation != self.generation:
            return Result.STALE
        self._move(TdiState.RUN, "run")
        return Result.OK

    def unlock(self, cause: str = "unlock") -> Result:
        self._move(TdiState.UNLOCKED, cause)
        return Result.OK

    def error(self, cause: str) -> None:
        """LOCKED and RUN fall to ERROR; nothing changes otherwise."""
        if self.state in (TdiState.LOCKED, TdiState.RUN):
            self._move(TdiState.ERROR, cause)

    def enable_dma(self, table: Table | None, vtom: int) -> Result:
        """Private DMA on. table: replaces the attached one unless None."""
        if self.state is not TdiState.RUN or self.dma_enabled:
            return Result.INVALID_STATE
        if table is not None:
            self.table = table
        self.vtom = vtom
        self.dma_enabled = True
        return Result.OK

    def disable_dma(self) -> Result:
        """Private DMA off; harmless when it is off already, so that teardown can always call it."""
        self.dma_enabled = False
        return Result.OK

    def connect(self) -> Result:
        if self.connected:
            return Result.INVALID_STATE
        self.connected = True
        return Result.OK

    def disconnect(self) -> Result:
        """Ends the session: a locked TDI cannot stay locked without it."""
        if not self.connected:
            return Result.NOT_CONNECTED
        self.unbind()
        self.connected = False
        return Result.OK

    def bind(self, bdf: str) -> Result:
        if not self.connected:
            return Result.NOT_CONNECTED
        if self.bound:
            return Result.INVALID_STATE
        self.bound = True
        self.bdf = bdf or self.bdf
        return Result.OK

    def unbind(self) -> Result:
        """The host takes it away. What the guest attached to its vIOMMU stays the guest's."""
        if not self.bound:
            return Result.NOT_BOUND
        self._move(TdiState.UNLOCKED, "unbind")
        self.bound = False
        return Result.OK

    def conventional_reset(self) -> None:
        """No lock survives; session, binding and what the guest's vIOMMU has attached do."""
        self._move(TdiState.UNLOCKED, "reset")

    def guest_gone(self) -> None:
        """Another guest, or the same from its beginning: its vIOMMU has nothing attached."""
        self.conventional_reset()
        self.table = None
        self.vtom = 0
