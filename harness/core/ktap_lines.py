# SPDX-License-Identifier: GPL-2.0-only
"""The single lines of KTAP: cleaning, log prefixes, and what one result line says.

Sources: Documentation/dev-tools/ktap.rst, tools/testing/selftests/kselftest.h,
kselftest_harness.h, kselftest/runner.sh, kselftest/ktap_helpers.sh, and TAP 13/14.
Every regular expression here is anchored or free of nested repetition: linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from harness.model.results import Outcome

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[()][0-9A-B]|[@-Z\\-_])"
)
_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

# The caller id is behind a space when dmesg prints it, the host when journalctl does.
_CALLER = r"(?: ?\[ *[TC][0-9]{1,10}\])? ?"
_STAMP = rf"\[ *[0-9]{{1,10}}\.[0-9]{{6}}\](?: [\w.-]{{1,64}} kernel:(?= ))?{_CALLER}"
_CTIME = rf"\[[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ 0-9][0-9] [0-9:]{{8}} [0-9]{{4}}\]{_CALLER}"
_DATE = r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,+Z-]{8,30})"
_SYSLOG = rf"{_DATE} \S{{1,64}} kernel: (?:{_STAMP})?"
_KMSG = r"[0-9]{1,3},[0-9]{1,20},[0-9]{1,20},[^;\n]{1,20};"
_LEVEL = r"(?:<[0-9]{1,3}>)?(?:[a-z]{1,8} *:[a-z]{1,8} *: )?"
_KERNEL_PREFIX = re.compile(rf"{_LEVEL}(?:{_STAMP}|{_CTIME}|{_SYSLOG}|{_KMSG})|<[0-9]{{1,3}}>")
_KERNEL_INSIDE = re.compile(_STAMP)
_NAMED_PREFIX = re.compile(r"([^#\n]{1,80}?[ :\]>|\t])K?TAP version [0-9]{1,3}\s*$")
_DIGITS = re.compile(r"(?:\\ )*[0-9]+")
_NAMED_PREFIXES_MAX = 8

VERSION = re.compile(r"K?TAP version [0-9]{1,3}\s*$")
PLAN = re.compile(r"1\.\.([0-9]{1,18})\s*(?:#\s*(.*))?$")
POINT = re.compile(r"(not )?ok(?=\s|#|$)(?:\s+([0-9]{1,18})(?![\w.]))?\s*(.*)$")
BAIL = re.compile(r"bail out!\s*(.*)$", re.IGNORECASE)
SELFTEST = re.compile(r"selftests: (\S+): (\S.*)$")
RUN = re.compile(r"RUN\s+(\S.*) \.\.\.\s*$")
SUBTEST = re.compile(r"Subtest: (.*)$")
TOTALS = re.compile(
    r"Totals: pass:([0-9]{1,18}) fail:([0-9]{1,18})(?: xfail:([0-9]{1,18}))?"
    r"(?: xpass:([0-9]{1,18}))? skip:([0-9]{1,18})(?: error:([0-9]{1,18}))?"
    r"(?: total:([0-9]{1,18}))?\s*$"
)
# A test's last output without a newline, and the result that runner.sh printed right behind it.
GLUED = re.compile(r"(?:not )?ok [0-9]{1,18} (selftests: \S+: [^#\n]*[^#\s])")
DENIAL = re.compile(r"\bnot\W*$")

_HASH = re.compile(r"(?:^|\s)#|(?<=[^\s\\])#(?=\s*(?:SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b)")
_DIRECTIVE = re.compile(
    r"(skip(?:ped)?|todo|xfail|xpass|timeout|error)(?![\w=-])[:\s]*(.*)$", re.IGNORECASE
)
_EXIT = re.compile(r"exit=([0-9]{1,9})$")
_TEXT_MAX = 2000


class Point(NamedTuple):
    """What a result line says. name "" when unnamed; problem "" when the line is consistent."""

    name: str
    outcome: Outcome
    reason: str
    problem: str


def cleaned_lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """(number from 1, text, whether no newline ended it) of each line.

    Without CR, ANSI escapes and NUL padding; a NUL inside a line becomes U+FFFD. A bare CR
    separates pieces that share one line number.
    """
    if text.startswith("\ufeff"):
        text = text[1:]
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    rows = text.split("\n")
    last = len(rows)
    for number, row in enumerate(rows, 1):
        if number == last and not row:
            return
        if "\r" not in row and "\0" not in row:
            yield number, row, number == last
            continue
        for piece in row.rstrip("\r").split("\r"):
            yield number, piece.strip("\0").replace("\0", "\ufffd"), number == last


class Prefixes:
    """Finds the log prefix of a line, and by it the stream that the line belongs to."""

    def __init__(self) -> None:
        self._named: dict[str, re.Pattern[str]] = {}
        self._active: re.Pattern[str] | None = None

    def split(self, text: str) -> tuple[str, str]:
        """(stream, text without prefix); stream "" is plain output, "kernel" a kernel log."""
        if text and text[0] not in "#on ":
            match = _KERNEL_PREFIX.match(text)
            if match:
                return "kernel", text[match.end() :]
        if "TAP version " in text:
            self._learn(text)
        if self._active is not None:
            match = self._active.match(text)
            if match:
                return self._active.pattern, text[match.end() :]
        return "", text

    def _learn(self, text: str) -> None:
        """A version line behind an unknown prefix teaches that prefix, numbers left open."""
        match = _NAMED_PREFIX.match(text)
        if not match or not match[1].strip():
            return
        if match[1].rstrip().endswith(("not", "ok")):
            return  # else the prefix would swallow the "not" of "not ok"
        shape = _DIGITS.sub(lambda _: " *+[0-9]++", re.escape(match[1]))
        if shape not in self._named:
            if len(self._named) >= _NAMED_PREFIXES_MAX:
                return
            self._named[shape] = re.compile(shape)
        self._active = self._named[shape]


def tidy(text: str) -> str:
    """Text fit for a report: one line, no control characters or lone surrogates, bounded."""
    text = text.strip()
    if not text.isprintable():
        text = _UNPRINTABLE.sub("\ufffd", text)
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "..."


def without_kernel_message(text: str) -> tuple[str, bool]:
    """Cut off a kernel message that landed inside the line; True when there was one."""
    if "[" not in text:
        return text, False
    match = _KERNEL_INSIDE.search(text)
    return (text[: match.start()], True) if match else (text, False)


def read_point(ok: bool, rest: str) -> Point:
    """Read what follows the number of a result line."""
    if rest[:1] == "-":
        rest = rest[1:].lstrip()
    plain = Outcome.PASS if ok else Outcome.FAIL
    if "#" not in rest:
        return Point(tidy(_unescape(rest)), plain, "", "")
    name, *notes = (part.strip() for part in _HASH.split(rest))
    name = tidy(_unescape(name))
    for note in notes:
        match = _DIRECTIVE.match(note)
        if match:
            said = _directive(ok, match[1], tidy(match[2]))
            if said is not None:
                outcome, reason, problem = said
                others = tidy(" # ".join(n for n in notes if n and n is not note))
                return Point(name, outcome, reason or others, problem)
    reason = tidy(" # ".join(n for n in notes if n))
    # runner.sh has no case for KSFT_XPASS (exit 3): it prints "not ok ... # exit=3".
    if not ok and notes and notes[-1] == "exit=3":
        return Point(name, Outcome.XPASS, reason, "")
    exit_status = _EXIT.match(notes[-1]) if ok and notes else None
    if exit_status and int(exit_status[1]):
        # runner.sh never says so; whoever does had a failure that "ok" would hide
        return Point(name, Outcome.FAIL, reason, f"'ok' contradicts {exit_status[0]}")
    return Point(name, plain, reason, "")


def diagnosis(comment: str) -> str:
    """What a comment of kselftest_harness.h says about a failure; "" when nothing."""
    if comment.endswith("Test terminated by timeout"):
        return "terminated by timeout"
    start = comment.find(":Expected ")
    return tidy(comment[start + 1 :]) if start >= 0 else ""


def with_diagnosis(point: Point, note: str) -> Point:
    """A failed point with the reason that the comments before it gave."""
    if point.outcome is not Outcome.FAIL:
        return point
    timed_out = note == "terminated by timeout"
    outcome = Outcome.TIMEOUT if timed_out else Outcome.FAIL
    return Point(point.name, outcome, note, point.problem)


def _directive(ok: bool, word: str, reason: str) -> tuple[Outcome, str, str] | None:
    """Outcome, reason and problem of a directive; None when it is only diagnostic text."""
    kind = word.upper()
    if kind in ("SKIP", "SKIPPED"):
        return Outcome.SKIP, reason, ""
    if kind == "XFAIL":  # kselftest.h prints an expected failure as "ok N # XFAIL reason"
        return Outcome.XFAIL, reason, ""
    if kind == "TODO":
        return (Outcome.XPASS if ok else Outcome.XFAIL), reason, ""
    if ok and word != kind:
        return None  # "ok 3 waits # timeout 30 ms": prose
    if kind == "XPASS":
        return Outcome.XPASS, reason, ""
    problem = f"'ok' contradicts the directive {kind}" if ok else ""
    if kind == "TIMEOUT":
        return Outcome.TIMEOUT, reason, problem
    return Outcome.FAIL, f"error: {reason}" if reason else "error", problem


def _unescape(name: str) -> str:
    return name.replace("\\#", "#").replace("\\\\", "\\") if "\\" in name else name
