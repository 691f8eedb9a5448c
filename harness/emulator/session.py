# SPDX-License-Identifier: GPL-2.0-only
"""One vfio-user client and the function it uses: commands to answers, no socket in sight."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.emulator import interrupts, vfio_user
from harness.emulator.config_space import CONFIG_BYTES
from harness.emulator.function import PciFunction
from harness.emulator.memory import MapRefused
from harness.emulator.vfio_user import Operation, ProtocolError, Refused, unpack

_DMA_MAP = struct.Struct("<IIQQQ")
_DMA_UNMAP = struct.Struct("<IIQQ")
_INFO = struct.Struct("<IIII")
_REGION_INFO = struct.Struct("<IIIIQQ")
_SET_IRQS = struct.Struct("<IIIII")
_ACCESS = struct.Struct("<QII")
_MULTI = struct.Struct("<Q")
_MULTI_ENTRY = struct.Struct("<QII8s")


@dataclass(slots=True)
class Message:
    """A whole command. fds: the session takes out those it keeps; the rest is the caller's."""

    header: vfio_user.Header
    body: bytes
    fds: list[int] = field(default_factory=list)


class Session:
    """Answers commands. busy: the function serves another client, so this one is refused."""

    def __init__(self, function: PciFunction, *, busy: bool = False) -> None:
        self._function = function
        self._busy = busy
        self.greeted = False  # a VERSION was agreed on: whoever is there is a client
        self._table: dict[int, Callable[[Message], bytes]] = {
            Operation.DMA_MAP: self._dma_map,
            Operation.DMA_UNMAP: self._dma_unmap,
            Operation.GET_INFO: self._get_info,
            Operation.GET_REGION_INFO: self._region_info,
            Operation.GET_IRQ_INFO: self._irq_info,
            Operation.SET_IRQS: self._set_irqs,
            Operation.REGION_READ: self._region_read,
            Operation.REGION_WRITE: self._region_write,
            Operation.RESET: self._reset,
            Operation.REGION_WRITE_MULTI: self._write_multi,
        }

    def handle(self, message: Message) -> tuple[bytes, bool]:
        """(reply, or b"" for none; whether the connection goes on). Raises ProtocolError."""
        header = message.header
        if self._busy:
            return vfio_user.encode_error(header, errno.EBUSY), False
        if not self.greeted:
            if header.command != Operation.VERSION:
                raise ProtocolError(f"command {header.command} before VERSION")
            reply = vfio_user.encode_reply(header, vfio_user.negotiate(message.body))
            self.greeted = True
            return reply, True
        try:
            handler = self._table.get(header.command)
            if handler is None:
                raise Refused(errno.EOPNOTSUPP, f"command {header.command}")
            reply = vfio_user.encode_reply(header, handler(message))
        except (Refused, MapRefused) as exc:
            reply = vfio_user.encode_error(header, exc.errno_value)
        return reply if header.wants_reply else b"", True

    # -- memory

    def _dma_map(self, message: Message) -> bytes:
        _, flags, offset, address, size = unpack(_DMA_MAP, message.body)
        fd = message.fds[0] if message.fds else None
        if fd is None and flags & (vfio_user.DMA_MMAP | vfio_user.DMA_FILE_IO):
            raise Refused(errno.EINVAL, "DMA_MAP without its descriptor")
        self._function.memory.map(address, size, fd=fd, offset=offset, flags=flags)
        return b""

    def _dma_unmap(self, message: Message) -> bytes:
        _, flags, address, size = unpack(_DMA_UNMAP, message.body)
        if flags & ~vfio_user.DMA_UNMAP_ALL:
            # flag 1 wants a bitmap of dirty pages behind the answer
            raise Refused(errno.EINVAL, f"DMA_UNMAP: flags {flags:#x}")
        if flags & vfio_user.DMA_UNMAP_ALL:
            self._function.memory.unmap_all()
        else:
            self._function.memory.unmap(address, size)
        return message.body[: _DMA_UNMAP.size]

    # -- information

    def _get_info(self, message: Message) -> bytes:
        argsz = unpack(_INFO, message.body)[0]
        _need(argsz, _INFO.size)
        flags = vfio_user.DEVICE_FLAG_RESET | vfio_user.DEVICE_FLAG_PCI
        return _INFO.pack(_INFO.size, flags, vfio_user.REGION_COUNT, interrupts.TYPE_COUNT)

    def _region_info(self, message: Message) -> bytes:
        argsz, _, index, _, _, _ = unpack(_REGION_INFO, message.body)
        _need(argsz, _REGION_INFO.size)
        if index >= vfio_user.REGION_COUNT:
            raise Refused(errno.EINVAL, f"region {index}")
        size = self._region_bytes(index)
        flags = vfio_user.REGION_FLAG_READ | vfio_user.REGION_FLAG_WRITE if size else 0
        return _REGION_INFO.pack(_REGION_INFO.size, flags, index, 0, size, 0)

    def _region_bytes(self, index: int) -> int:
        if index == vfio_user.REGION_BAR0:
            return self._function.registers.size_bytes
        return CONFIG_BYTES if index == vfio_user.REGION_CONFIG else 0

    def _irq_info(self, message: Message) -> bytes:
        argsz, _, index, _ = unpack(_INFO, message.body)
        _need(argsz, _INFO.size)
        if index >= interrupts.TYPE_COUNT:
            raise Refused(errno.EINVAL, f"interrupt type {index}")
        count = self._function.interrupts.count(index)
        flags = vfio_user.IRQ_FLAG_EVENTFD | vfio_user.IRQ_FLAG_MASKABLE
        return _INFO.pack(_INFO.size, flags, index, count)

    # -- interrupts

    def _set_irqs(self, message: Message) -> bytes:
        _, flags, index, start, count = unpack(_SET_IRQS, message.body)
        lines = self._function.interrupts
        data, action = flags & 7, flags & 0x38
        if (
            index >= interrupts.TYPE_COUNT
            or data not in (vfio_user.DATA_NONE, vfio_user.DATA_BOOL, vfio_user.DATA_EVENTFD)
            or action
            not in (vfio_user.ACTION_MASK, vfio_user.ACTION_UNMASK, vfio_user.ACTION_TRIGGER)
            or start + count > lines.count(index)
        ):
            raise Refused(errno.EINVAL, "SET_IRQS")
        if count == 0:
            if data != vfio_user.DATA_NONE or start or action != vfio_user.ACTION_TRIGGER:
                raise Refused(errno.EINVAL, "SET_IRQS of nothing")
            lines.disable(index)
        elif data == vfio_user.DATA_EVENTFD:
            self._assign(message, action, index, range(start, start + count))
        else:
            chosen = self._chosen(message.body, data, range(start, start + count))
            for vector in chosen:
                if action == vfio_user.ACTION_TRIGGER:
                    lines.trigger(index, vector)
                else:
                    lines.mask(index, vector, action == vfio_user.ACTION_MASK)
        return b""

    @staticmethod
    def _chosen(body: bytes, data: int, vectors: range) -> list[int]:
        if data == vfio_user.DATA_NONE:
            return list(vectors)
        flags = body[_SET_IRQS.size :]
        if len(flags) < len(vectors):
            raise Refused(errno.EINVAL, "SET_IRQS: array too short")
        return [vector for vector, on in zip(vectors, flags, strict=False) if on]

    def _assign(self, message: Message, action: int, index: int, vectors: range) -> None:
        if action != vfio_user.ACTION_TRIGGER:
            raise Refused(errno.EOPNOTSUPP, "mask and unmask descriptors")
        if not message.fds:
            for vector in vectors:
                self._function.interrupts.assign(index, vector, None)
            return
        if len(message.fds) != len(vectors):
            raise Refused(errno.EINVAL, "SET_IRQS: descriptors and count differ")
        for fd in message.fds:
            try:
                # a full event counter must not stop the platform
                os.set_blocking(fd, False)
            except OSError as exc:  # opened with O_PATH
                raise Refused(errno.EINVAL, f"SET_IRQS: {exc}") from exc
        for vector in vectors:
            self._function.interrupts.assign(index, vector, message.fds.pop(0))

    # -- registers

    def _region_read(self, message: Message) -> bytes:
        offset, region, count = unpack(_ACCESS, message.body)
        self._check_access(offset, region, count)
        if region == vfio_user.REGION_CONFIG:
            data = self._function.config.read(offset, count)
        else:
            data = self._function.bar_read(offset, count)
        return _ACCESS.pack(offset, region, count) + data

    def _region_write(self, message: Message) -> bytes:
        offset, region, count = unpack(_ACCESS, message.body)
        data = message.body[_ACCESS.size :]
        if len(data) != count:
            raise Refused(errno.EINVAL, f"{len(data)} bytes of data, {count} announced")
        self._write(offset, region, data)
        return _ACCESS.pack(offset, region, count)

    def _write_multi(self, message: Message) -> bytes:
        (count,) = unpack(_MULTI, message.body)
        length_fits = len(message.body) == _MULTI.size + count * _MULTI_ENTRY.size
        if count > vfio_user.MAX_MULTI_WRITES or not length_fits:
            raise Refused(errno.EINVAL, "REGION_WRITE_MULTI: length")
        done = 0
        for offset, region, size, data in _MULTI_ENTRY.iter_unpack(message.body[_MULTI.size :]):
            if size > len(data):
                raise Refused(errno.EINVAL, "REGION_WRITE_MULTI: more than 8 bytes")
            self._write(offset, region, data[:size])
            done += 1
        return _MULTI.pack(done)

    def _write(self, offset: int, region: int, data: bytes) -> None:
        self._check_access(offset, region, len(data))
        if region == vfio_user.REGION_CONFIG:
            self._function.config.write(offset, data)
        else:
            self._function.bar_write(offset, data)

    def _check_access(self, offset: int, region: int, count: int) -> None:
        if region >= vfio_user.REGION_COUNT:
            raise Refused(errno.EINVAL, f"region {region}")
        if count > vfio_user.MAX_DATA_BYTES or offset + count > self._region_bytes(region):
            raise Refused(errno.EINVAL, f"{offset:#x}+{count:#x} of region {region}")

    def _reset(self, message: Message) -> bytes:
        del message
        self._function.conventional_reset()
        return b""


def _need(argsz: int, size: int) -> None:
    if argsz < size:
        raise Refused(errno.EINVAL, f"argsz {argsz}, {size} needed")
