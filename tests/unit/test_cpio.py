# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs archive, read back by cpio's own rules."""

from __future__ import annotations

import stat

from harness.core import cpio


def members(data: bytes) -> list[tuple[str, int, bytes]]:
    """A reader of the newc format, from its documentation: name, mode, content."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size
        start += -start % 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, data[start : start + size]))
        at = start + size
        at += -at % 4


def test_members_come_back_with_mode_and_content() -> None:
    entries = [
        cpio.directory("bin"),
        cpio.executable("bin/odd", b"12345"),
        cpio.symlink("init", "bin/odd"),
        cpio.character_device("dev/console", 5, 1),
    ]
    found = members(cpio.archive(entries))
    assert [(name, data) for name, _, data in found] == [
        ("bin", b""),
        ("bin/odd", b"12345"),
        ("init", b"bin/odd"),
        ("dev/console", b""),
    ]
    kinds = [stat.S_IFMT(mode) for _, mode, _ in found]
    assert kinds == [stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR]
    assert found[1][1] & 0o111


def test_same_input_same_bytes() -> None:
    entries = [cpio.executable("a", b"x")]
    assert cpio.archive(entries) == cpio.archive(list(entries))
