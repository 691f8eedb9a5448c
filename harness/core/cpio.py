# SPDX-License-Identifier: GPL-2.0-only
"""The "newc" cpio archive that the kernel unpacks as initramfs.

Source: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class CpioEntry:
    """One member. mode holds the file type too; data is the link target of a symbolic link."""

    name: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(name: str) -> CpioEntry:
    return CpioEntry(name, stat.S_IFDIR | 0o755)


def executable(name: str, data: bytes) -> CpioEntry:
    return CpioEntry(name, stat.S_IFREG | 0o755, data)


def symlink(name: str, target: str) -> CpioEntry:
    return CpioEntry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int) -> CpioEntry:
    return CpioEntry(name, stat.S_IFCHR | 0o600, b"", (major, minor))


def archive(entries: Iterable[CpioEntry]) -> bytes:
    """All entries as one archive, owned by root, without times: the same input, the same bytes."""
    out = bytearray()
    for inode, entry in enumerate((*entries, CpioEntry(_TRAILER, 0)), start=1):
        name = entry.name.encode() + b"\0"
        fields = (
            inode if entry.name != _TRAILER else 0,
            entry.mode,
            0,  # uid
            0,  # gid
            2 if stat.S_ISDIR(entry.mode) else 1,
            0,  # mtime
            len(entry.data),
            0,  # device major
            0,  # device minor
            entry.rdev[0],
            entry.rdev[1],
            len(name),
            0,  # checksum, unused by "070701"
        )
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)
