# SPDX-License-Identifier: GPL-2.0-only
"""Which test a splat belongs to, and what taint bits mean.

Around each test the machine writes two markers through /dev/kmsg, and so to its console:

    tdisp-harness: begin guest:tsm:sysfs_abi 0 3f2a9c01d4e5
    tdisp-harness: end guest:tsm:sysfs_abi 0 81b2c3d4e5f6

The words are: begin or end, key of the test, number of the attempt, and an HMAC of these three
keyed with a token of the run.

A test can read the markers in the kernel log, but cannot make one for another test, since it never
learns the token, nor the end of its own: until the test is over, that stands nowhere but in the
memory of the shell around it (stages/selftest.py), which the test, being root, would have to search
on purpose. A begin marker that was seen before counts only once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from harness.core.console_text import (
    LineNumbers,
    boots,
    line_bounds,
    needle_lines,
    parse_line,
)
from harness.model.results import Splat

_NAME = "tdisp-harness: "
_MARKER = re.compile(
    r"tdisp-harness: (?P<verb>begin|end) (?P<key>\S{1,256})"
    r" (?P<attempt>\d{1,9}) (?P<mac>[0-9a-f]{12})\b"
)
_UNSAFE = re.compile(r"[^\x21-\x7e]")

# Bit, letter, meaning: Documentation/admin-guide/tainted-kernels.rst of Linux 7.3.
_TAINT = (
    ("P", "proprietary module was loaded"),
    ("F", "module was force loaded"),
    ("S", "kernel running on an out of specification system"),
    ("R", "module was force unloaded"),
    ("M", "processor reported a Machine Check Exception (MCE)"),
    ("B", "bad page referenced or some unexpected page flags"),
    ("U", "taint requested by userspace application"),
    ("D", "kernel died recently, i.e. there was an OOPS or BUG"),
    ("A", "ACPI table overridden by user"),
    ("W", "kernel issued warning"),
    ("C", "staging driver was loaded"),
    ("I", "workaround for bug in platform firmware applied"),
    ("O", 'externally-built ("out-of-tree") module was loaded'),
    ("E", "unsigned module was loaded"),
    ("L", "soft lockup occurred"),
    ("K", "kernel has been live patched"),
    ("X", "auxiliary taint, defined for and used by distros"),
    ("T", "kernel was built with the struct randomization plugin"),
    ("N", "an in-kernel test has been run"),
    ("J", "userspace used a mutating debug operation in fwctl"),
)


def begin_marker(test_key: str, token: str, attempt: int = 0) -> str:
    """The line to write before a test. token: a secret of the run, never sent to the machine.

    attempt: give each repetition its own number, or its begin marker counts as a replay.
    """
    return _marker("begin", test_key, token, attempt)


def end_marker(test_key: str, token: str, attempt: int = 0) -> str:
    """The line to write after a test."""
    return _marker("end", test_key, token, attempt)


def attribute(console: bytes, splats: Iterable[Splat], token: str) -> tuple[tuple[Splat, str], ...]:
    """Each splat with the key of the test during which it began, "" when there was none.

    A test that was not ended is over at the next boot of the machine or at the next test.
    """
    changes = _changes(console, token)
    found: list[tuple[Splat, str]] = []
    index = 0
    current = ""
    for splat in sorted(splats, key=lambda item: item.start_line):
        while index < len(changes) and changes[index][0] <= splat.start_line:
            current = changes[index][1]
            index += 1
        found.append((splat, current))
    return tuple(found)


def describe_taint(mask: int) -> tuple[str, ...]:
    """The meaning of each bit that is set, "W (bit 9): kernel issued warning"."""
    found: list[str] = []
    for bit in range(max(mask, 0).bit_length()):
        if mask >> bit & 1:
            if bit < len(_TAINT):
                letter, meaning = _TAINT[bit]
                found.append(f"{letter} (bit {bit}): {meaning}")
            else:
                found.append(f"bit {bit}: unknown to this harness")
    return tuple(found)


def taint_delta(before: int, after: int) -> tuple[str, ...]:
    """The taint that is new in `after`. Taint is never taken back, so lost bits say nothing."""
    return describe_taint(max(after, 0) & ~max(before, 0))


def grave_taint(before: int, after: int) -> tuple[str, ...]:
    """New taint that a kernel at fault gives itself: M, B, D, W and L. A console may have lost the
    report; the bit stays.
    """
    mask = sum(1 << bit for bit, (letter, _) in enumerate(_TAINT) if letter in "MBDWL")
    return taint_delta(before & mask, after & mask)


def _marker(verb: str, test_key: str, token: str, attempt: int) -> str:
    key = _UNSAFE.sub("_", test_key)[:256] or "_"
    return f"{_NAME}{verb} {key} {attempt} {_mac(verb, key, str(attempt), token)}"


def _mac(verb: str, key: str, attempt: str, token: str) -> str:
    text = f"{verb} {key} {attempt}".encode("utf-8", "replace")
    return hmac.new(token.encode(), text, hashlib.sha256).hexdigest()[:12]


def _changes(console: bytes, token: str) -> list[tuple[int, str]]:
    """(line number, test that runs from there on), by line."""
    boot_lines = set(boots(console))
    starts = sorted({*needle_lines(console, (_NAME.encode(),)), *boot_lines})
    numbers = LineNumbers(console)
    seen: set[str] = set()
    current = ""
    changes: list[tuple[int, str]] = []
    for start in starts:
        if start in boot_lines:
            current = ""
            changes.append((numbers.at(start), current))
            continue
        begin, end = line_bounds(console, start)
        for match in _MARKER.finditer(parse_line(console[begin:end]).text):
            good = _mac(match["verb"], match["key"], match["attempt"], token)
            if not hmac.compare_digest(good, match["mac"]):
                continue
            if match["verb"] == "begin" and good not in seen:
                seen.add(good)
                current = match["key"]
            elif match["verb"] == "end" and match["key"] == current:
                current = ""
            changes.append((numbers.at(start), current))
    return changes
