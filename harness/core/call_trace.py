# SPDX-License-Identifier: GPL-2.0-only
"""Call traces: frames of a kernel report, and names for bare addresses."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

_SYMBOL = r"[A-Za-z_][\w.$]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[\w-]+[^\]]*\])?"
_FRAME = re.compile(rf"^\s*+(?:\[<[0-9a-f]+>\] )?(?P<unsure>\? )?(?P<entry>{_SYMBOL})")
_BARE = re.compile(r"^\s++(?:\[<)?(?:0x)?(?P<address>[0-9a-f]{16})(?:>\])?\s*$")
_RIP = re.compile(rf"^(?:RIP: 00[0-2]\d:|pc : )(?:\[<[0-9a-f]+>\] )?(?P<entry>{_SYMBOL})")
_START = re.compile(r"^(?:Call Trace:|Call trace:|backtrace:|stack backtrace:| ++backtrace)")
_FIRST = frozenset(" RpCbs")  # letters that a line of a trace may begin with
_ADDRESS = re.compile(r"(?:0x)?([0-9a-f]{8,16})\Z")
_CLONE = re.compile(r"\.(?:constprop|isra|part|cold|llvm|lto_priv)(?:\.\d+)*")


@lru_cache(maxsize=4096)
def plain_function(entry: str) -> str:
    """ "foo.constprop.0+0x1/0x2 [mod]" is "foo": what stays the same from build to build."""
    name = entry.strip().partition("+")[0].partition(" ")[0]
    return _CLONE.sub("", name)


def is_address(name: str) -> bool:
    """Whether the kernel had no name for it: code of a module that is gone."""
    return _ADDRESS.match(name) is not None


@dataclass(slots=True)
class Segment:
    """One call trace of a report. rip: the entry of its RIP line, if any."""

    rip: str = ""
    frames: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)  # the "? foo" entries
    implicit: bool = False  # frames without a line that announced a call trace


@dataclass(slots=True)
class TraceReader:
    """Collects the traces of one report, line by line."""

    segments: list[Segment] = field(default_factory=list)

    def feed(self, text: str) -> None:
        """Take one message line."""
        if text[:1] == " ":
            frame = _FRAME.match(text) if "+0x" in text else None
            if frame is not None:
                self._frame(*frame.groups())
                return
            bare = _BARE.match(text)
            if bare is not None and self.segments:
                self.segments[-1].frames.append(bare["address"])
                return
        elif text[:1] not in _FIRST:
            return
        rip = _RIP.match(text)
        if rip is not None:
            if not self.segments or self.segments[-1].frames or self.segments[-1].rip:
                self.segments.append(Segment())
            self.segments[-1].rip = rip["entry"]
        elif _START.match(text):
            if self.segments and self.segments[0].implicit:
                # What came before were the stacks of others (lockdep's dependency chain).
                self.segments.clear()
            if not self.segments or self.segments[-1].frames:
                self.segments.append(Segment())

    def _frame(self, unsure: str | None, entry: str) -> None:
        if not self.segments:  # KFENCE and KMSAN have no "Call Trace:"
            self.segments.append(Segment(implicit=True))
        segment = self.segments[-1]
        (segment.unsure if unsure else segment.frames).append(entry)

    @property
    def empty(self) -> bool:
        """No frame and no instruction pointer was seen."""
        return not any(item.rip or item.frames or item.unsure for item in self.segments)

    def trace(self) -> tuple[str, ...]:
        """The first trace with frames, entries as the kernel printed them."""
        for segment in self.segments:
            if segment.frames:
                return tuple(segment.frames)
        return ()


def guilty_frame(
    segments: Iterable[Segment],
    sources: tuple[str, ...],
    skip_frame: re.Pattern[str],
    skip_segment: re.Pattern[str],
) -> tuple[str, Segment | None]:
    """The first function that is neither generic nor reporting, and the trace it is in.

    ("", None) when there is none. An "? foo" entry counts only when nothing better is found, and
    the trace of a bystander (skip_segment) only when there is no other.
    """
    fallback: tuple[str, Segment | None] = ("", None)
    bystander: tuple[str, Segment | None] = ("", None)
    for segment in segments:
        rip = plain_function(segment.rip) if "rip" in sources else ""
        rip = "" if skip_frame.match(rip) else rip
        names = [plain_function(entry) for entry in segment.frames]
        if any(skip_segment.match(name) for name in names):
            bystander = bystander if bystander[0] else (rip, segment)
            continue
        if rip:
            return rip, segment
        if "trace" not in sources:
            continue
        for name in names:
            if not is_address(name) and not skip_frame.match(name):
                return name, segment
        unsure = (plain_function(entry) for entry in segment.unsure)
        name = next((name for name in unsure if not skip_frame.match(name)), "")
        fallback = fallback if fallback[0] else (name, segment)
    return fallback if fallback[0] else bystander


def decode(trace: Iterable[str], system_map_text: str) -> tuple[str, ...]:
    """Entries with bare addresses become "symbol+0xoffset"; others stay as they are.

    system_map_text: System.map, lines "ffffffff81000000 T _text"; bad lines are passed over. Only
    right for a kernel that was booted without address randomisation.
    """
    symbols: list[tuple[int, str]] = []
    for line in system_map_text.splitlines():
        parts = line.split()
        if len(parts) == 3 and len(parts[0]) <= 16 and parts[1] in "tTwW":
            try:
                symbols.append((int(parts[0], 16), parts[2]))
            except ValueError:
                continue
    symbols.sort()
    addresses = [address for address, _ in symbols]
    return tuple(_named(entry, symbols, addresses) for entry in trace)


def _named(entry: str, symbols: list[tuple[int, str]], addresses: list[int]) -> str:
    match = _ADDRESS.match(entry.strip())
    if match is None:
        return entry
    address = int(match[1], 16)
    index = bisect_right(addresses, address) - 1
    # The last symbol has no end; a megabyte past any symbol is not in its function.
    if index < 0 or address - addresses[index] >= 1 << 20:
        return entry
    return f"{symbols[index][1]}+{address - addresses[index]:#x}"
