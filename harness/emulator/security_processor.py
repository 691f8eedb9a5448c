# SPDX-License-Identifier: GPL-2.0-only
"""The platform's security processor (its TSM): what each mailbox command does.

Pure but for guest memory, which it may read and write as a whole: it is in the TVM's trusted base.
The mailbox registers are in mailbox.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from harness.emulator.eventlog import Announcements, EventLog
from harness.emulator.evidence import NONCE_BYTES, Claims, Device
from harness.emulator.faults import FaultLog, Injections
from harness.emulator.iommu import MAX_LEVEL, Iommu, Table
from harness.emulator.judge import Knobs
from harness.emulator.memory import Extents, GuestMemory, OutsideMemory
from harness.emulator.page_state import PageStates
from harness.emulator.tdisp import Tdi
from harness.emulator.words import (
    ALL_ONES,
    PAGE_BYTES,
    Command,
    Injection,
    Model,
    Reason,
    Result,
    TdiState,
    word_name,
)

ALL_TDIS = 0xFFFFFFFF
MAX_LIST_ENTRIES = 65536
_HOST = range(0x01, 0x10)
_GUEST = range(0x10, 0x80)
_BOTH = (Command.TDI_INFO,)
_LIST_ENTRY = struct.Struct("<QII")  # GPA, pages, 1 for shared
# evidence objects
OBJECT_CHAIN, OBJECT_MEASUREMENTS, OBJECT_REPORT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Request:
    """A command as the mailbox hands it over. args: six 64-bit values."""

    command: int
    tdi: int
    args: tuple[int, ...]
    memory: GuestMemory
    host: bool  # came in through the host's port
    injection: Injection | None = None  # one of the EVIDENCE kinds


@dataclass(frozen=True, slots=True)
class Answer:
    """outs: up to four 64-bit values."""

    result: Result
    outs: tuple[int, ...] = ()


class SecurityProcessor:
    """All commands, over the platform's parts. reports: interface report of a TDI by index."""

    def __init__(
        self,
        tdis: list[Tdi],
        parts: Parts,
        reports: Callable[[int], bytes],
    ) -> None:
        self._tdis = tdis
        self._parts = parts
        self._reports = reports
        self.faults = FaultLog()
        self.injections = Injections()
        self._table: dict[Command, Callable[[Request], Answer]] = {
            Command.CONNECT: self._simple(lambda tdi, _: tdi.connect()),
            Command.DISCONNECT: self._simple(lambda tdi, _: tdi.disconnect()),
            Command.BIND: self._simple(lambda tdi, request: tdi.bind(_bdf(request.args[0]))),
            Command.UNBIND: self._simple(lambda tdi, _: tdi.unbind()),
            Command.LOCK: self._lock,
            Command.EVIDENCE: self._evidence,
            Command.RUN: self._simple(lambda tdi, request: tdi.run(request.args[0])),
            Command.UNLOCK: self._simple(lambda tdi, _: tdi.unlock()),
            Command.ENABLE_DMA: self._enable_dma,
            Command.DISABLE_DMA: self._simple(lambda tdi, _: tdi.disable_dma()),
            Command.ATTACH_TABLE: self._attach,
            Command.DETACH_TABLE: self._detach,
            Command.IOTLB_INVALIDATE: self._invalidate,
            Command.PAGE_STATE: self._page_state,
            Command.PAGE_STATE_LIST: self._page_state_list,
            Command.PAGE_STATE_RESET: self._page_state_reset,
            Command.PAGE_STATE_QUERY: self._page_state_query,
            Command.READ_FAULT: self._read_fault,
            Command.TDI_INFO: self._tdi_info,
            Command.INJECT: self._inject,
            Command.SET_ERROR: self._set_error,
            Command.ANNOUNCE: self._announce,
            Command.CHECK: self._check,
        }

    # -- the way in

    def execute(self, request: Request) -> Answer:
        """Carry out a command."""
        try:
            command = Command(request.command)
        except ValueError:
            answer = Answer(Result.UNKNOWN_COMMAND)
        else:
            answer = self._dispatch(command, request)
        self._parts.log.write(
            "command",
            port="host" if request.host else "guest",
            command=_command_name(request.command),
            tdi=request.tdi,
            args=[hex(value) for value in request.args],
            result=word_name(answer.result),
        )
        return answer

    def _dispatch(self, command: Command, request: Request) -> Answer:
        allowed = _HOST if request.host else _GUEST
        if command not in (*allowed, *_BOTH) and command < Command.INJECT:
            return Answer(Result.DENIED)
        try:
            return self._table[command](request)
        except OutsideMemory:
            return Answer(Result.BAD_ADDRESS)

    def reset(self) -> None:
        """The guest was reset: all its pages are private again, nothing is cached."""
        self._parts.pages.reset()
        self._parts.iommu.invalidate(None)
        self.faults.clear()
        self.injections.clear()

    def _tdi(self, request: Request) -> Tdi | None:
        return self._tdis[request.tdi] if request.tdi < len(self._tdis) else None

    def _simple(self, call: Callable[[Tdi, Request], Result]) -> Callable[[Request], Answer]:
        """A command that is one method of the TDI."""

        def handler(request: Request) -> Answer:
            tdi = self._tdi(request)
            return Answer(Result.BAD_TDI if tdi is None else call(tdi, request))

        return handler

    # -- TDISP

    def _lock(self, request: Request) -> Answer:
        """ARG0: the guest's BDF of the TDI (0: keep). OUT0: generation."""
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        result = tdi.lock()
        if result is Result.OK and request.args[0]:
            tdi.bdf = _bdf(request.args[0])
        return Answer(result, (tdi.generation,))

    def _evidence(self, request: Request) -> Answer:
        """ARG0 object, ARG1/2 buffer GPA and size, ARG3/4 nonce GPA and length.

        OUT0: size of the object, also when the buffer is too small. OUT1: generation.
        """
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        if not tdi.connected:
            return Answer(Result.NOT_CONNECTED)
        kind, buffer, size, nonce_at, nonce_len = request.args[:5]
        report = b"" if tdi.state is TdiState.UNLOCKED else self._reports(tdi.index)
        if kind == OBJECT_CHAIN:
            data = self._parts.device.chain(request.injection)
        elif kind == OBJECT_MEASUREMENTS:
            if nonce_len > NONCE_BYTES:
                return Answer(Result.BAD_ARGUMENT)
            nonce = request.memory.read(nonce_at, nonce_len) if nonce_len else b""
            claims = Claims(tdi.index, tdi.state, tdi.generation, nonce, report)
            data = self._parts.device.statement(claims, request.injection)
        elif kind == OBJECT_REPORT:
            if not report:
                return Answer(Result.INVALID_STATE)
            data = report
        else:
            return Answer(Result.BAD_ARGUMENT)
        outs = (len(data), tdi.generation)
        if size < len(data):
            return Answer(Result.TOO_SMALL, outs)
        request.memory.write(buffer, data)
        return Answer(Result.OK, outs)

    def _tdi_info(self, request: Request) -> Answer:
        """OUT0: state, connected << 8, bound << 9, DMA enabled << 10. OUT1 generation,
        OUT2 table root, OUT3 vTOM."""
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        flags = tdi.state | tdi.connected << 8 | tdi.bound << 9 | tdi.dma_enabled << 10
        root = tdi.table.root if tdi.table else 0
        return Answer(Result.OK, (flags, tdi.generation, root, tdi.vtom))

    # -- DMA and IOMMU

    @staticmethod
    def _table_from(root: int, mode: int) -> Table | None:
        """A table, if mode and alignment are possible. Where it lies is the walk's business."""
        if not 1 <= mode <= MAX_LEVEL or root % PAGE_BYTES or root >> 52:
            return None
        return Table(root, mode)

    def _enable_dma(self, request: Request) -> Answer:
        """A, B: ARG0 root, ARG1 mode (mode 0: keep the attached table). N: ARG0 vTOM."""
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        if self._parts.knobs.model is Model.N:
            vtom = request.args[0]
            if vtom != ALL_ONES and vtom % PAGE_BYTES:
                return Answer(Result.BAD_ARGUMENT)
            return Answer(tdi.enable_dma(None, vtom))
        root, mode = request.args[:2]
        table = self._table_from(root, mode) if mode else tdi.table
        if table is None:
            return Answer(Result.BAD_ARGUMENT)
        return Answer(tdi.enable_dma(table, 0))

    def _attach(self, request: Request) -> Answer:
        """ARG0 root, ARG1 mode. Does not flush: the guest has to invalidate."""
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        if self._parts.knobs.model is Model.N:
            return Answer(Result.INVALID_STATE)
        table = self._table_from(request.args[0], request.args[1])
        if table is None:
            return Answer(Result.BAD_ARGUMENT)
        tdi.table = table
        return Answer(Result.OK)

    def _detach(self, request: Request) -> Answer:
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        tdi.table = None
        return Answer(Result.OK)

    def _invalidate(self, request: Request) -> Answer:
        """TDI (or ALL_TDIS), ARG0 IOVA, ARG1 length (0: everything). OUT0: entries forgotten."""
        if request.tdi != ALL_TDIS and self._tdi(request) is None:
            return Answer(Result.BAD_TDI)
        which = None if request.tdi == ALL_TDIS else request.tdi
        iova, length = request.args[:2]
        if length == 0:
            return Answer(Result.OK, (self._parts.iommu.invalidate(which),))
        return Answer(Result.OK, (self._parts.iommu.invalidate(which, iova, length),))

    # -- page states

    def _page_state(self, request: Request) -> Answer:
        """ARG0 GPA, ARG1 pages, ARG2 1 for shared, 0 for private. OUT0: pages that changed."""
        gpa, pages, shared = request.args[:3]
        problem = self._page_problem(request.memory, gpa, pages, shared)
        if problem is not None:
            return Answer(problem)
        changed = self._parts.pages.set(gpa, pages, shared=bool(shared))
        self._parts.log.write("page-state", gpa=hex(gpa), pages=pages, shared=bool(shared))
        return Answer(Result.OK, (changed,))

    @staticmethod
    def _page_problem(
        memory: GuestMemory | Extents, gpa: int, pages: int, shared: int
    ) -> Result | None:
        if gpa % PAGE_BYTES or pages == 0 or shared > 1:
            return Result.BAD_ARGUMENT
        if pages > 1 << 40 or not memory.contains(gpa, pages * PAGE_BYTES):
            return Result.BAD_ADDRESS
        return None

    def _page_state_list(self, request: Request) -> Answer:
        """ARG0 GPA of an array of {u64 gpa, u32 pages, u32 shared}, ARG1 entries.

        Nothing changes unless every entry is good. OUT0: pages changed, or the bad entry.
        """
        at, count = request.args[:2]
        if not 0 < count <= MAX_LIST_ENTRIES:
            return Answer(Result.BAD_ARGUMENT)
        raw = request.memory.read(at, count * _LIST_ENTRY.size)
        entries = list(_LIST_ENTRY.iter_unpack(raw))
        # behind a vIOMMU there are a region per page, and an entry may name all of them
        extents = request.memory.extents()
        for number, (gpa, pages, shared) in enumerate(entries):
            problem = self._page_problem(extents, gpa, pages, shared)
            if problem is not None:
                return Answer(problem, (number,))
        changed = sum(
            self._parts.pages.set(gpa, pages, shared=bool(shared)) for gpa, pages, shared in entries
        )
        self._parts.log.write("page-state-list", entries=count, changed=changed)
        return Answer(Result.OK, (changed,))

    def _page_state_reset(self, request: Request) -> Answer:
        """All pages private: a kernel that was started by kexec begins with this."""
        del request
        changed = self._parts.pages.shared_pages()
        self._parts.pages.reset()
        self._parts.log.write("page-state-reset", pages=changed)
        return Answer(Result.OK, (changed,))

    def _page_state_query(self, request: Request) -> Answer:
        """ARG0 GPA. OUT0: 1 if shared; OUT1: shared pages in all."""
        pages = self._parts.pages
        return Answer(Result.OK, (int(pages.is_shared(request.args[0])), pages.shared_pages()))

    # -- faults and tests

    def _read_fault(self, request: Request) -> Answer:
        del request
        record = self.faults.take()
        return Answer(Result.EMPTY) if record is None else Answer(Result.OK, record.packed())

    def _inject(self, request: Request) -> Answer:
        """ARG0 opcode, ARG1 kind, ARG2 value (ERROR: result, DELAY: ms), ARG3 how often."""
        opcode, kind, value, count = request.args[:4]
        if opcode >= Command.INJECT or opcode not in set(Command) or kind not in set(Injection):
            return Answer(Result.BAD_ARGUMENT)
        return Answer(self.injections.add(Command(opcode), Injection(kind), value, count))

    def _set_error(self, request: Request) -> Answer:
        tdi = self._tdi(request)
        if tdi is None:
            return Answer(Result.BAD_TDI)
        tdi.error("on demand")
        return Answer(Result.OK if tdi.state is TdiState.ERROR else Result.INVALID_STATE)

    def _announce(self, request: Request) -> Answer:
        """TDI, ARG0 reason, ARG1 count (0: take back)."""
        reason, count = request.args[:2]
        if self._tdi(request) is None:
            return Answer(Result.BAD_TDI)
        if reason not in set(Reason) or reason == Reason.NONE:
            return Answer(Result.BAD_ARGUMENT)
        self._parts.announcements.announce(request.tdi, Reason(reason), count)
        return Answer(Result.OK)

    def _check(self, request: Request) -> Answer:
        """OUT0: unannounced faults, OUT1: announced ones that did not happen."""
        return Answer(Result.OK, self._parts.announcements.check(f"command {request.args[0]:#x}"))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the commands act on."""

    knobs: Knobs
    iommu: Iommu
    pages: PageStates
    device: Device
    announcements: Announcements
    log: EventLog


def _bdf(value: int) -> str:
    """A requester id as text; "" for 0."""
    return f"{value >> 8 & 0xFF:02x}:{value >> 3 & 0x1F:02x}.{value & 7}" if value else ""


def _command_name(value: int) -> str:
    try:
        return word_name(Command(value))
    except ValueError:
        return hex(value)
