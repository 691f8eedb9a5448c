# SPDX-License-Identifier: GPL-2.0-only
"""ELF notes, as /sys/kernel/notes holds them (elf(5), Elf64_Nhdr; little-endian)."""

from __future__ import annotations

import struct

_NT_GNU_BUILD_ID = 3
_HEADER = struct.Struct("<III")


def build_id(notes: bytes) -> str:
    """Hex GNU build id; "" when there is none or the notes are malformed."""
    at = 0
    while at + _HEADER.size <= len(notes):
        name_size, data_size, kind = _HEADER.unpack_from(notes, at)
        name_at = at + _HEADER.size
        data_at = name_at + _aligned(name_size)
        at = data_at + _aligned(data_size)
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            data = notes[data_at : data_at + data_size]
            return data.hex() if len(data) == data_size else ""
    return ""


def _aligned(size: int) -> int:
    return (size + 3) & ~3
