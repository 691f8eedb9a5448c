# SPDX-License-Identifier: GPL-2.0-only
"""A TDI as a PCI function: its DMA engine behind BAR0, its locked configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from harness.emulator.config_space import (
    COMMAND_MASTER,
    COMMAND_MEMORY,
    DEVICE_TDI,
    ConfigOptions,
    ConfigSpace,
)
from harness.emulator.dma_engine import BUFFER_BYTES, Blocked, Descriptor, DmaEngine
from harness.emulator.eventlog import Announcements, EventLog, Piece, TlpLog
from harness.emulator.evidence import interface_report
from harness.emulator.function import (
    BAR_BYTES,
    MSIX_PBA,
    MSIX_TABLE,
    MSIX_WRITABLE,
    PciFunction,
)
from harness.emulator.judge import Judge, Requester
from harness.emulator.memory import OutsideMemory
from harness.emulator.registers import RegisterFile
from harness.emulator.tdisp import Tdi, Transition
from harness.emulator.words import PAGE_BYTES, Direction, Reason, TdiState, word_name

VECTORS = 4
ID, VERSION, INTERFACE_ID, STATE = 0x000, 0x004, 0x008, 0x00C
DOORBELL, STATUS, REASON, FLAGS = 0x100, 0x104, 0x108, 0x10C
IOVA, TARGET, LENGTH, PATTERN = 0x110, 0x118, 0x120, 0x128
DONE, FAULT_IOVA, CRC, RAISE = 0x130, 0x138, 0x140, 0x148
ANNOUNCE, PENDING, UNANNOUNCED, CHECK = 0x200, 0x204, 0x208, 0x20C
BUFFER = 0x1000
MAGIC = int.from_bytes(b"TDID", "little")
INTERFACE_VERSION = 0x00010000

FLAG_TRUSTED = 1 << 0
FLAG_TARGET_TRUSTED = 1 << 1
FLAG_INTERRUPT = 1 << 8
DOORBELL_START, DOORBELL_ABORT = 1, 2

# moves bytes between memory at a GPA and the transfer's data: (gpa, offset in the data, length)
Move: TypeAlias = Callable[[int, int, int], None]
Fault: TypeAlias = Callable[[tuple[bool, Direction], Piece], None]


class TdiFunction(PciFunction):
    """Registers: docs/platform.md, "TDI". `tdi` is the same object the security processor has."""

    def __init__(self, tdi: Tdi, judge: Judge, announcements: Announcements, log: EventLog) -> None:
        config = ConfigSpace(
            ConfigOptions(
                device_id=DEVICE_TDI,
                class_code=0xFF0000,
                bar_bytes=BAR_BYTES,
                msix_vectors=VECTORS,
                msix_table=MSIX_TABLE,
                msix_pba=MSIX_PBA,
                interface_id=tdi.index,
            )
        )
        registers = RegisterFile(
            BAR_BYTES, [(FLAGS, DONE), (BUFFER, BUFFER + BUFFER_BYTES), MSIX_WRITABLE]
        )
        super().__init__(f"tdi{tdi.index}", config, registers, log)
        self.tdi = tdi
        self._judge = judge
        self._announcements = announcements
        self.on_fault: Fault = lambda *_: None
        self.engine = DmaEngine(JudgedPort(self, judge, announcements), self._ended)
        config.on_command = self._command_changed
        config.on_bar = lambda: tdi.error("BAR changed while locked")
        self._wire()

    def _wire(self) -> None:
        def low(value: int) -> int:
            return value & 0xFFFFFFFF

        engine = self.engine
        self.registers.computed = {
            ID: lambda: MAGIC,
            VERSION: lambda: INTERFACE_VERSION,
            INTERFACE_ID: lambda: self.tdi.index,
            STATE: lambda: self.tdi.state,
            STATUS: lambda: engine.progress.status,
            REASON: lambda: engine.progress.reason,
            DONE: lambda: low(engine.progress.done),
            DONE + 4: lambda: engine.progress.done >> 32,
            FAULT_IOVA: lambda: low(engine.progress.fault_iova),
            FAULT_IOVA + 4: lambda: engine.progress.fault_iova >> 32,
            CRC: lambda: engine.progress.crc,
            PENDING: lambda: self._announcements.pending,
            UNANNOUNCED: lambda: self._announcements.unannounced,
        }
        self.registers.doorbells = {
            DOORBELL: self._doorbell,
            RAISE: self._raise,
            ANNOUNCE: self._announce,
            CHECK: self._check,
        }

    def report(self) -> bytes:
        """The TDISP interface report."""
        return interface_report(BAR_BYTES // PAGE_BYTES, VECTORS - 1)

    def _doorbell(self, value: int) -> None:
        if value == DOORBELL_ABORT:
            self.engine.abort()
            self._after_slice()
        elif value == DOORBELL_START and not self.engine.busy:
            flags = self.registers.u32(FLAGS)
            self.engine.buffer[:] = self.registers.block(BUFFER, BUFFER + BUFFER_BYTES)
            self.engine.start(
                Descriptor(
                    operation=flags >> 4 & 0xF,
                    iova=self.registers.u64(IOVA),
                    length=self.registers.u64(LENGTH),
                    trusted=bool(flags & FLAG_TRUSTED),
                    target=self.registers.u64(TARGET),
                    target_trusted=bool(flags & FLAG_TARGET_TRUSTED),
                    pattern=self.registers.block(PATTERN, PATTERN + 8),
                    vector=flags >> 16 & 0xFF if flags & FLAG_INTERRUPT else None,
                )
            )
            self._after_slice()

    def _after_slice(self) -> None:
        self.registers.put_block(BUFFER, bytes(self.engine.buffer))

    def _ended(self, vector: int | None) -> None:
        progress = self.engine.progress
        if progress.reason in (Reason.BAD_LENGTH, Reason.BAD_DESCRIPTOR, Reason.ABORTED):
            self.log.write("engine", tdi=self.tdi.index, refused=word_name(progress.reason))
        if vector is not None:
            self.raise_interrupt(vector)

    def _raise(self, value: int) -> None:
        self.raise_interrupt(value & 0xFF)

    def _announce(self, value: int) -> None:
        """bits 7:0 reason (255 any), bits 31:8 how many (0: take back)."""
        try:
            reason = Reason(value & 0xFF)
        except ValueError:
            self.log.write("bad-register", function=self.name, register="announce", value=value)
            return
        self._announcements.announce(self.tdi.index, reason, value >> 8)

    def _check(self, value: int) -> None:
        self._announcements.check(f"register {value:#x}")

    def _command_changed(self, before: int, after: int) -> None:
        strict = self._judge.knobs.bme_clear == "error"
        if strict and before & COMMAND_MASTER and not after & COMMAND_MASTER:
            self.tdi.error("bus mastering cleared while locked")
        if before & COMMAND_MEMORY and not after & COMMAND_MEMORY:
            self.tdi.error("memory decoding cleared while locked")

    def client_gone(self) -> None:
        self.engine.abort()
        super().client_gone()

    def flr(self) -> None:
        self.tdi.error("function level reset while locked")
        super().flr()

    def conventional_reset(self) -> None:
        self.tdi.conventional_reset()
        super().conventional_reset()

    def function_reset(self) -> None:
        self.engine.reset()
        self.registers.put_block(FLAGS, bytes(DONE - FLAGS))
        self.registers.put_block(BUFFER, bytes(BUFFER_BYTES))

    def transition(self, change: Transition) -> None:
        """What a TDISP transition does to the device: confidential data does not outlive RUN."""
        if change.before is TdiState.RUN:
            self.engine.scrub()
            self.registers.put_block(BUFFER, bytes(BUFFER_BYTES))

    def busy(self) -> bool:
        return self.engine.busy

    def step(self, now: float) -> None:
        del now
        if self.engine.busy:
            self.engine.step()
            self._after_slice()


class JudgedPort:
    """The engine's way to memory: judges, logs, and only then touches guest memory."""

    def __init__(self, function: TdiFunction, judge: Judge, announcements: Announcements) -> None:
        self._function = function
        self._judge = judge
        self._announcements = announcements
        self._tlps = TlpLog(function.log)

    def refuse(self, request: tuple[bool, Direction], iova: int, length: int) -> Reason:
        reason = self._judge.whole(self._function.tdi, request[0], iova, length)
        if reason is not Reason.NONE:
            self._log(request, Piece(iova, None, length, 1, reason))
        return reason

    def read(self, trusted: bool, iova: int, length: int) -> bytes:
        parts: list[bytes] = []

        def move(gpa: int, at: int, size: int) -> None:
            del at
            parts.append(self._function.memory.read(gpa, size))

        self._transfer((trusted, Direction.READ), iova, length, move)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, trusted: bool, iova: int, data: bytes) -> None:
        view = memoryview(data)

        def move(gpa: int, at: int, size: int) -> None:
            self._function.memory.write(gpa, view[at : at + size])

        self._transfer((trusted, Direction.WRITE), iova, len(data), move)

    def _transfer(
        self, request: tuple[bool, Direction], iova: int, length: int, move: Move
    ) -> None:
        for piece in self._pieces(request, iova, length):
            done = piece.iova - iova
            if piece.reason is Reason.NONE and piece.gpa is not None:
                try:
                    move(piece.gpa, done, piece.length)
                except OutsideMemory:  # the client took memory away under us
                    piece.reason = Reason.OUTSIDE_RAM
            self._log(request, piece)
            if piece.reason is not Reason.NONE:
                raise Blocked(piece.reason, piece.iova, done)

    def _pieces(self, request: tuple[bool, Direction], iova: int, length: int) -> Iterator[Piece]:
        """The transfer judged: allowed pieces with adjoining GPAs joined, up to a blocked one."""
        function = self._function
        who = Requester(function.tdi, function.config.bus_master, function.memory)
        stretch = self._judge.stretch
        piece: Piece | None = None
        at, end = iova, iova + length
        while at < end:
            reason, covered, gpa = stretch(who, request[0], at, end - at, request[1])
            tlps = (at + covered - 1) // PAGE_BYTES - at // PAGE_BYTES + 1
            joins = reason is Reason.NONE and piece is not None and piece.end_gpa == gpa
            if piece is not None and joins:
                piece.length += covered
                piece.tlps += tlps
            else:
                if piece is not None:
                    yield piece
                piece = Piece(at, gpa, covered, tlps, reason)
                if reason is not Reason.NONE:
                    break
            at += covered
        if piece is not None:
            yield piece

    def _log(self, request: tuple[bool, Direction], piece: Piece) -> None:
        tdi = self._function.tdi
        announced = piece.reason is not Reason.NONE and self._announcements.use(
            tdi.index, piece.reason
        )
        self._tlps.write((tdi.index, tdi.bdf), (int(request[0]), request[1]), piece, announced)
        if piece.reason is not Reason.NONE:
            self._function.on_fault(request, piece)
