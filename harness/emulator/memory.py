# SPDX-License-Identifier: GPL-2.0-only
"""The memory a client shared with DMA_MAP: bounds-checked, nothing else is ever touched.

Each file is opened once, by device and inode; further descriptors of it are closed at once (a VM
can send 65,000 mappings of the same file). A file that cannot shrink is mapped. Any other is
accessed with pread/pwrite: a client that truncated a mapped file would kill us with SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from harness.emulator.words import PAGE_BYTES

# A vIOMMU in front of us may map each 4 KiB page: more than the protocol's usual 65535.
MAX_REGIONS = 1 << 20
# Each takes a descriptor, and all functions together have as many as a process may have.
MAX_FILES = 32
_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2


class MapRefused(Exception):  # noqa: N818  (an answer to the client, not a failure of ours)
    """A DMA_MAP or DMA_UNMAP that is refused. errno_value: for the reply."""

    def __init__(self, errno_value: int, message: str) -> None:
        super().__init__(message)
        self.errno_value = errno_value


class OutsideMemory(Exception):  # noqa: N818
    """An access to an address range that is not wholly mapped, or not with that permission."""


class Backing(Protocol):
    """One shared file. Offsets are checked against `size_bytes` by the caller."""

    size_bytes: int

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes | memoryview) -> None: ...

    def close(self) -> None: ...


class MappedFile:
    """A file that cannot shrink, mapped as a whole."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._map = mmap.mmap(fd, size_bytes)

    def read(self, offset: int, length: int) -> bytes:
        return self._map[offset : offset + length]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self._map[offset : offset + len(data)] = data

    def close(self) -> None:
        self._map.close()


class PlainFile:
    """A file that might shrink: system calls, which fail where a mapping would kill."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._fd = os.dup(fd)

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as exc:
            raise OutsideMemory(f"the client's file: {exc}") from exc
        if len(data) != length:
            raise OutsideMemory(f"the client's file ends before {offset + length:#x}")
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        try:
            if os.fstat(self._fd).st_size < offset + len(data):
                raise OutsideMemory(f"the client's file ends before {offset + len(data):#x}")
            if os.pwrite(self._fd, data, offset) != len(data):
                raise OutsideMemory("short write to the client's file")
        except OSError as exc:
            raise OutsideMemory(f"the client's file: {exc}") from exc

    def close(self) -> None:
        os.close(self._fd)


def _cannot_shrink(fd: int) -> bool:
    try:
        return bool(fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK)
    except OSError:  # not a memfd
        return False


def _open_backing(fd: int) -> Backing:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise MapRefused(errno.EINVAL, "not a regular file")
    if _cannot_shrink(fd):
        # a read-only descriptor cannot be mapped for both; it still serves reads
        with contextlib.suppress(OSError, ValueError):
            return MappedFile(fd, status.st_size)
    return PlainFile(fd, status.st_size)


@dataclass(frozen=True, slots=True)
class Region:
    """[address, end) of guest-physical memory. backing None: known, but not accessible to us."""

    address: int
    size_bytes: int
    offset: int
    readable: bool
    writable: bool
    backing: Backing | None

    @property
    def end(self) -> int:
        return self.address + self.size_bytes


class Extents:
    """Ranges of addresses, neighbours joined."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """start: not below the end of the range before."""
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = end
        else:
            self._starts.append(start)
            self._ends.append(end)

    def contains(self, address: int, length: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address + length <= self._ends[at]


class GuestMemory:
    """The address space one client gave to one function."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self._files: dict[tuple[int, int], Backing] = {}
        self._opened: list[Backing] = []  # also those that a grown file has left behind

    def map(
        self, address: int, size_bytes: int, *, fd: int | None, offset: int, flags: int
    ) -> None:
        """Add a region. fd is not kept and not closed here. flags: bit 0 read, bit 1 write.

        Raises MapRefused: EINVAL (shape, file too small), EEXIST (overlap), ENOSPC (too many
        regions or files).
        """
        end = address + size_bytes
        if size_bytes == 0 or end > 1 << 64 or address % PAGE_BYTES or size_bytes % PAGE_BYTES:
            raise MapRefused(errno.EINVAL, f"bad range {address:#x}+{size_bytes:#x}")
        if len(self._regions) >= MAX_REGIONS:
            raise MapRefused(errno.ENOSPC, "too many regions")
        at = bisect_right(self._starts, address)
        before = self._regions[at - 1] if at else None
        after = self._regions[at] if at < len(self._regions) else None
        if (before and before.end > address) or (after and after.address < end):
            raise MapRefused(errno.EEXIST, f"{address:#x}+{size_bytes:#x} overlaps a region")
        backing = self._backing(fd, offset + size_bytes) if fd is not None else None
        region = Region(address, size_bytes, offset, bool(flags & 1), bool(flags & 2), backing)
        self._starts.insert(at, address)
        self._regions.insert(at, region)

    def _backing(self, fd: int, needed_bytes: int) -> Backing:
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        known = self._files.get(key)
        if known is not None and known.size_bytes >= needed_bytes:
            return known
        if status.st_size < needed_bytes:
            raise MapRefused(errno.EINVAL, f"file of {status.st_size} bytes, {needed_bytes} needed")
        if len(self._opened) >= MAX_FILES:
            self._close_unused()
        if len(self._opened) >= MAX_FILES:
            raise MapRefused(errno.ENOSPC, "too many files")
        # Grown since: regions made before keep the old object, which stays valid for them.
        self._files[key] = _open_backing(fd)
        self._opened.append(self._files[key])
        return self._files[key]

    def _close_unused(self) -> None:
        used = {id(region.backing) for region in self._regions}
        for backing in self._opened:
            if id(backing) not in used:
                with contextlib.suppress(OSError):
                    backing.close()
        self._opened = [backing for backing in self._opened if id(backing) in used]
        self._files = {key: one for key, one in self._files.items() if id(one) in used}

    def unmap(self, address: int, size_bytes: int) -> None:
        """Remove the regions of a range, which may be none: a vIOMMU takes back all that may be.

        Raises MapRefused with EINVAL, and removes nothing, when the range cuts a region in two.
        """
        end = address + size_bytes
        first = bisect_left(self._starts, address)
        last = bisect_left(self._starts, end)
        reaches_in = first > 0 and self._regions[first - 1].end > address and size_bytes > 0
        reaches_out = last > first and self._regions[last - 1].end > end
        if reaches_in or reaches_out:
            raise MapRefused(errno.EINVAL, f"{address:#x}+{size_bytes:#x} cuts a region in two")
        del self._starts[first:last], self._regions[first:last]

    def unmap_all(self) -> None:
        """Remove every region; the files stay open for further ones."""
        self._starts.clear()
        self._regions.clear()

    def clear(self) -> None:
        """Forget everything: the client is gone."""
        self.unmap_all()
        self._close_unused()

    @property
    def region_count(self) -> int:
        return len(self._regions)

    def _pieces(self, address: int, length: int) -> Iterator[tuple[Region, int, int]]:
        """(region, offset in its file, length) covering the range; raises OutsideMemory."""
        while length > 0:
            at = bisect_right(self._starts, address) - 1
            region = self._regions[at] if at >= 0 else None
            if region is None or address >= region.end or region.backing is None:
                raise OutsideMemory(f"{address:#x} is not guest memory")
            step = min(length, region.end - address)
            yield region, region.offset + address - region.address, step
            address += step
            length -= step

    def contains(self, address: int, length: int) -> bool:
        """Whether every byte of the range can be read and written."""
        try:
            return all(r.readable and r.writable for r, _, _ in self._pieces(address, length))
        except OutsideMemory:
            return False

    def extents(self) -> Extents:
        """What contains() allows, for many questions at once. Holds until the next change."""
        extents = Extents()
        for region in self._regions:
            if region.readable and region.writable and region.backing is not None:
                extents.add(region.address, region.end)
        return extents

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes. Raises OutsideMemory."""
        parts = []
        for region, offset, step in self._pieces(address, length):
            if not region.readable or region.backing is None:
                raise OutsideMemory(f"{address:#x} is not readable")
            parts.append(region.backing.read(offset, step))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write all of `data`, or nothing when the range is not wholly writable memory."""
        pieces = list(self._pieces(address, len(data)))
        if not all(region.writable for region, _, _ in pieces):
            raise OutsideMemory(f"{address:#x} is not writable")
        view = memoryview(data)
        done = 0
        for region, offset, step in pieces:
            if region.backing is not None:
                region.backing.write(offset, view[done : done + step])
            done += step
