# SPDX-License-Identifier: GPL-2.0-only
"""The vfio-user wire protocol, version 0.1: encode and decode, pure.

Source: QEMU, docs/interop/vfio-user.rst. All integers have the host's order: little endian here.
"""

from __future__ import annotations

import errno
import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

HEADER = struct.Struct("<HHIII")
HEADER_BYTES = HEADER.size
MAJOR, MINOR = 0, 1
MAX_MSG_FDS = 8
MAX_DATA_BYTES = 1 << 20
# the largest message there is: a write of MAX_DATA_BYTES, and room for its header
MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 64
PAGE_SIZES = 4096
MAX_DMA_MAPS = 65535
# QEMU sends 200 at most; each may ring a doorbell, and the other functions wait for all of them
MAX_MULTI_WRITES = 200

TYPE_MASK, TYPE_COMMAND, TYPE_REPLY = 0xF, 0, 1
FLAG_NO_REPLY, FLAG_ERROR = 1 << 4, 1 << 5

REGION_BAR0, REGION_CONFIG, REGION_COUNT = 0, 7, 9
DEVICE_FLAG_RESET, DEVICE_FLAG_PCI = 1, 2
REGION_FLAG_READ, REGION_FLAG_WRITE = 1, 2
IRQ_FLAG_EVENTFD, IRQ_FLAG_MASKABLE = 1, 2

DMA_READ, DMA_WRITE, DMA_MMAP, DMA_FILE_IO = 1, 2, 4, 8
DMA_UNMAP_ALL = 2
DATA_NONE, DATA_BOOL, DATA_EVENTFD = 1, 2, 4
ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER = 8, 16, 32


class Operation(IntEnum):
    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_REGION_IO_FDS = 6
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    RESET = 13
    REGION_WRITE_MULTI = 15


class ProtocolError(Exception):
    """The stream cannot be understood any more: the connection has to end."""


class Refused(Exception):  # noqa: N818  (an answer to the client)
    """A command answered with an error. errno_value: goes into the reply."""

    def __init__(self, errno_value: int, message: str) -> None:
        super().__init__(message)
        self.errno_value = errno_value


@dataclass(frozen=True, slots=True)
class Header:
    message_id: int
    command: int
    size: int
    flags: int
    error: int

    @property
    def wants_reply(self) -> bool:
        return not self.flags & FLAG_NO_REPLY

    @property
    def body_bytes(self) -> int:
        return self.size - HEADER_BYTES


def decode_header(data: bytes) -> Header:
    """Raises ProtocolError for a size that cannot be, or a message that is not a command."""
    header = Header(*HEADER.unpack(data))
    if not HEADER_BYTES <= header.size <= MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {header.size} bytes")
    if header.flags & TYPE_MASK != TYPE_COMMAND:
        raise ProtocolError(f"message type {header.flags & TYPE_MASK} from a client")
    return header


def encode_reply(header: Header, body: bytes = b"") -> bytes:
    return (
        HEADER.pack(header.message_id, header.command, HEADER_BYTES + len(body), TYPE_REPLY, 0)
        + body
    )


def encode_error(header: Header, errno_value: int) -> bytes:
    """Only the header: an error reply has no payload."""
    return HEADER.pack(
        header.message_id, header.command, HEADER_BYTES, TYPE_REPLY | FLAG_ERROR, errno_value
    )


def unpack(layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
    """The fixed part of a request. Raises Refused(EINVAL) when the body is too short."""
    if len(body) < layout.size:
        raise Refused(errno.EINVAL, f"{len(body)} bytes of payload, {layout.size} needed")
    return layout.unpack_from(body)


_VERSION = struct.Struct("<HH")


def negotiate(body: bytes) -> bytes:
    """The reply to VERSION. Raises ProtocolError for another major version or bad JSON."""
    if len(body) < _VERSION.size:
        raise ProtocolError("VERSION without a version")
    major, minor = _VERSION.unpack_from(body)
    if major != MAJOR:
        raise ProtocolError(f"major version {major}")
    offered = _capabilities(body[_VERSION.size :])
    known: dict[str, Any] = {
        "max_msg_fds": MAX_MSG_FDS,
        "max_data_xfer_size": MAX_DATA_BYTES,
        "max_dma_maps": MAX_DMA_MAPS,
        "pgsizes": PAGE_SIZES,
        "write_multiple": True,
    }
    # "The capability list must be a subset of those proposed"; an offer of False is none
    ours = {key: value for key, value in known.items() if offered.get(key, False) is not False}
    text = json.dumps({"capabilities": ours}).encode() + b"\0"
    return _VERSION.pack(MAJOR, min(minor, MINOR)) + text


def _capabilities(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    if data[-1:] != b"\0":
        raise ProtocolError("version data without its NUL")
    try:
        value = json.loads(data[:-1].decode() or "{}")
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"version data: {exc}") from exc
    capabilities = value.get("capabilities", {}) if isinstance(value, dict) else None
    if not isinstance(capabilities, dict):
        raise ProtocolError("version data: not an object")
    return capabilities
