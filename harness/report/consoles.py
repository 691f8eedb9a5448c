# SPDX-License-Identifier: GPL-2.0-only
"""The consoles of a run's machines, with the parts that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model.results import MachineRecord, RunResult
from harness.report import clock
from harness.report.console import Chunk, Scan, chunks, find, scan

CONSOLE_LIMIT = 256 * 1024  # bytes of one console on the page
CONSOLES_LIMIT = 1024 * 1024  # and of all
_NEAR = 25  # lines around a splat
_TEST_HEAD, _TEST_TAIL = 30, 150
_BOOT_HEAD, _TAIL = 20, 200
_MACHINES = 40


@dataclass(frozen=True, slots=True)
class MachineConsole:
    """A machine's console. Lines on the page have the ids "<anchor>-<line>".

    file: relative to the run directory. hot: line -> id of the splat that begins there.
    """

    machine: str
    role: str
    file: str
    anchor: str
    scan: Scan
    windows: tuple[clock.Window, ...]
    boots: tuple[clock.Boot, ...]
    chunks: tuple[Chunk, ...]
    hot: dict[int, str]
    shown: frozenset[int]

    @property
    def left_out(self) -> int:
        """Lines that are not on the page."""
        return self.scan.lines - len(self.shown)

    @property
    def left_out_at_end(self) -> int:
        return self.scan.lines - max(self.shown, default=0)


def load(
    result: RunResult, run_dir: Path, splat_ids: Sequence[str]
) -> tuple[tuple[MachineConsole, ...], tuple[str, ...]]:
    """The consoles that can be read, and a note for each that cannot."""
    found: list[MachineConsole] = []
    notes: list[str] = []
    left = CONSOLES_LIMIT
    for number, machine in enumerate(result.machines[:_MACHINES], 1):
        path = find(run_dir, machine.console)
        if path is None:
            if machine.console:
                notes.append(f"{machine.name}: no console {machine.console} in the run directory")
            continue
        try:
            one = _load(result, machine, path, (f"c{number}", min(CONSOLE_LIMIT, left)), splat_ids)
        except OSError as error:
            notes.append(f"{machine.name}: {machine.console}: {error.strerror or error}")
            continue
        left -= sum(len(line.text) for chunk in one.chunks for line in chunk.lines)
        found.append(one)
    if len(result.machines) > _MACHINES:
        notes.append(f"the consoles of {len(result.machines) - _MACHINES} more machines are files")
    return tuple(found), tuple(notes)


def _load(
    result: RunResult,
    machine: MachineRecord,
    path: Path,
    place: tuple[str, int],
    splat_ids: Sequence[str],
) -> MachineConsole:
    """place: the anchor and the bytes that are left for this console."""
    anchor, limit = place
    known = scan(path)
    # of all roles: each console has the markers of all tests that ran while its machine was up
    windows = clock.windows(known, result.tests)
    first = next((s.start_s for s in result.stages if s.name == "boot"), 0.0)
    splats = [
        (record.splat.start_line, record.splat.end_line, ident)
        for record, ident in zip(result.splats, splat_ids, strict=True)
        if record.machine == machine.name
    ]
    wanted = _wanted(known, windows, [splat[:2] for splat in splats])
    shown = chunks(known, wanted, max(limit, 0)) if limit > 0 else ()
    numbers = frozenset(line.number for chunk in shown for line in chunk.lines)
    return MachineConsole(
        machine=machine.name,
        role=machine.role,
        file=machine.console,
        anchor=anchor,
        scan=known,
        windows=windows,
        boots=clock.boots(known, windows, first),
        chunks=shown,
        hot={start: ident for start, _, ident in splats if start in numbers},
        shown=numbers,
    )


def _wanted(
    known: Scan, windows: Sequence[clock.Window], splats: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Ranges of lines, the most important first."""
    for start, end in splats:
        yield start - _NEAR, min(end, start + 200) + _NEAR
    for window in windows:
        if not window.good:
            yield max(window.first, window.last - _TEST_TAIL), window.last + 1
            yield window.first - 1, min(window.first + _TEST_HEAD, window.last)
    yield known.lines - _TAIL, known.lines
    for mark in known.marks:
        if mark.kind == "boot":
            yield mark.line - 2, mark.line + _BOOT_HEAD
    for mark in known.marks:
        if mark.kind != "boot":
            yield mark.line - 1, mark.line + 1
