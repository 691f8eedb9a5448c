# SPDX-License-Identifier: GPL-2.0-only
"""The DMA engine in a TDI's BAR0: one descriptor in registers, a doorbell, a status.

A transfer runs in slices, so that a long one does not hold up the other functions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from harness.emulator.words import Direction, Reason

MAX_LENGTH = 64 << 20
SLICE_BYTES = 1 << 20
BUFFER_BYTES = 4096


class Operation(IntEnum):
    READ = 1  # memory to the buffer (its first 4 KiB), CRC over all
    WRITE = 2  # the 8-byte pattern, repeated
    COPY = 3  # memory at `iova` to memory at `target`
    WRITE_BUFFER = 4  # the buffer, at most 4 KiB


class Status(IntEnum):
    IDLE = 0
    BUSY = 1
    DONE = 2
    FAILED = 3


class Blocked(Exception):  # noqa: N818  (a verdict)
    """A TLP did not reach memory. done: bytes of this call before it."""

    def __init__(self, reason: Reason, iova: int, done: int) -> None:
        super().__init__(f"{reason.name} at {iova:#x}")
        self.reason, self.iova, self.done = reason, iova, done


class DmaPort(Protocol):
    """How the engine reaches memory: every access is judged. Both raise Blocked."""

    def read(self, trusted: bool, iova: int, length: int) -> bytes: ...

    def write(self, trusted: bool, iova: int, data: bytes) -> None: ...

    def refuse(self, request: tuple[bool, Direction], iova: int, length: int) -> Reason:
        """What is wrong with a range as a whole (NONE: nothing)."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A transfer. trusted, target_trusted: the T bits of `iova` and `target`."""

    operation: int
    iova: int
    length: int
    trusted: bool = False
    target: int = 0
    target_trusted: bool = False
    pattern: bytes = bytes(8)
    vector: int | None = None  # MSI-X vector raised at the end


@dataclass(slots=True)
class Progress:
    """What the status registers show."""

    status: Status = Status.IDLE
    reason: Reason = Reason.NONE
    done: int = 0
    fault_iova: int = 0
    crc: int = 0


class DmaEngine:
    """Runs one descriptor at a time. on_end(vector): the transfer ended, whatever the outcome."""

    def __init__(self, port: DmaPort, on_end: Callable[[int | None], None]) -> None:
        self._port = port
        self._on_end = on_end
        self._job: Descriptor | None = None
        self.progress = Progress()
        self.buffer = bytearray(BUFFER_BYTES)

    @property
    def busy(self) -> bool:
        return self._job is not None

    def start(self, job: Descriptor) -> None:
        """Begin, and run the first slice at once. Ignored while busy."""
        if self.busy:
            return
        self.progress = Progress(Status.BUSY)
        self._job = job
        fault = self._refuse(job)
        if fault is not None:
            self._finish(*fault)
        else:
            self.step()

    def _refuse(self, job: Descriptor) -> tuple[Reason, int] | None:
        if job.operation not in set(Operation):
            return Reason.BAD_DESCRIPTOR, job.iova
        limit = BUFFER_BYTES if job.operation == Operation.WRITE_BUFFER else MAX_LENGTH
        if not 0 < job.length <= limit:
            return Reason.BAD_LENGTH, job.iova
        reads = job.operation in (Operation.READ, Operation.COPY)
        ends = [((job.trusted, Direction.READ if reads else Direction.WRITE), job.iova)]
        if job.operation == Operation.COPY:
            ends.append(((job.target_trusted, Direction.WRITE), job.target))
        for request, iova in ends:
            reason = self._port.refuse(request, iova, job.length)
            if reason is not Reason.NONE:
                return reason, iova
        return None

    def step(self) -> None:
        """Run one slice of the transfer, if there is one."""
        job = self._job
        if job is None:
            return
        at = self.progress.done
        size = min(SLICE_BYTES, job.length - at)
        try:
            self._slice(job, at, size)
        except Blocked as blocked:
            self.progress.done += blocked.done
            self._finish(blocked.reason, blocked.iova)
            return
        self.progress.done += size
        if self.progress.done == job.length:
            self._finish(Reason.NONE, 0)

    def _slice(self, job: Descriptor, at: int, size: int) -> None:
        if job.operation in (Operation.READ, Operation.COPY):
            data = self._read(job, at, size)
            if job.operation == Operation.READ and at == 0:
                self.buffer[: min(size, BUFFER_BYTES)] = data[:BUFFER_BYTES]
            if job.operation == Operation.COPY:
                self._port.write(job.target_trusted, job.target + at, data)
        else:
            if job.operation == Operation.WRITE_BUFFER:
                data = bytes(self.buffer[:size])
            else:
                data = (job.pattern * (size // 8 + 1))[:size]
            self._port.write(job.trusted, job.iova + at, data)
        self.progress.crc = zlib.crc32(data, self.progress.crc)

    def _read(self, job: Descriptor, at: int, size: int) -> bytes:
        try:
            return self._port.read(job.trusted, job.iova + at, size)
        except Blocked as blocked:
            # a copy has moved nothing of this slice yet
            done = 0 if job.operation == Operation.COPY else blocked.done
            raise Blocked(blocked.reason, blocked.iova, done) from blocked

    def abort(self) -> None:
        """Stop a running transfer; what was written stays written."""
        if self._job is not None:
            self._finish(Reason.ABORTED, self._job.iova + self.progress.done)

    def scrub(self) -> None:
        """Stop, and drop the data; the status of what was done stays."""
        self.abort()
        self.buffer = bytearray(BUFFER_BYTES)

    def reset(self) -> None:
        """Forget everything, the buffer included."""
        self._job = None
        self.progress = Progress()
        self.buffer = bytearray(BUFFER_BYTES)

    def _finish(self, reason: Reason, iova: int) -> None:
        vector = self._job.vector if self._job else None
        self._job = None
        self.progress.status = Status.DONE if reason is Reason.NONE else Status.FAILED
        self.progress.reason = reason
        self.progress.fault_iova = iova
        self._on_end(vector)
