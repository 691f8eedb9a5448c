# SPDX-License-Identifier: GPL-2.0-only
"""The platform: its TDIs, the security processor's two ports, and how they hang together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.emulator.eventlog import Announcements, EventLog, Piece
from harness.emulator.evidence import Device
from harness.emulator.faults import FaultRecord
from harness.emulator.function import PciFunction
from harness.emulator.iommu import Iommu
from harness.emulator.judge import Judge, Knobs
from harness.emulator.mailbox import VECTOR_FAULT, VECTOR_STATE, MailboxFunction
from harness.emulator.page_state import PageStates
from harness.emulator.security_processor import Parts, SecurityProcessor
from harness.emulator.tdi_function import TdiFunction
from harness.emulator.tdisp import Tdi, Transition
from harness.emulator.words import Direction


class Platform:
    """Everything but sockets. clock: monotonic seconds. bdfs: one TDI for each, PF0 first.

    device: an identity to keep; by default one of its own, made now.
    autobind: TDIs begin connected and bound (topology solo: there is no host to do it).
    """

    def __init__(
        self,
        knobs: Knobs,
        log: EventLog,
        clock: Callable[[], float],
        bdfs: Sequence[str] = ("01:00.0", "02:00.0"),
        *,
        autobind: bool = True,
        device: Device | None = None,
    ) -> None:
        self.knobs = knobs
        self.log = log
        self.clock = clock
        self.pages = PageStates()
        self.iommu = Iommu(knobs.c_bit, self.pages)
        self.device = device or Device()
        self.announcements = Announcements(log)
        self.tdis = [Tdi(index, bdf, self._transition) for index, bdf in enumerate(bdfs)]
        if autobind:
            for tdi in self.tdis:
                tdi.connect()
                tdi.bind("")
        judge = Judge(knobs, self.iommu, self.pages)
        self.tdi_functions = [TdiFunction(tdi, judge, self.announcements, log) for tdi in self.tdis]
        parts = Parts(knobs, self.iommu, self.pages, self.device, self.announcements, log)
        self.processor = SecurityProcessor(
            self.tdis, parts, lambda index: self.tdi_functions[index].report()
        )
        self.guest_port = self._port(host=False)
        self.host_port = self._port(host=True)
        self.guest_port.on_reset = self._guest_reset
        for function in self.tdi_functions:
            function.on_fault = self._fault_of(function.tdi)

    def _port(self, *, host: bool) -> MailboxFunction:
        return MailboxFunction(
            self.processor, self.knobs, len(self.tdis), self.clock, self.log, host=host
        )

    def _guest_reset(self) -> None:
        """Another guest, or a fresh boot of it: nothing shared, nothing locked is left."""
        self.processor.reset()
        for tdi in self.tdis:
            tdi.guest_gone()

    @property
    def functions(self) -> list[PciFunction]:
        return [*self.tdi_functions, self.guest_port, self.host_port]

    def _transition(self, change: Transition) -> None:
        self.log.write(
            "transition",
            tdi=change.tdi,
            bdf=self.tdis[change.tdi].bdf,
            before=change.before.name,
            after=change.after.name,
            cause=change.cause,
        )
        self.tdi_functions[change.tdi].transition(change)
        self.guest_port.notify(VECTOR_STATE)

    def _fault_of(self, tdi: Tdi) -> Callable[[tuple[bool, Direction], Piece], None]:
        def record(request: tuple[bool, Direction], piece: Piece) -> None:
            trusted, direction = request
            self.processor.faults.add(
                FaultRecord(
                    tdi.index,
                    piece.reason,
                    trusted,
                    direction,
                    piece.iova,
                    piece.gpa or 0,
                    piece.length,
                )
            )
            self.guest_port.notify(VECTOR_FAULT)

        return record

    def busy(self) -> bool:
        """Whether step() has something to do now."""
        return any(function.busy() for function in self.functions)

    def step(self) -> None:
        """One slice of every unfinished piece of work."""
        now = self.clock()
        for function in self.functions:
            if function.busy():
                function.step(now)

    def deadline(self) -> float | None:
        """When the next delayed answer is due."""
        due = [at for function in self.functions if (at := function.deadline()) is not None]
        return min(due, default=None)
