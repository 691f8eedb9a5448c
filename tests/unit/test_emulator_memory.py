# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory never reaches outside what was mapped; page states count right."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.emulator.memory import MAX_FILES, GuestMemory, MapRefused, OutsideMemory
from harness.emulator.page_state import PageStates
from tests.unit.emulator_rig import RAM_BYTES, sealed_ram


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=["sealed", "plain"])
def ram(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "sealed":
        fd = sealed_ram()
    else:
        fd = os.memfd_create("plain")
        os.ftruncate(fd, RAM_BYTES)
    yield fd
    os.close(fd)


def test_read_and_write_across_regions(ram: int) -> None:
    memory = GuestMemory()
    memory.map(0x10000, 0x2000, fd=ram, offset=0x5000, flags=3)
    memory.map(0x12000, 0x1000, fd=ram, offset=0x1000, flags=3)
    memory.write(0x11FF0, b"x" * 32)
    assert os.pread(ram, 16, 0x6FF0) == b"x" * 16
    assert os.pread(ram, 16, 0x1000) == b"x" * 16
    assert memory.read(0x11FF0, 32) == b"x" * 32
    assert os.pread(ram, 16, 0x7000) == bytes(16)
    memory.clear()


@pytest.mark.parametrize(
    ("address", "length"), [(0xFFFF, 1), (0x10FFF, 2), (0x11000, 1), (0xF000, 0x3000), (1 << 63, 8)]
)
def test_outside_is_an_error_and_nothing_is_written(ram: int, address: int, length: int) -> None:
    memory = GuestMemory()
    memory.map(0x10000, 0x1000, fd=ram, offset=0, flags=3)
    assert not memory.contains(address, length)
    with pytest.raises(OutsideMemory):
        memory.read(address, length)
    with pytest.raises(OutsideMemory):
        memory.write(address, b"y" * length)
    assert os.pread(ram, 0x2000, 0) == bytes(0x2000)
    memory.clear()


def test_rights_of_a_region(ram: int) -> None:
    memory = GuestMemory()
    memory.map(0, 0x1000, fd=ram, offset=0, flags=1)
    memory.map(0x1000, 0x1000, fd=ram, offset=0x1000, flags=2)
    memory.map(0x2000, 0x1000, fd=None, offset=0, flags=3)
    with pytest.raises(OutsideMemory):
        memory.write(0, b"x")
    with pytest.raises(OutsideMemory):
        memory.read(0x1000, 1)
    with pytest.raises(OutsideMemory):
        memory.read(0x2000, 1)  # announced without a descriptor: not ours to touch
    assert not memory.contains(0, 1)
    memory.clear()


@pytest.mark.parametrize(
    ("address", "size", "offset", "error"),
    [
        (0x1000, 0, 0, errno.EINVAL),
        (0x1001, 0x1000, 0, errno.EINVAL),
        (0x1000, 0x1001, 0, errno.EINVAL),
        ((1 << 64) - 0x1000, 0x2000, 0, errno.EINVAL),
        (0x1000, 0x1000, RAM_BYTES, errno.EINVAL),
        (1 << 40, RAM_BYTES + 0x1000, 0, errno.EINVAL),
        (0x20000, 0x1000, 0, errno.EEXIST),
        (0x1F000, 0x2000, 0, errno.EEXIST),
        (0x10000, 0x40000, 0, errno.EEXIST),
    ],
)
def test_lies_in_dma_map(ram: int, address: int, size: int, offset: int, error: int) -> None:
    memory = GuestMemory()
    memory.map(0x20000, 0x1000, fd=ram, offset=0, flags=3)
    with pytest.raises(MapRefused) as caught:
        memory.map(address, size, fd=ram, offset=offset, flags=3)
    assert caught.value.errno_value == error
    assert memory.region_count == 1
    memory.clear()


@pytest.mark.parametrize(
    ("address", "size"), [(0x20000, 0x1000), (0x21000, 0x1000), (0x21000, 0x9000), (0, 0x21000)]
)
def test_unmap_must_not_cut_a_region(ram: int, address: int, size: int) -> None:
    memory = GuestMemory()
    memory.map(0x10000, 0x1000, fd=ram, offset=0, flags=3)
    memory.map(0x20000, 0x2000, fd=ram, offset=0, flags=3)
    with pytest.raises(MapRefused) as caught:
        memory.unmap(address, size)
    assert caught.value.errno_value == errno.EINVAL
    assert memory.region_count == 2, "all or nothing"
    memory.unmap(0x20000, 0x2000)
    assert not memory.contains(0x20000, 1)
    assert memory.contains(0x10000, 0x1000)
    memory.clear()


def test_a_viommu_unmaps_ranges_whatever_is_in_them(ram: int) -> None:
    memory = GuestMemory()
    for page in (1, 2, 5, 9):
        memory.map(page << 12, 0x1000, fd=ram, offset=page << 12, flags=3)
    memory.unmap(0x3000, 0x2000)
    assert memory.region_count == 4, "nothing was there"
    memory.unmap(0x2000, 0x7000)
    assert [memory.contains(page << 12, 0x1000) for page in (1, 2, 5, 9)] == [
        True, False, False, True,
    ]  # fmt: skip
    memory.map(0x5000, 0x1000, fd=ram, offset=0, flags=3)
    memory.unmap(0, 1 << 48)
    assert memory.region_count == 0
    memory.map(0x1000, 0x1000, fd=ram, offset=0, flags=3)
    memory.unmap_all()
    assert memory.region_count == 0
    memory.clear()


def test_a_file_is_opened_once_and_released(ram: int) -> None:
    before = open_files()
    memory = GuestMemory()
    for page in range(200):
        memory.map(page * 0x2000, 0x1000, fd=ram, offset=page * 0x1000, flags=3)
    assert open_files() <= before + 1
    memory.write(199 * 0x2000, b"last")
    assert os.pread(ram, 4, 199 * 0x1000) == b"last"
    memory.clear()
    assert open_files() == before


def test_a_file_that_grows_is_released_as_often_as_it_was_opened() -> None:
    fd = os.memfd_create("grows")
    before = open_files()
    memory = GuestMemory()
    for pages in range(1, 6):
        os.ftruncate(fd, pages * 4096)
        memory.map(0, pages * 4096, fd=fd, offset=0, flags=3)
        memory.unmap(0, pages * 4096)
    memory.clear()
    assert open_files() == before
    os.close(fd)


def test_files_are_limited_and_those_not_in_use_make_room() -> None:
    before = open_files()
    memory = GuestMemory()

    def another(number: int) -> None:
        fd = sealed_ram(4096)
        try:
            memory.map(number * 4096, 4096, fd=fd, offset=0, flags=3)
        finally:
            os.close(fd)

    for number in range(MAX_FILES):
        another(number)
    with pytest.raises(MapRefused) as refused:
        another(MAX_FILES)
    assert refused.value.errno_value == errno.ENOSPC
    memory.unmap(0, 4096)
    another(MAX_FILES)
    memory.write(4096, b"kept")
    assert memory.read(4096, 4) == b"kept"
    assert open_files() == before + MAX_FILES
    memory.clear()
    assert open_files() == before


def test_a_client_that_truncates_its_file_does_not_kill_us() -> None:
    fd = os.memfd_create("shrinks")
    os.ftruncate(fd, 0x4000)
    memory = GuestMemory()
    memory.map(0, 0x4000, fd=fd, offset=0, flags=3)
    os.ftruncate(fd, 0x1000)
    with pytest.raises(OutsideMemory):
        memory.read(0x2000, 8)
    with pytest.raises(OutsideMemory):
        memory.write(0x2000, b"x")
    assert os.fstat(fd).st_size == 0x1000
    memory.clear()
    os.close(fd)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 4), st.sampled_from((1, 3, 3, 3)))),
    st.lists(st.tuples(st.integers(0, 25 * 4096), st.integers(1, 5 * 4096))),
)
def test_extents_say_what_contains_says(
    regions: list[tuple[int, int, int]], questions: list[tuple[int, int]]
) -> None:
    fd = sealed_ram(4 * 4096)
    memory = GuestMemory()
    for first, pages, rights in regions:
        with contextlib.suppress(MapRefused):
            memory.map(first * 4096, pages * 4096, fd=fd, offset=0, flags=rights)
    extents = memory.extents()
    for address, length in questions:
        assert extents.contains(address, length) == memory.contains(address, length)
    memory.clear()
    os.close(fd)


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 30), st.booleans()), min_size=1, max_size=30
    )
)
def test_page_states_equal_a_plain_set(changes: list[tuple[int, int, bool]]) -> None:
    states = PageStates()
    shared: set[int] = set()
    for first, pages, to_shared in changes:
        span = set(range(first, first + pages))
        changed = len(span - shared) if to_shared else len(span & shared)
        assert states.set(first * 4096, pages, shared=to_shared) == changed
        shared = shared | span if to_shared else shared - span
        assert states.shared_pages() == len(shared)
    for page in range(100):
        assert states.is_shared(page * 4096 + 5) == (page in shared)
        run = states.run_bytes(page * 4096, 1 << 20) // 4096
        same = [other in shared for other in range(page, page + run)]
        assert set(same) == {page in shared}
        if run < 256:
            assert (page + run in shared) != (page in shared)
    assert sum(pages for _, pages in states.ranges()) == len(shared)
    states.reset()
    assert states.shared_pages() == 0
