# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a serial console: what the kernel said, without what was glued to it.

A console mixes kernel messages, userspace output, terminal escapes and carriage returns. A kernel
message may follow unfinished userspace output on the same line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

# Nothing after this many bytes of a line is looked at: the kernel's own limit is about 1 KiB.
MAX_LINE_BYTES = 4096

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?]{0,16}[ -/]?[@-~]|\][^\x07\x1b]{0,1000}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>c78])"
)
_STAMP = r"\[ {0,12}\d{1,10}\.\d{6}\]"
_CALLER = r" ?\[ {0,20}(?P<caller>[CT]\d{1,9})\]"  # the first space is that of dmesg
_SYSLOG = (
    r"(?:[A-Z][a-z]{2} [ \d]?\d \d\d:\d\d:\d\d(?:\.\d{6})?|\d{4}-\d\d-\d\dT[\d:.,+Z-]{8,32})"
    r" (?:[\w.-]{1,64} )?kernel(?:\[\d+\])?: ?"
)
_WALL_CLOCK = r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]"
_ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d"  # dmesg --time-format iso
_JOURNAL = r" [\w.-]{1,64}+ kernel:(?= |$)"  # journalctl -o short-monotonic
_PREFIX = re.compile(
    rf"(?:<\d{{1,3}}>)?(?:{_SYSLOG})?(?P<stamp>{_STAMP}|{_WALL_CLOCK}|{_ISO})?(?:{_CALLER}|{_JOURNAL})?"
    r"(?(stamp) ?|(?(caller) ?))"  # a further space is the message's own
)
_KMSG = re.compile(  # Documentation/ABI/testing/dev-kmsg: what is not printable is escaped
    r"\d{1,3},\d{1,20},(?P<time_us>\d{1,20}),[-c](?:,caller=(?P<caller>[CT]\d{1,9}))?(?:,[^;]{0,64})?;"
)
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")
_INNER_PREFIX = re.compile(rf"(?P<stamp>{_STAMP})(?:{_CALLER})?(?: |$)")
_BANNER = re.compile(r"Linux version \d+\.")
_USERSPACE_US = 100_000  # no kernel is faster to where somebody may call dmesg
_SINCE_BOOT = re.compile(r"\[ *(\d+)\.(\d{6})\]\Z")


@dataclass(slots=True)  # not frozen: that would be a quarter of the time that parse_line() takes
class ConsoleLine:
    """One console line. text: the message, indentation kept; stamp: "" when it has none."""

    text: str
    stamp: str
    caller: str  # "T123" or "C1" with CONFIG_PRINTK_CALLER, else ""


def parse_line(raw: bytes) -> ConsoleLine:
    """Strip escapes, carriage returns, syslog prefix, time stamp and caller id from one line."""
    text = raw[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip()
    if "\x1b" in text:
        text = _ESCAPES.sub("", text).rstrip()
    if "\r" in text:
        # A carriage return overwrites: what follows the last one is what a reader saw.
        text = text.rpartition("\r")[2]
    match = _PREFIX.match(text)
    if match is None:  # every part of the prefix is optional
        return ConsoleLine(text, "", "")
    stamp, caller = match.groups("")
    if not stamp and text[:1].isdigit():
        record = _KMSG.match(text)
        if record is not None:
            return _kmsg_line(record)
    if not stamp and "[" in text and not text.startswith("#"):
        # "dd: out of memor[    1.762134] BUG: ...": userspace had not ended its line. A KTAP
        # diagnostic that quotes a log keeps its "#", and is not the kernel speaking.
        inner = _INNER_PREFIX.search(text)
        if inner is not None:
            match = inner
            stamp, caller = match.groups("")
    return ConsoleLine(text[match.end() :], stamp, caller)


def _kmsg_line(record: re.Match[str]) -> ConsoleLine:
    time_us = int(record["time_us"])
    stamp = f"[{time_us // 1_000_000:5}.{time_us % 1_000_000:06}]"
    text = _ESCAPED.sub(_unescaped, record.string[record.end() :]).lstrip("\n")
    return ConsoleLine(text, stamp, record["caller"] or "")


def _unescaped(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "replace")


def line_bounds(data: bytes, start: int) -> tuple[int, int]:
    """(start, end) of the line that begins at `start`; end excludes the newline."""
    end = data.find(b"\n", start)
    return start, len(data) if end < 0 else end


def pieces(data: bytes, size: int = 1 << 18) -> Iterator[bytes]:
    """`data` in parts of at least `size` bytes that end with a line."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + size) + 1 or len(data)
        yield data[start:end]
        start = end


def needle_lines(data: bytes, needles: tuple[bytes, ...]) -> list[int]:
    """Start offsets, ascending, of every line that holds a needle. Linear in the input.

    bytes.find runs at memory speed, an alternation of regexes does not.
    """
    starts: set[int] = set()
    for needle in needles:
        hit = data.find(needle)
        while hit >= 0:
            starts.add(data.rfind(b"\n", 0, hit) + 1)
            end = data.find(b"\n", hit)
            hit = data.find(needle, end) if end >= 0 else -1
    return sorted(starts)


class LineNumbers:
    """Offsets to line numbers, for offsets asked in ascending order. first: of the first line."""

    def __init__(self, data: bytes, first: int = 1) -> None:
        self._data = data
        self._offset = 0
        self._line = first

    def at(self, offset: int) -> int:
        """The number of the line that holds `offset`."""
        self._line += self._data.count(b"\n", self._offset, offset)
        self._offset = offset
        return self._line


def last_lines(data: bytes, count: int = 20) -> tuple[str, ...]:
    """The last non-empty lines, as printable text."""
    found: list[str] = []
    end = len(data)
    while end > 0 and len(found) < count:
        start = data.rfind(b"\n", 0, end) + 1
        text = data[start : min(end, start + MAX_LINE_BYTES)].decode("utf-8", "replace")
        text = _ESCAPES.sub("", text).strip()
        if text:
            found.append(text)
        end = start - 1
    return tuple(reversed(found))


def boots(data: bytes) -> tuple[int, ...]:
    """Offsets of the lines with a kernel banner, one per boot of this console.

    A `dmesg` printed on the console repeats the banner of its own boot; its first stamped lines are
    the same to the microsecond, so it is told apart and left out. So is its head alone (`dmesg |
    head`, where all times may be zero), when the next line that is not repeated goes on with the
    time from before: after a boot it begins anew. When no such line follows, or nobody can have
    called dmesg so early, it counts as a boot.
    Left out is also a banner without a time stamp (/proc/version) after one with.
    """
    found: list[int] = []
    seen: list[tuple[str, ...]] = []
    time_us = 0  # of the last line that was not repeated
    for start in _banner_lines(data):
        stamps = _first_stamps(data, start)
        time_us = max(time_us, _time_before(data, start)) if found else 0
        if len(stamps) >= 3 and stamps in seen:
            continue
        if time_us >= _USERSPACE_US and _time_goes_on(data, found[-1], start, time_us):
            continue
        found.append(start)
        seen.append(stamps)
        time_us = 0
    return tuple(found)


def _banner_lines(data: bytes) -> Iterator[int]:
    stamped = False
    for start in needle_lines(data, (b"Linux version ",)):
        begin, end = line_bounds(data, start)
        line = parse_line(data[begin:end])
        if _BANNER.match(line.text) and (line.stamp or not stamped):
            stamped = bool(line.stamp)
            yield begin


def _stamped_lines(data: bytes, start: int) -> Iterator[ConsoleLine]:
    """Of the next 300 lines those with a time stamp."""
    for _ in range(300):
        if start >= len(data):
            return
        begin, end = line_bounds(data, start)
        line = parse_line(data[begin:end])
        if line.stamp:
            yield line
        start = end + 1


def _first_stamps(data: bytes, start: int) -> tuple[str, ...]:
    """The first lines of a boot that carry a time other than zero."""
    lines = _stamped_lines(data, start)
    timed = (line.stamp + line.text for line in lines if not line.stamp.endswith(" 0.000000]"))
    return tuple(islice(timed, 5))


def _time_before(data: bytes, start: int) -> int:
    """The time in microseconds of the last line with a stamp, of the 300 before `start`; or 0."""
    for _ in range(300):
        if start <= 0:
            break
        begin = data.rfind(b"\n", 0, start - 1) + 1
        line = parse_line(data[begin : start - 1])
        if line.stamp:
            return _time_us(line.stamp)
        start = begin
    return 0


def _time_goes_on(data: bytes, boot: int, start: int, time_us: int) -> bool:
    """Whether lines of `boot` follow a banner, and then one whose time is not before time_us."""
    repeated = _stamped_lines(data, boot)
    for line in _stamped_lines(data, start):
        if _BANNER.match(line.text):
            repeated = _stamped_lines(data, boot)
        if next(repeated, None) != line:  # another kernel's banner is no repetition
            return not _BANNER.match(line.text) and _time_us(line.stamp) >= time_us
    return False


def _time_us(stamp: str) -> int:
    """Of a stamp that counts from boot; else 0."""
    match = _SINCE_BOOT.match(stamp)
    return int(match[1] + match[2]) if match is not None else 0


def boot_at(starts: tuple[int, ...], offset: int) -> int:
    """Which boot an offset belongs to; 0 before the first banner."""
    return bisect_right(starts, offset)
