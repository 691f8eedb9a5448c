# SPDX-License-Identifier: GPL-2.0-only
"""A mailbox of the security processor as a PCI function: the guest's port, or the host's.

Write TDI and arguments, then the opcode to COMMAND; STATUS is BUSY until RESULT and OUT are valid.
A command written while BUSY is ignored; opcode 0 gives up on one that never answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.emulator.config_space import (
    DEVICE_GUEST_PORT,
    DEVICE_HOST_PORT,
    ConfigOptions,
    ConfigSpace,
)
from harness.emulator.eventlog import EventLog
from harness.emulator.function import (
    BAR_BYTES,
    MSIX_PBA,
    MSIX_TABLE,
    MSIX_WRITABLE,
    PciFunction,
)
from harness.emulator.judge import Knobs
from harness.emulator.registers import RegisterFile
from harness.emulator.security_processor import Answer, Request, SecurityProcessor
from harness.emulator.words import ALL_ONES, Injection, Model, Result, word_name

VECTORS = 3
VECTOR_DONE, VECTOR_FAULT, VECTOR_STATE = 0, 1, 2
ID, VERSION, FEATURES, C_BIT, VTOM = 0x000, 0x004, 0x008, 0x00C, 0x010
TDI_COUNT, FAULTS, FAULTS_LOST = 0x018, 0x01C, 0x020
STATUS, RESULT, TDI, COMMAND = 0x040, 0x044, 0x048, 0x04C
ARGS, ARG_COUNT = 0x050, 6
OUTS, OUT_COUNT = 0x080, 4
MAGIC = int.from_bytes(b"TSMP", "little")
INTERFACE_VERSION = 0x00010000
STATUS_IDLE, STATUS_BUSY, STATUS_DONE = 0, 1, 2
FEATURE_HOST, FEATURE_LOCKED_T0_BLOCK, FEATURE_BME_ERROR = 1 << 8, 1 << 9, 1 << 10
_MODEL_CODE = {Model.A: 0, Model.B: 1, Model.N: 2}


class MailboxFunction(PciFunction):
    """Registers: docs/platform.md, "Security processor". clock: monotonic seconds."""

    def __init__(
        self,
        processor: SecurityProcessor,
        knobs: Knobs,
        tdi_count: int,
        clock: Callable[[], float],
        log: EventLog,
        *,
        host: bool,
    ) -> None:
        config = ConfigSpace(
            ConfigOptions(
                device_id=DEVICE_HOST_PORT if host else DEVICE_GUEST_PORT,
                class_code=0x108000,  # other encryption controller
                bar_bytes=BAR_BYTES,
                msix_vectors=VECTORS,
                msix_table=MSIX_TABLE,
                msix_pba=MSIX_PBA,
            )
        )
        registers = RegisterFile(
            BAR_BYTES, [(TDI, COMMAND), (ARGS, ARGS + 8 * ARG_COUNT), MSIX_WRITABLE]
        )
        super().__init__("tsm-host" if host else "tsm-guest", config, registers, log)
        self._processor = processor
        self._clock = clock
        self._host = host
        self._status = STATUS_IDLE
        self._answer = Answer(Result.OK)
        self._delayed: tuple[float, Request] | None = None
        features = _MODEL_CODE[knobs.model]
        features |= FEATURE_HOST if host else 0
        features |= FEATURE_LOCKED_T0_BLOCK if knobs.locked_t0 == "block" else 0
        features |= FEATURE_BME_ERROR if knobs.bme_clear == "error" else 0
        fixed = {
            ID: MAGIC,
            VERSION: INTERFACE_VERSION,
            FEATURES: features,
            C_BIT: knobs.c_bit,
            VTOM: knobs.vtom & 0xFFFFFFFF,
            VTOM + 4: knobs.vtom >> 32,
            TDI_COUNT: tdi_count,
        }
        for offset, value in fixed.items():
            registers.put32(offset, value)
        registers.computed = {
            FAULTS: lambda: len(processor.faults),
            FAULTS_LOST: lambda: processor.faults.lost,
            STATUS: lambda: self._status,
            RESULT: lambda: self._answer.result,
        }
        registers.doorbells = {COMMAND: self._command}

    def _command(self, opcode: int) -> None:
        if opcode == 0:
            self._delayed = None
            self._status = STATUS_IDLE
            return
        if self._status == STATUS_BUSY:
            self.log.write("bad-register", function=self.name, register="command", value=opcode)
            return
        args = tuple(self.registers.u64(ARGS + 8 * number) for number in range(ARG_COUNT))
        request = Request(opcode, self.registers.u32(TDI), args, self.memory, self._host)
        self._status = STATUS_BUSY
        injected = self._processor.injections.use(opcode)
        if injected is None:
            self._finish(self._processor.execute(request))
            return
        kind, value = injected
        self.log.write("injected", command=opcode, kind=word_name(kind))
        if kind is Injection.ERROR:
            self._finish(Answer(Result(value)))
        elif kind is Injection.DELAY:
            self._delayed = (self._clock() + value / 1000, request)
        elif kind is not Injection.NO_ANSWER:
            self._finish(self._processor.execute(replace(request, injection=kind)))

    def _finish(self, answer: Answer) -> None:
        self._answer = answer
        for number in range(OUT_COUNT):
            value = answer.outs[number] if number < len(answer.outs) else 0
            self.registers.put64(OUTS + 8 * number, value & ALL_ONES)
        self._status = STATUS_DONE
        self.notify(VECTOR_DONE)

    def flr(self) -> None:
        # vfio-pci of a host resets so what it hands to a guest and takes back
        super().flr()
        self.on_reset()

    def function_reset(self) -> None:
        self._delayed = None
        self._status = STATUS_IDLE
        self._answer = Answer(Result.OK)
        self.registers.put32(TDI, 0)
        self.registers.put_block(ARGS, bytes(8 * (ARG_COUNT + OUT_COUNT)))

    def busy(self) -> bool:
        return self._delayed is not None and self._delayed[0] <= self._clock()

    def step(self, now: float) -> None:
        if self._delayed is not None and self._delayed[0] <= now:
            request = self._delayed[1]
            self._delayed = None
            self._finish(self._processor.execute(request))

    def deadline(self) -> float | None:
        return self._delayed[0] if self._delayed else None
