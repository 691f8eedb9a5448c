# SPDX-License-Identifier: GPL-2.0-only
"""PCIe configuration space of one function: capabilities, write masks, side effects.

Layout: 0x40 PCI Express, 0x80 MSI-X; extended: 0x100 DOE, 0x130 DVSEC (interface id), 0x150 IDE.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from harness.emulator.doe import SIZE_BYTES as DOE_BYTES
from harness.emulator.doe import DoeMailbox

CONFIG_BYTES = 4096
VENDOR_ID = 0x1B36  # Red Hat's, as QEMU's own emulated devices
DEVICE_TDI = 0x0DEE
DEVICE_GUEST_PORT = 0x0DEF
DEVICE_HOST_PORT = 0x0DF0
DVSEC_ID = 0x7D15

COMMAND = 0x04
COMMAND_MEMORY = 1 << 1
COMMAND_MASTER = 1 << 2
BAR0 = 0x10
PCIE_CAP = 0x40
DEVCTL = PCIE_CAP + 0x08
DEVCTL_FLR = 1 << 15
DEVCAP_FLR = 1 << 28
DEVCAP_TEE = 1 << 30
MSIX_CAP = 0x80
MSIX_ENABLE = 1 << 15
DOE_CAP = 0x100
DVSEC_CAP = 0x130
IDE_CAP = 0x150
_IDE_SELECTIVE_REGS = IDE_CAP + 0x0C
_IDE_BLOCK_BYTES = 20 + 12  # one address association block


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """What differs between functions. interface_id: for a TDI, else None."""

    device_id: int
    class_code: int
    bar_bytes: int
    msix_vectors: int
    msix_table: int  # offset in BAR0
    msix_pba: int
    interface_id: int | None = None
    tee: bool = True


class ConfigSpace:
    """Configuration space. The callbacks are set by the function that owns it.

    on_command(before, after): COMMAND changed. on_flr(): a function level reset was asked for.
    on_bar(): an address was changed.
    """

    def __init__(self, options: ConfigOptions) -> None:
        self.options = options
        self.doe: DoeMailbox | None = None
        self.on_command: Callable[[int, int], None] = lambda *_: None
        self.on_flr: Callable[[], None] = lambda: None
        self.on_bar: Callable[[], None] = lambda: None
        self._reset_value, self._mask = _build(options)
        self._data = bytearray(self._reset_value)
        if options.interface_id is not None:
            self.doe = DoeMailbox()

    @property
    def command(self) -> int:
        return int.from_bytes(self._data[COMMAND : COMMAND + 2], "little")

    @property
    def bus_master(self) -> bool:
        return bool(self.command & COMMAND_MASTER)

    @property
    def msix_enabled(self) -> bool:
        return bool(self._data[MSIX_CAP + 3] & 0x80)

    def reset(self) -> None:
        """Back to power-on values."""
        self._data[:] = self._reset_value
        if self.doe is not None:
            self.doe.reset()

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes; beyond the end reads as ones."""
        data = bytes(self._data[offset : offset + count])
        if self.doe is not None and offset < DOE_CAP + DOE_BYTES and offset + count > DOE_CAP + 8:
            data = self._overlay_doe(offset, data)
        return data + b"\xff" * (count - len(data))

    def _overlay_doe(self, offset: int, data: bytes) -> bytes:
        merged = bytearray(data)
        for index in range(len(merged)):
            register = offset + index - DOE_CAP
            if self.doe is not None and 8 <= register < DOE_BYTES:
                value = self.doe.read(register & ~3)
                merged[index] = value >> 8 * (register & 3) & 0xFF
        return bytes(merged)

    def write(self, offset: int, data: bytes) -> None:
        """Write through the masks; side effects happen after the bytes are stored."""
        if self.doe is not None and DOE_CAP + 8 <= offset < DOE_CAP + DOE_BYTES:
            # DOE registers are dwords; a shorter write is not defined and ignored
            if len(data) == 4 and offset % 4 == 0:
                self.doe.write(offset - DOE_CAP, int.from_bytes(data, "little"))
            return
        before = self.command
        bars = bytes(self._data[BAR0 : BAR0 + 24])
        flr = False
        for index, byte in enumerate(data):
            at = offset + index
            if at >= CONFIG_BYTES:
                break
            if at == DEVCTL + 1 and byte & DEVCTL_FLR >> 8:
                flr = True
            mask = self._mask[at]
            self._data[at] = self._data[at] & ~mask & 0xFF | byte & mask
        if flr:
            self.on_flr()
            return
        if bytes(self._data[BAR0 : BAR0 + 24]) != bars:
            self.on_bar()
        if self.command != before:
            self.on_command(before, self.command)


def _build(options: ConfigOptions) -> tuple[bytes, bytes]:
    """(power-on values, writable bits)."""
    data, mask = bytearray(CONFIG_BYTES), bytearray(CONFIG_BYTES)

    def put(offset: int, layout: str, value: int, writable: int = 0) -> None:
        struct.pack_into("<" + layout, data, offset, value)
        struct.pack_into("<" + layout, mask, offset, writable)

    put(0x00, "H", VENDOR_ID)
    put(0x02, "H", options.device_id)
    put(COMMAND, "H", 0, 0x0546)  # memory, bus master, parity, SERR, INTx disable
    put(0x06, "H", 0x0010)  # capability list
    put(0x08, "I", options.class_code << 8 | 1)
    put(0x0C, "B", 0, 0xFF)  # cache line size
    put(BAR0, "I", 0, ~(options.bar_bytes - 1) & 0xFFFFFFF0)
    put(0x2C, "H", VENDOR_ID)
    put(0x2E, "H", 0x1100)
    put(0x34, "B", PCIE_CAP)
    put(0x3C, "B", 0, 0xFF)  # interrupt line

    put(PCIE_CAP, "H", 0x10 | MSIX_CAP << 8)
    put(PCIE_CAP + 0x02, "H", 0x0002)  # version 2, endpoint
    tee = DEVCAP_TEE if options.tee and options.interface_id is not None else 0
    put(PCIE_CAP + 0x04, "I", 1 << 15 | DEVCAP_FLR | tee)  # role-based errors
    put(DEVCTL, "H", 0x2810, 0x78FF)  # FLR (bit 15) reads as zero
    put(PCIE_CAP + 0x0C, "I", 0x11)  # 2.5 GT/s, x1
    put(PCIE_CAP + 0x12, "H", 0x11)

    put(MSIX_CAP, "H", 0x11)
    put(MSIX_CAP + 2, "H", options.msix_vectors - 1, 0xC000)
    put(MSIX_CAP + 4, "I", options.msix_table)  # in BAR 0
    put(MSIX_CAP + 8, "I", options.msix_pba)
    if options.interface_id is not None:
        _extended(put, options.interface_id)
    return bytes(data), bytes(mask)


def _extended(put: Callable[..., None], interface_id: int) -> None:
    put(DOE_CAP, "I", 0x2E | 1 << 16 | DVSEC_CAP << 20)
    put(DVSEC_CAP, "I", 0x23 | 1 << 16 | IDE_CAP << 20)
    put(DVSEC_CAP + 4, "I", VENDOR_ID | 1 << 16 | 16 << 20)  # revision 1, 16 bytes
    put(DVSEC_CAP + 8, "I", DVSEC_ID | 0 << 16)
    put(DVSEC_CAP + 12, "I", interface_id)
    put(IDE_CAP, "I", 0x30 | 1 << 16)
    # one selective stream with IDE_KM, AES-GCM-256, TEE-limited streams
    put(IDE_CAP + 4, "I", 1 << 1 | 1 << 6 | 1 << 24)
    put(IDE_CAP + 8, "I", 0, 0x4)
    put(_IDE_SELECTIVE_REGS, "I", 1)  # one address association
    put(_IDE_SELECTIVE_REGS + 4, "I", 0, 0xFFFFFFFF)
    put(_IDE_SELECTIVE_REGS + 0x0C, "I", 0, 0x00FFFF00)
    put(_IDE_SELECTIVE_REGS + 0x10, "I", 0, 0xFFFFFF01)
    for offset in range(20, _IDE_BLOCK_BYTES, 4):
        put(_IDE_SELECTIVE_REGS + offset, "I", 0, 0xFFFFFFFF)
