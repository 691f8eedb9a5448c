# SPDX-License-Identifier: GPL-2.0-only
"""Source lines for the entries of a call trace, from what nm and addr2line say of the build.

An entry is decoded only when the build has a function of that name and size at that offset: the
console of a host machine also holds the traces of its own, other kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_ENTRY = re.compile(
    r"(?P<name>[A-Za-z_][\w.$]*)\+0x(?P<offset>[0-9a-f]{1,16})/0x(?P<size>[0-9a-f]{1,16})"
    r"(?: \[(?P<module>[\w-]+)[^\]]*\])?\s*\Z"
)
_PADDING = 64  # kallsyms takes a function to end where the next one begins
_MAX_INLINED = 4
_ADDRESS = re.compile(r"0x[0-9a-f]+\Z")


class Symbol(NamedTuple):
    """A function of an ELF file. value: its address; in a module, relative to its section."""

    value: int
    size: int
    section: str


class Entry(NamedTuple):
    """A parsed entry of a trace. module: "" for the kernel itself."""

    name: str
    offset: int
    size: int
    module: str


class Place(NamedTuple):
    """Where an entry lies, as addr2line is asked for it."""

    section: str
    address: int


Symbols = Mapping[str, Sequence[Symbol]]


def parse_entry(text: str) -> Entry | None:
    """ "tdi_lock+0x12/0x40 [tdi]"; None for a bare address and anything else."""
    match = _ENTRY.match(text.strip())
    if match is None:
        return None
    offset, size = int(match["offset"], 16), int(match["size"], 16)
    return Entry(match["name"], offset, size, match["module"] or "")


def read_nm(text: str) -> dict[str, list[Symbol]]:
    """The functions that `nm --format=sysv` lists; other lines are passed over."""
    found: dict[str, list[Symbol]] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 7 or parts[3] != "FUNC":
            continue
        try:
            symbol = Symbol(int(parts[1], 16), int(parts[4], 16), parts[6])
        except ValueError:
            continue
        found.setdefault(parts[0], []).append(symbol)
    return found


def locate(entry: Entry, symbols: Symbols) -> Place | None:
    """The place of an entry; None when no function, or more than one, can be meant.

    A return address points behind the call, which may be on the next line: hence the byte before.
    """
    fitting = {
        symbol
        for symbol in symbols.get(entry.name, ())
        if symbol.size <= entry.size < symbol.size + _PADDING and entry.offset <= entry.size
    }
    if len(fitting) != 1:
        return None
    (symbol,) = fitting
    return Place(symbol.section, symbol.value + max(entry.offset - 1, 0))


def read_addr2line(text: str) -> dict[int, tuple[tuple[str, str], ...]]:
    """Per address the (function, "file:line") that `addr2line -a -f -i` gives, innermost first."""
    found: dict[int, tuple[tuple[str, str], ...]] = {}
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        if not _ADDRESS.match(lines[index]):
            index += 1
            continue
        address = int(lines[index], 16)
        index += 1
        frames = []
        while index + 1 < len(lines) and not _ADDRESS.match(lines[index]):
            frames.append((lines[index].strip(), lines[index + 1].strip()))
            index += 2
        found[address] = tuple(frames)
    return found


def with_source(text: str, frames: Iterable[tuple[str, str]]) -> str:
    """ "tdi_lock+0x12/0x40 (helper include/linux/x.h:9, drivers/pci/tsm.c:214)".

    Functions that the compiler put inside come first, with their names; `text` itself when no
    source line is known.
    """
    known = [(name, _short(place)) for name, place in frames if not place.startswith("??")]
    if not known or known[-1][1].endswith((":?", ":0")):
        return text
    inner = [f"{name} {place}" for name, place in known[:-1]]
    if len(inner) > _MAX_INLINED:
        inner = [*inner[:_MAX_INLINED], "..."]
    return f"{text} ({', '.join([*inner, known[-1][1]])})"


def _short(place: str) -> str:
    """The file relative to the kernel tree: O= is a directory in it, so names hold "/../"."""
    place = place.partition(" (discriminator")[0]
    return place.rpartition("/../")[2].removeprefix("./")
