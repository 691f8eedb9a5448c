# SPDX-License-Identifier: GPL-2.0-only
"""The platform's vocabulary: models, TDISP states, reasons, commands, results.

The numbers are what a guest driver reads and writes; docs/platform.md lists them.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

PAGE_BYTES = 4096
ALL_ONES = (1 << 64) - 1


class Model(StrEnum):
    """Hardware model (DESIGN.md section 3)."""

    A = "A"  # T=0 bypasses the IOMMU, T=1 is translated
    B = "B"  # T=0 and T=1 walk the same tables
    N = "N"  # no vIOMMU: identity, and vTOM for T=1


class TdiState(IntEnum):
    UNLOCKED = 0
    LOCKED = 1
    RUN = 2
    ERROR = 3


class Direction(StrEnum):
    READ = "read"  # the device reads memory
    WRITE = "write"


class Reason(IntEnum):
    """Why a TLP was blocked, or an interrupt was lost. 0 is "none"."""

    NONE = 0
    BUS_MASTER_OFF = 1
    TDI_STATE = 2  # T=1 outside RUN
    DMA_DISABLED = 3  # T=1 in RUN, private DMA not enabled
    T0_LOCKED = 4  # T=0 while locked, knob locked_t0=block
    PRIVATE_PAGE = 5  # the page is private and the access is not
    SHARED_PAGE = 6  # the page is shared and the access is to private memory
    PTE_PRIVATE = 7  # T=0 through a PTE with the C-bit
    PTE_SHARED = 8  # model A: T=1 through a PTE without the C-bit
    NO_TABLE = 9
    NOT_PRESENT = 10
    PERMISSION = 11
    TABLE_OUTSIDE = 12  # a page-table page outside RAM
    TABLE_MALFORMED = 13  # misaligned root, bad level, reserved encoding, loop
    TABLE_SHARED = 14  # a page-table page in shared memory
    OUTSIDE_RAM = 15
    IOVA_WRAP = 16
    VTOM_STRADDLE = 17
    BAD_LENGTH = 18  # zero or above the engine's limit
    BAD_DESCRIPTOR = 19
    NO_MSIX = 20  # interrupt raised before the vector was set
    ABORTED = 21
    ANY = 255  # in an announcement only


class Result(IntEnum):
    """What a mailbox command gives."""

    OK = 0
    UNKNOWN_COMMAND = 1
    BAD_TDI = 2
    INVALID_STATE = 3
    BAD_ARGUMENT = 4
    NOT_BOUND = 5
    NOT_CONNECTED = 6
    TOO_SMALL = 7
    BAD_ADDRESS = 8
    STALE = 9
    DENIED = 10
    EMPTY = 11
    FAILED = 12


class Command(IntEnum):
    """Mailbox opcodes: 0x0x host, 0x1x and 0x2x guest, 0x8x tests (both ports).

    TDI_INFO is for both ports, too.
    """

    CONNECT = 0x01
    DISCONNECT = 0x02
    BIND = 0x03
    UNBIND = 0x04
    LOCK = 0x10
    EVIDENCE = 0x11
    RUN = 0x12
    UNLOCK = 0x13
    ENABLE_DMA = 0x14
    DISABLE_DMA = 0x15
    ATTACH_TABLE = 0x16
    DETACH_TABLE = 0x17
    IOTLB_INVALIDATE = 0x18
    PAGE_STATE = 0x19
    PAGE_STATE_LIST = 0x1A
    PAGE_STATE_RESET = 0x1B
    PAGE_STATE_QUERY = 0x1C
    READ_FAULT = 0x1D
    TDI_INFO = 0x1E
    INJECT = 0x80
    SET_ERROR = 0x81
    ANNOUNCE = 0x82
    CHECK = 0x83


class Injection(IntEnum):
    """What INJECT does to the next commands of an opcode. The last four are for EVIDENCE."""

    CLEAR = 0
    ERROR = 1
    DELAY = 2
    NO_ANSWER = 3
    WRONG_KEY = 4
    WRONG_CHAIN = 5
    WRONG_NONCE = 6
    WRONG_MEASUREMENT = 7


def word_name(word: IntEnum) -> str:
    """As logs and the control socket spell it: "private-page"."""
    return word.name.lower().replace("_", "-")
