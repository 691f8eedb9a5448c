# SPDX-License-Identifier: GPL-2.0-only
"""A platform without sockets: guest RAM in a memfd, drivers that poke registers."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

from harness.emulator import mailbox, tdi_function
from harness.emulator.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from harness.emulator.dma_engine import Operation
from harness.emulator.eventlog import EventLog
from harness.emulator.evidence import Device
from harness.emulator.function import PciFunction
from harness.emulator.judge import Knobs
from harness.emulator.platform import Platform
from harness.emulator.words import ALL_ONES, Command, Result, TdiState

RAM_BYTES = 16 << 20
ROOT = 0x100000  # where Tables puts its pages
C_BIT = 51
PRESENT, READ, WRITE = 1, 1 << 61, 1 << 62
DEVICE = Device()  # keys take longer than most tests


def sealed_ram(size_bytes: int = RAM_BYTES) -> int:
    """A memfd that cannot shrink, as QEMU makes it."""
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A platform whose functions share RAM_BYTES at GPA 0, with memory decoding and BME on."""

    def __init__(
        self, knobs: Knobs | None = None, log: Path | None = None, *, autobind: bool = True
    ) -> None:
        self.clock = Clock()
        self.log = EventLog(log, lambda: 0.0, keep=10000)
        self.platform = Platform(
            knobs or Knobs(), self.log, self.clock, autobind=autobind, device=DEVICE
        )
        self.ram = sealed_ram()
        for function in self.platform.functions:
            function.memory.map(0, RAM_BYTES, fd=self.ram, offset=0, flags=3)
            self.power(function)

    def close(self) -> None:
        for function in self.platform.functions:
            function.client_gone()
        os.close(self.ram)
        self.log.close()

    @staticmethod
    def power(function: PciFunction, command: int = COMMAND_MEMORY | COMMAND_MASTER) -> None:
        function.config.write(COMMAND, command.to_bytes(2, "little"))

    # -- memory as the guest's CPU sees it

    def peek(self, gpa: int, length: int) -> bytes:
        return os.pread(self.ram, length, gpa)

    def poke(self, gpa: int, data: bytes) -> None:
        os.pwrite(self.ram, data, gpa)

    # -- a guest driver

    def command(
        self, command: int, *args: int, tdi: int = 0, host: bool = False
    ) -> tuple[Result, tuple[int, ...]]:
        """Run a mailbox command to its end."""
        port = self.platform.host_port if host else self.platform.guest_port
        self.submit(command, *args, tdi=tdi, host=host)
        assert u32(port, mailbox.STATUS) == mailbox.STATUS_DONE
        outs = struct.unpack("<4Q", port.bar_read(mailbox.OUTS, 32))
        return Result(u32(port, mailbox.RESULT)), outs

    def submit(self, command: int, *args: int, tdi: int = 0, host: bool = False) -> None:
        port = self.platform.host_port if host else self.platform.guest_port
        values = (*args, *([0] * (mailbox.ARG_COUNT - len(args))))
        port.bar_write(mailbox.ARGS, struct.pack("<6Q", *values))
        port.bar_write(mailbox.TDI, struct.pack("<II", tdi, command))

    def share(self, gpa: int, pages: int, shared: bool = True) -> None:
        assert self.command(Command.PAGE_STATE, gpa, pages, int(shared))[0] is Result.OK

    def to_run(self, tdi: int = 0, *enable: int) -> None:
        """Lock, accept, and (with arguments) enable private DMA."""
        result, outs = self.command(Command.LOCK, tdi=tdi)
        assert result is Result.OK
        assert self.command(Command.RUN, outs[0], tdi=tdi)[0] is Result.OK
        if enable:
            assert self.command(Command.ENABLE_DMA, *enable, tdi=tdi)[0] is Result.OK

    def dma(
        self,
        operation: int,
        iova: int,
        length: int,
        *,
        trusted: bool = False,
        target: int = 0,
        target_trusted: bool = False,
        pattern: int = 0x0102030405060708,
        vector: int | None = None,
        tdi: int = 0,
    ) -> tuple[int, int, int]:
        """Run a descriptor to its end: (status, reason, bytes done)."""
        function = self.platform.tdi_functions[tdi]
        flags = trusted | target_trusted << 1 | operation << 4
        if vector is not None:
            flags |= 1 << 8 | vector << 16
        function.bar_write(tdi_function.FLAGS, struct.pack("<I", flags))
        function.bar_write(tdi_function.IOVA, struct.pack("<4Q", iova, target, length, pattern))
        function.bar_write(tdi_function.DOORBELL, struct.pack("<I", 1))
        while self.platform.busy():
            self.platform.step()
        return (
            u32(function, tdi_function.STATUS),
            u32(function, tdi_function.REASON),
            u32(function, tdi_function.DONE),
        )

    def write(self, iova: int, length: int = 64, **more: Any) -> tuple[int, int, int]:
        return self.dma(Operation.WRITE, iova, length, **more)

    # -- what the log says

    def events(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.log.recent if record["event"] == event]

    def state(self, tdi: int = 0) -> TdiState:
        return self.platform.tdis[tdi].state


def u32(function: PciFunction, offset: int) -> int:
    return int.from_bytes(function.bar_read(offset, 4), "little")


class Tables:
    """Builds AMD v1 IO page tables in the rig's RAM. mode: level of the root page."""

    def __init__(self, rig: Rig, mode: int = 3, root: int = ROOT) -> None:
        self._rig = rig
        self.mode = mode
        self.root = root
        self._free = root + 4096

    def entry(self, page: int, index: int) -> int:
        value: int = struct.unpack("<Q", self._rig.peek(page + 8 * index, 8))[0]
        return value

    def put(self, page: int, index: int, value: int) -> None:
        self._rig.poke(page + 8 * index, struct.pack("<Q", value))

    def map(
        self, iova: int, gpa: int, *, private: bool, level: int = 1, rights: int = READ | WRITE
    ) -> None:
        """Install one leaf at `level`."""
        page = self.root
        for at in range(self.mode, level, -1):
            index = iova >> 12 + 9 * (at - 1) & 511
            if not self.entry(page, index) & PRESENT:
                below, self._free = self._free, self._free + 4096
                self.put(page, index, below | PRESENT | (at - 1) << 9 | READ | WRITE)
            page = self.entry(page, index) & 0x000FFFFFFFFFF000 & ~(1 << C_BIT)
        leaf = gpa | PRESENT | rights | (private << C_BIT)
        self.put(page, iova >> 12 + 9 * (level - 1) & 511, leaf)


__all__ = ["ALL_ONES", "Rig", "Tables", "sealed_ram", "u32"]
