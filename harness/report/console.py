# SPDX-License-Identifier: GPL-2.0-only
"""A machine's console as a report needs it: where things are in it, and the parts worth showing.

A console may be 100 MB and more, in one line or in millions. It is read once from end to end in
pieces, and then only where something happened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report.text import clean

LINE_LIMIT = 1000  # characters of a line that are shown
_PIECE = 64 * 1024
_STEP = 500  # lines from one known offset to the next
_MARKS = 20_000
_STAMP = re.compile(rb"^(?:<\d+>)?\[ *(\d+\.\d+)\]")
_MARKER = re.compile(rb"tdisp-harness: (begin|end) (\S{1,256}) (\d{1,9}) [0-9a-f]{12}\b")
_BANNER = re.compile(rb"^(?:<\d+>)?(?:\[ *\d+\.\d+\] ?(?:\[ *[TC]\d+\] ?)?)?Linux version \d")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a console. kind: "boot", "begin", "end". stamp: printk's seconds, if any."""

    line: int
    kind: str
    key: str  # "role:collection:test" of begin and end
    attempt: int
    stamp: float | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What one reading of a console found. offsets: of lines 1, 1 + _STEP, ... (bytes)."""

    path: Path
    size_bytes: int
    lines: int
    marks: tuple[Mark, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is shown. stamp: printk's seconds since its boot, None without."""

    number: int
    text: str
    stamp: float | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines in a row. left_out: how many lines were left out right before them."""

    lines: tuple[Line, ...]
    left_out: int


def find(run_dir: Path, relative: str) -> Path | None:
    """The console's path when it is a file inside the run directory."""
    try:
        path = (run_dir / relative).resolve()
        inside = bool(relative) and path.is_relative_to(run_dir.resolve())
        return path if inside and path.is_file() else None
    except (OSError, ValueError):
        return None


def scan(path: Path) -> Scan:
    """Read a console from end to end; OSError when it cannot be read."""
    offsets = [0]
    marks: list[Mark] = []
    number, at = 1, 0
    fresh = True  # at the start of a line
    with path.open("rb") as stream:
        while piece := stream.readline(_PIECE):
            at += len(piece)
            if (
                fresh
                and (b"tdisp-harness: " in piece or b"Linux version " in piece)
                and len(marks) < _MARKS
                and (mark := _mark(number, piece)) is not None
            ):
                marks.append(mark)
            fresh = piece.endswith(b"\n")
            if fresh:
                number += 1
                if number % _STEP == 1:
                    offsets.append(at)
    return Scan(path, at, number - fresh, tuple(marks), tuple(offsets))


def _mark(number: int, piece: bytes) -> Mark | None:
    stamp = _stamp(piece)
    if _BANNER.match(piece):
        return Mark(number, "boot", "", 0, stamp)
    found = _MARKER.search(piece)
    if found is None:
        return None
    kind, key = found[1].decode(), found[2].decode("utf-8", "replace")
    return Mark(number, kind, key, int(found[3]), stamp)


def _stamp(piece: bytes) -> float | None:
    found = _STAMP.match(piece)
    return float(found[1]) if found else None


def read_lines(known: Scan, first: int, last: int) -> tuple[Line, ...]:
    """Lines `first` to `last`, cleaned and cut to LINE_LIMIT; fewer at the console's end."""
    first, last = max(first, 1), min(last, known.lines)
    if first > last:
        return ()
    index = min((first - 1) // _STEP, len(known.offsets) - 1)
    number, found = index * _STEP + 1, []
    with known.path.open("rb") as stream:
        stream.seek(known.offsets[index])
        start = b""
        while number <= last and (piece := stream.readline(_PIECE)):
            start = start or piece
            if piece.endswith(b"\n"):
                if number >= first:
                    found.append(_line(number, start))
                start = b""
                number += 1
        if start and first <= number <= last:
            found.append(_line(number, start))
    return tuple(found)


def _line(number: int, raw: bytes) -> Line:
    text = clean(raw[: 4 * LINE_LIMIT].decode("utf-8", "replace").rstrip("\r\n"))
    text = " ".join(text.split("\n"))  # a bare CR inside a line
    if len(text) > LINE_LIMIT:
        text = text[: LINE_LIMIT - 1] + "…"
    return Line(number, text, _stamp(raw[:64]))


def chunks(known: Scan, wanted: Iterable[tuple[int, int]], limit: int) -> tuple[Chunk, ...]:
    """The parts of a console that fit into about `limit` bytes, in order.

    wanted: ranges of lines (first, last), the most important first; what does not fit is left out,
    a range that fits in part keeps its beginning. A console below the limit comes whole.
    """
    if known.size_bytes <= limit:
        ranges: Sequence[tuple[int, int]] = [(1, known.lines)]
    else:
        ranges = list(wanted)
    shown: dict[int, Line] = {}
    left = limit
    for first, last in ranges:
        for start in range(max(first, 1), min(last, known.lines) + 1, _STEP):
            if left <= 0:
                break
            for line in read_lines(known, start, min(start + _STEP - 1, last)):
                if line.number not in shown and left > 0:
                    shown[line.number] = line
                    left -= len(line.text) + 24
    found: list[Chunk] = []
    current: list[Line] = []
    gap, before = 0, 0
    for number in sorted(shown):
        if current and number != before + 1:
            found.append(Chunk(tuple(current), gap))
            current = []
        if not current:
            gap = number - before - 1
        current.append(shown[number])
        before = number
    if current:
        found.append(Chunk(tuple(current), gap))
    return tuple(found)
