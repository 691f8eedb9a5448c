# SPDX-License-Identifier: GPL-2.0-only
"""A Data Object Exchange mailbox (PCIe r6.1, section 6.30): discovery, and a refusing CMA peer.

Any disorder (wrong length, a write while a response waits, a read without one) sets the Error
bit, which only Abort clears: the kernel's `pci_doe_abort()` is the other side of it.
"""

from __future__ import annotations

CTRL_ABORT = 1 << 0
CTRL_GO = 1 << 31
STATUS_BUSY = 1 << 0
STATUS_ERROR = 1 << 2
STATUS_READY = 1 << 31

REG_CTRL = 0x08
REG_STATUS = 0x0C
REG_WRITE = 0x10
REG_READ = 0x14
SIZE_BYTES = 0x18

VENDOR_PCI_SIG = 0x0001
TYPE_DISCOVERY, TYPE_CMA, TYPE_SECURE_SESSION = 0, 1, 2
_FEATURES = (TYPE_DISCOVERY, TYPE_CMA, TYPE_SECURE_SESSION)
_MAX_DWORDS = 1024  # longer objects are refused; the format allows 2**18
_SPDM_ERROR, _SPDM_UNSUPPORTED = 0x7F, 0x07


class DoeMailbox:
    """The mailbox registers. Offsets are relative to the extended capability."""

    def __init__(self) -> None:
        self._request: list[int] = []
        self._response: list[int] = []
        self._error = False

    def read(self, register: int) -> int:
        """A 32-bit register; unknown ones read as zero."""
        if register == REG_STATUS:
            ready = STATUS_READY if self._response and not self._error else 0
            return ready | (STATUS_ERROR if self._error else 0)
        if register == REG_READ and self._response and not self._error:
            return self._response[0]
        return 0

    def write(self, register: int, value: int) -> None:
        """Write a 32-bit register; unknown and read-only ones are ignored."""
        if register == REG_CTRL:
            if value & CTRL_ABORT:
                self.reset()
            elif value & CTRL_GO:
                self._go()
        elif register == REG_WRITE:
            if self._response or len(self._request) >= _MAX_DWORDS:
                self._error = True
            elif not self._error:
                self._request.append(value)
        elif register == REG_READ:
            # any write to the read mailbox acknowledges one dword
            if self._response and not self._error:
                self._response.pop(0)
            else:
                self._error = True

    def reset(self) -> None:
        """Abort, or a reset of the function."""
        self._request, self._response, self._error = [], [], False

    def _go(self) -> None:
        request, self._request = self._request, []
        if self._error:
            return
        if len(request) < 2 or request[1] & 0x3FFFF != len(request):
            self._error = True
            return
        vendor, kind = request[0] & 0xFFFF, request[0] >> 16 & 0xFF
        if vendor == VENDOR_PCI_SIG and kind == TYPE_DISCOVERY:
            self._discovery(request)
        elif vendor == VENDOR_PCI_SIG and kind == TYPE_CMA and len(request) > 2:
            self._respond(kind, [_spdm_error(request[2])])
        # Section 6.30.1: a data object of an unsupported type is silently dropped.

    def _discovery(self, request: list[int]) -> None:
        if len(request) != 3:
            self._error = True
            return
        index = request[2] & 0xFF
        if index >= len(_FEATURES):
            self._respond(TYPE_DISCOVERY, [0xFFFF])
            return
        following = (index + 1) % len(_FEATURES)
        answer = VENDOR_PCI_SIG | _FEATURES[index] << 16 | following << 24
        self._respond(TYPE_DISCOVERY, [answer])

    def _respond(self, kind: int, payload: list[int]) -> None:
        header = VENDOR_PCI_SIG | kind << 16
        self._response = [header, 2 + len(payload), *payload]


def _spdm_error(request: int) -> int:
    """SPDM ERROR(UnsupportedRequest) as one dword: version, code, error, request code."""
    version, code = request & 0xFF, request >> 8 & 0xFF
    return version | _SPDM_ERROR << 8 | _SPDM_UNSUPPORTED << 16 | code << 24
