# SPDX-License-Identifier: GPL-2.0-only
"""The vfio-user protocol: versions, every command, and clients that lie."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.emulator import vfio_user
from harness.emulator.eventlog import EventLog
from harness.emulator.interrupts import MSIX
from harness.emulator.judge import Knobs
from harness.emulator.platform import Platform
from harness.emulator.session import Message, Session
from harness.emulator.vfio_user import HEADER, Header, Operation, ProtocolError
from tests.unit.emulator_rig import DEVICE, sealed_ram

BAR0, CONFIG = vfio_user.REGION_BAR0, vfio_user.REGION_CONFIG
ARM = vfio_user.DATA_EVENTFD | vfio_user.ACTION_TRIGGER


class Peer:
    """A client without a socket."""

    def __init__(self, greet: bool = True) -> None:
        self.platform = Platform(Knobs(), EventLog(None, lambda: 0.0), lambda: 0.0, device=DEVICE)
        self.function = self.platform.tdi_functions[0]
        self.session = Session(self.function)
        if greet:
            self.raw(Operation.VERSION, struct.pack("<HH", 0, 1))

    def raw(
        self, command: int, body: bytes = b"", *fds: int, flags: int = 0
    ) -> tuple[Header, bytes, list[int]]:
        """(reply header, reply body, descriptors that the session did not keep)."""
        header = Header(7, command, 16 + len(body), flags, 0)
        message = Message(header, body, list(fds))
        reply, _ = self.session.handle(message)
        if not reply:
            return header, b"", message.fds
        answer = Header(*HEADER.unpack(reply[:16]))
        assert (answer.message_id, answer.command, answer.size) == (7, command, len(reply))
        assert answer.flags & 0xF == 1
        return answer, reply[16:], message.fds

    def ok(self, command: int, body: bytes = b"", *fds: int) -> bytes:
        header, reply, _ = self.raw(command, body, *fds)
        assert not header.flags & vfio_user.FLAG_ERROR, os.strerror(header.error)
        return reply

    def error(self, command: int, body: bytes = b"", *fds: int) -> int:
        header, reply, _ = self.raw(command, body, *fds)
        assert header.flags & vfio_user.FLAG_ERROR
        assert reply == b"", "an error reply is a header"
        return header.error

    def read(self, region: int, offset: int, count: int) -> bytes:
        return self.ok(Operation.REGION_READ, struct.pack("<QII", offset, region, count))[16:]

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.ok(Operation.REGION_WRITE, struct.pack("<QII", offset, region, len(data)) + data)


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.function.client_gone()


# -- header and version


@pytest.mark.parametrize("size", [0, 15, vfio_user.MAX_MESSAGE_BYTES + 1, 0xFFFFFFFF])
def test_impossible_sizes(size: int) -> None:
    with pytest.raises(ProtocolError):
        vfio_user.decode_header(HEADER.pack(1, 1, size, 0, 0))


def test_replies_from_a_client() -> None:
    with pytest.raises(ProtocolError):
        vfio_user.decode_header(HEADER.pack(1, 1, 16, 1, 0))


def version(body: bytes) -> tuple[int, int, dict[str, Any]]:
    header, reply, _ = Peer(greet=False).raw(Operation.VERSION, body)
    assert not header.flags & vfio_user.FLAG_ERROR
    major, minor = struct.unpack_from("<HH", reply)
    assert reply[-1:] == b"\0"
    return major, minor, json.loads(reply[4:-1])["capabilities"]


def test_version_negotiation() -> None:
    offer = json.dumps({"capabilities": {"max_msg_fds": 8, "write_multiple": True}}).encode()
    major, minor, capabilities = version(struct.pack("<HH", 0, 9) + offer + b"\0")
    assert (major, minor) == (0, 1)
    assert capabilities["max_msg_fds"] == 8
    assert capabilities["write_multiple"] is True
    assert set(capabilities) == {"max_msg_fds", "write_multiple"}, "a subset of those proposed"
    assert version(struct.pack("<HH", 0, 0))[1] == 0, "never more than proposed"
    assert version(struct.pack("<HH", 0, 1) + b'{"x":1}\0')[2] == {}
    refused = b'{"capabilities":{"write_multiple":false}}\0'
    assert version(struct.pack("<HH", 0, 1) + refused)[2] == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        struct.pack("<HH", 1, 0),
        struct.pack("<HH", 0, 1) + b"{}",
        struct.pack("<HH", 0, 1) + b"not json\0",
        struct.pack("<HH", 0, 1) + b"[]\0",
        struct.pack("<HH", 0, 1) + b'{"capabilities":3}\0',
        struct.pack("<HH", 0, 1) + b"\xff\xfe\0",
        struct.pack("<HH", 0, 1) + b"[" * 100000 + b"\0",
    ],
)
def test_bad_versions_end_the_connection(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Peer(greet=False).raw(Operation.VERSION, body)


def test_commands_before_version() -> None:
    with pytest.raises(ProtocolError):
        Peer(greet=False).raw(Operation.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))


@pytest.mark.parametrize("command", [0, 6, 11, 12, 14, 16, 17, 18, 99, 0xFFFF])
def test_unknown_commands(peer: Peer, command: int) -> None:
    assert peer.error(command, bytes(64)) == errno.EOPNOTSUPP
    assert peer.ok(Operation.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))


# -- information


def test_device_information(peer: Peer) -> None:
    reply = peer.ok(Operation.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    assert struct.unpack("<IIII", reply) == (16, 3, 9, 5)
    assert peer.error(Operation.GET_INFO, struct.pack("<IIII", 15, 0, 0, 0)) == errno.EINVAL


def test_region_information(peer: Peer) -> None:
    sizes = {}
    for index in range(9):
        request = struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0)
        _, flags, got, _, size, _ = struct.unpack(
            "<IIIIQQ", peer.ok(Operation.GET_REGION_INFO, request)
        )
        assert got == index
        sizes[index] = (size, flags)
    assert sizes.pop(BAR0) == (0x4000, 3)
    assert sizes.pop(CONFIG) == (4096, 3)
    assert set(sizes.values()) == {(0, 0)}
    bad = struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0)
    assert peer.error(Operation.GET_REGION_INFO, bad) == errno.EINVAL


def test_interrupt_information(peer: Peer) -> None:
    counts = []
    for index in range(5):
        reply = peer.ok(Operation.GET_IRQ_INFO, struct.pack("<IIII", 16, 0, index, 0))
        counts.append(struct.unpack("<IIII", reply)[3])
    assert counts == [0, 0, 4, 1, 1]
    bad = struct.pack("<IIII", 16, 0, 5, 0)
    assert peer.error(Operation.GET_IRQ_INFO, bad) == errno.EINVAL


# -- memory


def dma_map(address: int, size: int, flags: int = 3, offset: int = 0) -> bytes:
    return struct.pack("<IIQQQ", 32, flags, offset, address, size)


def test_as_many_mappings_as_a_viommu_makes(peer: Peer) -> None:
    """256 MiB in single pages; the limit is beyond that, but there is one."""
    fd = sealed_ram()
    memory = peer.function.memory
    for page in range(65537):
        memory.map(page * 8192, 4096, fd=fd, offset=page % 16 * 4096, flags=3)
    memory.write(65536 * 8192, b"last")
    assert memory.read(65536 * 8192, 4) == b"last"
    os.close(fd)


def test_map_and_unmap(peer: Peer) -> None:
    fd = sealed_ram()
    assert peer.ok(Operation.DMA_MAP, dma_map(0, 0x10000), fd) == b""
    assert peer.error(Operation.DMA_MAP, dma_map(0x8000, 0x1000), fd) == errno.EEXIST
    assert peer.error(Operation.DMA_MAP, dma_map(1 << 40, 1 << 40), fd) == errno.EINVAL
    assert peer.error(Operation.DMA_MAP, dma_map(1 << 40, 0x1000, 3 | 4)) == errno.EINVAL
    _, _, left = peer.raw(Operation.DMA_MAP, dma_map(1 << 41, 0x1000), fd)
    assert left == [fd], "descriptors of mappings go back to be closed"
    unmap = struct.pack("<IIQQ", 24, 0, 0, 0x10000)
    assert peer.error(Operation.DMA_UNMAP, struct.pack("<IIQQ", 24, 0, 0, 0x1000)) == errno.EINVAL
    assert peer.ok(Operation.DMA_UNMAP, unmap) == unmap
    assert not peer.function.memory.contains(0, 1)
    dirty = struct.pack("<IIQQQQ", 40, 1, 0, 0x10000, 4096, 8)  # with a bitmap of dirty pages
    assert peer.error(Operation.DMA_UNMAP, dirty) == errno.EINVAL
    assert peer.ok(Operation.DMA_MAP, dma_map(0x4000, 0x1000), fd) == b""
    everything = struct.pack("<IIQQ", 24, 2, 0, 0)
    assert peer.ok(Operation.DMA_UNMAP, everything) == everything
    assert peer.function.memory.region_count == 0
    os.close(fd)


def test_a_descriptor_that_is_no_file(peer: Peer) -> None:
    read_end, write_end = os.pipe()
    assert peer.error(Operation.DMA_MAP, dma_map(0, 0x1000), read_end) == errno.EINVAL
    os.close(read_end)
    os.close(write_end)
    directory = os.open("/", os.O_RDONLY)
    assert peer.error(Operation.DMA_MAP, dma_map(0, 0x1000), directory) == errno.EINVAL
    os.close(directory)


# -- registers


def test_region_access(peer: Peer) -> None:
    assert peer.read(CONFIG, 0, 4) == struct.pack("<HH", 0x1B36, 0x0DEE)
    peer.write(CONFIG, 4, b"\x02\0")
    assert peer.read(BAR0, 0, 4) == b"TDID"
    peer.write(BAR0, 0x110, struct.pack("<Q", 0x1234))
    assert peer.read(BAR0, 0x110, 8) == struct.pack("<Q", 0x1234)
    assert peer.read(BAR0, 0, 0) == b""


@pytest.mark.parametrize(
    ("region", "offset", "count"),
    [
        (BAR0, 0x4000, 1),
        (BAR0, 0x3FFF, 2),
        (BAR0, (1 << 64) - 4, 8),
        (BAR0, 0, 0xFFFFFFFF),
        (CONFIG, 4096, 1),
        (1, 0, 4),
        (8, 0, 4),
        (9, 0, 4),
        (0xFFFFFFFF, 0, 4),
    ],
)
def test_access_outside_a_region(peer: Peer, region: int, offset: int, count: int) -> None:
    head = struct.pack("<QII", offset, region, count)
    assert peer.error(Operation.REGION_READ, head) == errno.EINVAL
    if count < 100:
        assert peer.error(Operation.REGION_WRITE, head + bytes(count)) == errno.EINVAL
    assert peer.error(Operation.REGION_WRITE, head + bytes(3)) == errno.EINVAL


def test_no_reply_is_no_reply(peer: Peer) -> None:
    peer.write(CONFIG, 4, b"\x02\0")
    body = struct.pack("<QII", 0x110, BAR0, 8) + b"\x11" * 8
    reply, goes_on = peer.session.handle(
        Message(Header(1, Operation.REGION_WRITE, 16 + len(body), vfio_user.FLAG_NO_REPLY, 0), body)
    )
    assert (reply, goes_on) == (b"", True)
    assert peer.read(BAR0, 0x110, 8) == b"\x11" * 8


def test_write_multi(peer: Peer) -> None:
    peer.write(CONFIG, 4, b"\x02\0")
    entries = b"".join(
        struct.pack("<QII", 0x110 + 8 * n, BAR0, 8) + bytes([n + 1]) * 8 for n in range(3)
    )
    reply = peer.ok(Operation.REGION_WRITE_MULTI, struct.pack("<Q", 3) + entries)
    assert reply == struct.pack("<Q", 3)
    assert peer.read(BAR0, 0x120, 8) == b"\x03" * 8
    for count in (2, 4, 1 << 60):
        body = struct.pack("<Q", count) + entries
        assert peer.error(Operation.REGION_WRITE_MULTI, body) == errno.EINVAL
    many = struct.pack("<Q", 201) + entries[:24] * 201
    assert peer.error(Operation.REGION_WRITE_MULTI, many) == errno.EINVAL
    assert peer.ok(Operation.REGION_WRITE_MULTI, struct.pack("<Q", 200) + entries[:24] * 200)
    long = struct.pack("<QQII", 1, 0x110, BAR0, 9) + bytes(8)
    assert peer.error(Operation.REGION_WRITE_MULTI, long) == errno.EINVAL


# -- interrupts


def set_irqs(flags: int, index: int, start: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IIIII", 20 + len(data), flags, index, start, count) + data


def test_arm_trigger_disarm(peer: Peer) -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    _, _, left = peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 1, 1), os.dup(fd))
    assert left == [], "the session keeps it"
    trigger = vfio_user.DATA_NONE | vfio_user.ACTION_TRIGGER
    peer.ok(Operation.SET_IRQS, set_irqs(trigger, MSIX, 0, 4))
    assert os.eventfd_read(fd) == 1
    chosen = vfio_user.DATA_BOOL | vfio_user.ACTION_TRIGGER
    peer.ok(Operation.SET_IRQS, set_irqs(chosen, MSIX, 0, 2, b"\0\1"))
    assert os.eventfd_read(fd) == 1
    peer.ok(Operation.SET_IRQS, set_irqs(vfio_user.DATA_NONE | 8, MSIX, 1, 1))
    assert peer.function.interrupts.trigger(MSIX, 1)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    peer.ok(Operation.SET_IRQS, set_irqs(vfio_user.DATA_NONE | 16, MSIX, 1, 1))
    assert os.eventfd_read(fd) == 1
    peer.ok(Operation.SET_IRQS, set_irqs(ARM, MSIX, 1, 1))  # no descriptor: take it back
    assert not peer.function.interrupts.assigned(MSIX, 1)
    peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 2, 1), os.dup(fd))
    peer.ok(Operation.SET_IRQS, set_irqs(trigger, MSIX, 0, 0))  # all off
    assert not peer.function.interrupts.assigned(MSIX, 2)
    os.close(fd)


def test_no_mask_outlives_a_disable(peer: Peer) -> None:
    mask = vfio_user.DATA_NONE | vfio_user.ACTION_MASK
    peer.ok(Operation.SET_IRQS, set_irqs(mask, MSIX, 1, 1))
    peer.ok(
        Operation.SET_IRQS, set_irqs(vfio_user.DATA_NONE | vfio_user.ACTION_TRIGGER, MSIX, 0, 0)
    )
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 1, 1), os.dup(fd))
    assert peer.function.interrupts.trigger(MSIX, 1)
    assert os.eventfd_read(fd) == 1
    os.close(fd)


@pytest.mark.parametrize(
    "body",
    [
        set_irqs(ARM, 5, 0, 1),
        set_irqs(ARM, MSIX, 4, 1),
        set_irqs(ARM, MSIX, 0, 5),
        set_irqs(ARM, MSIX, 0xFFFFFFFF, 2),
        set_irqs(0, MSIX, 0, 1),
        set_irqs(7, MSIX, 0, 1),
        set_irqs(vfio_user.DATA_NONE, MSIX, 0, 1),
        set_irqs(vfio_user.DATA_NONE | 0x38, MSIX, 0, 1),
        set_irqs(ARM, MSIX, 0, 0),
        set_irqs(vfio_user.DATA_BOOL | vfio_user.ACTION_TRIGGER, MSIX, 0, 4, b"\1"),
        b"short",
    ],
)
def test_bad_set_irqs(peer: Peer, body: bytes) -> None:
    assert peer.error(Operation.SET_IRQS, body) == errno.EINVAL


def test_descriptors_and_count_must_agree(peer: Peer) -> None:
    fd = os.eventfd(0)
    header, _, left = peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 0, 2), fd)
    assert header.error == errno.EINVAL
    assert left == [fd]
    os.close(fd)


def test_an_event_counter_that_nobody_reads(peer: Peer) -> None:
    fd = os.eventfd(0)
    peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 0, 1), os.dup(fd))
    os.write(fd, ((1 << 64) - 2).to_bytes(8, "little"))  # full: a write would block for ever
    assert peer.function.interrupts.trigger(MSIX, 0)
    os.close(fd)


def test_an_event_descriptor_that_the_client_makes_blocking_again(peer: Peer) -> None:
    fd = os.eventfd(0)
    peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 0, 1), os.dup(fd))
    os.write(fd, ((1 << 64) - 2).to_bytes(8, "little"))
    os.set_blocking(fd, True)  # the open file is shared with the session
    trigger = threading.Thread(target=peer.function.interrupts.trigger, args=(MSIX, 0))
    trigger.start()
    trigger.join(5)
    held_up = trigger.is_alive()
    os.eventfd_read(fd)
    trigger.join()
    assert not held_up
    os.close(fd)


def test_an_event_descriptor_that_cannot_be_written(peer: Peer) -> None:
    path, event = os.open("/", os.O_PATH), os.eventfd(0)
    header, _, left = peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 0, 2), event, path)
    assert header.error == errno.EINVAL
    assert left == [event, path], "the caller closes what the session does not keep"
    assert not peer.function.interrupts.assigned(MSIX, 0)
    os.close(path)
    os.close(event)


# -- the end


def test_a_second_client_is_told_so(peer: Peer) -> None:
    second = Session(peer.function, busy=True)
    reply, goes_on = second.handle(Message(Header(1, 1, 20, 0, 0), struct.pack("<HH", 0, 1)))
    header = Header(*HEADER.unpack(reply))
    assert (header.error, goes_on) == (errno.EBUSY, False)


def test_a_client_that_is_gone_leaves_nothing_but_the_state(peer: Peer) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    fd = sealed_ram()
    peer.ok(Operation.DMA_MAP, dma_map(0, 0x10000), fd)
    peer.raw(Operation.SET_IRQS, set_irqs(ARM, MSIX, 0, 1), os.eventfd(0))
    peer.function.tdi.lock()
    os.close(fd)
    peer.function.client_gone()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert peer.function.memory.region_count == 0
    assert peer.function.tdi.state.name == "LOCKED"


def test_reset_unlocks(peer: Peer) -> None:
    peer.function.tdi.lock()
    assert peer.ok(Operation.RESET) == b""
    assert peer.function.tdi.state.name == "UNLOCKED"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 20), st.binary(max_size=80))
def test_no_message_breaks_a_session(command: int, body: bytes) -> None:
    peer = Peer()
    try:
        peer.raw(command, body)
        assert peer.ok(Operation.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    finally:
        peer.function.client_gone()
