# SPDX-License-Identifier: GPL-2.0-only
"""One PCI function as the vfio-user server sees it: configuration space, BAR0, interrupts."""

from __future__ import annotations

from collections.abc import Callable

from harness.emulator.config_space import COMMAND_MEMORY, ConfigSpace
from harness.emulator.eventlog import EventLog
from harness.emulator.interrupts import MSIX, Interrupts
from harness.emulator.memory import GuestMemory
from harness.emulator.registers import RegisterFile
from harness.emulator.words import Reason, word_name

BAR_BYTES = 0x4000
MSIX_TABLE = 0x2000
MSIX_PBA = 0x3000
# the client keeps the table's meaning (it hands us event descriptors); we keep its bytes
MSIX_WRITABLE = (MSIX_TABLE, MSIX_TABLE + 0x100)


class PciFunction:
    """Base of the platform's functions. name: of its socket ("tdi0", "tsm-guest")."""

    def __init__(
        self, name: str, config: ConfigSpace, registers: RegisterFile, log: EventLog
    ) -> None:
        self.name = name
        self.config = config
        self.registers = registers
        self.memory = GuestMemory()
        self.interrupts = Interrupts(config.options.msix_vectors)
        self.log = log
        self.on_reset: Callable[[], None] = lambda: None
        config.on_flr = self.flr

    def client_connected(self) -> None:
        self.log.write("client", function=self.name, connected=True)

    def client_gone(self) -> None:
        """vfio-user: unmap memory, drop interrupts, keep the device's state."""
        self.memory.clear()
        self.interrupts.close()
        self.log.write("client", function=self.name, connected=False)

    def raise_interrupt(self, vector: int) -> Reason:
        """Send an MSI-X message; NONE when it was delivered. An MSI is a write: it needs BME."""
        if not self.config.bus_master:
            reason = Reason.BUS_MASTER_OFF
        elif self.interrupts.trigger(MSIX, vector):
            reason = Reason.NONE
        else:
            reason = Reason.NO_MSIX
        self.log.write("irq", function=self.name, vector=vector, lost=word_name(reason))
        return reason

    def notify(self, vector: int) -> None:
        """Raise an interrupt that the driver may do without: nothing is lost when it polls."""
        if self.interrupts.assigned(MSIX, vector):
            self.raise_interrupt(vector)

    def bar_read(self, offset: int, count: int) -> bytes:
        """BAR0. The caller has checked the range. All ones while memory decoding is off."""
        if not self.config.command & COMMAND_MEMORY:
            return b"\xff" * count
        return self.registers.read(offset, count)

    def bar_write(self, offset: int, data: bytes) -> None:
        if self.config.command & COMMAND_MEMORY:
            self.registers.write(offset, data)

    def flr(self) -> None:
        """Function level reset, asked for through Device Control."""
        self.log.write("flr", function=self.name)
        self.config.reset()
        self.function_reset()

    def conventional_reset(self) -> None:
        """The machine was reset (VFIO_USER_DEVICE_RESET)."""
        self.log.write("reset", function=self.name)
        self.config.reset()
        self.function_reset()
        self.on_reset()

    def function_reset(self) -> None:
        """What any reset does to the registers."""

    def busy(self) -> bool:
        """Whether step() has work to do now."""
        return False

    def step(self, now: float) -> None:
        """Go on with work that takes longer than one register access. now: monotonic seconds."""
        del now

    def deadline(self) -> float | None:
        """When step() is to be called although nothing is busy, in monotonic seconds."""
        return None
