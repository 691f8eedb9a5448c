# SPDX-License-Identifier: GPL-2.0-only
"""Kernel reports ("splats") in a console log: what, where, and whose fault.

One pass, linear in the input, never an exception on any bytes. While no report is open only lines
that hold a needle of some rule are looked at. While one is, every line is, and goes to the report
of its caller id (CONFIG_PRINTK_CALLER), so that the reports of two CPUs come apart; without caller
ids a second report that starts inside another one marks the first as corrupted.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from harness.core.call_trace import TraceReader, guilty_frame, is_address, plain_function
from harness.core.console_text import (
    MAX_LINE_BYTES,
    ConsoleLine,
    LineNumbers,
    line_bounds,
    needle_lines,
    parse_line,
    pieces,
)
from harness.core.splat_rules import COMMON, Rule, RuleSet, load_rules
from harness.model.results import Splat

__all__ = ["excerpts", "find_splats", "fingerprint", "load_rules", "normalise", "to_json"]

_MAX_OPEN = 8
_MAX_TITLE_INPUT = 512  # the patterns of normalise() are quadratic in one long word
_HEAD_LINES = 12
_CUT_HERE = re.compile(r"^-+\[ cut here \]-+")
_SEPARATOR = re.compile(r"^={10,}$")
_PROMPT = re.compile(r"[^#$>]{0,80}[#$>] ")
_HEAD_ENDS = re.compile(r"^(?:CPU: |Call [Tt]race:|Modules linked in|RIP: )")
_CUT_HERE_PATIENCE = 20
_NEAR = 200  # lines from a report to the panic that it ends in
_LOOSE_END = re.compile(r" in ?(?=:|$)")  # of a title without a frame

# One word for all numbers: "%#x" prints 0xfffff000 and 0x100000000, "%x" prints 17, a3 and 10fc.
_NORMAL = (
    (re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd]+"), " "),
    (re.compile(r"\b[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b"), "BDF"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"([A-Za-z_][\w.$]*)\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?(?: \[[\w-]+[^\]]*\])?"), r"\1"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+\b|\((?:null|____ptrval____)\)"), "NUM"),
    (re.compile(r"\b(?:(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]+|\d+[A-F][0-9A-F]*|[a-f]{8})\b"), "NUM"),
    (re.compile(r"\.(?:constprop|isra|part|cold)(?:\.\d+)*"), ""),
    (re.compile(r"(?<![A-Za-z_0-9])\d++(?:\.\d++)*+(?![A-Za-z_]\w*\()"), "NUM"),
)


@dataclass(slots=True)
class _Report:
    """A report being collected."""

    rule: Rule | None  # None: only "cut here" was seen
    rule_index: int
    match: re.Match[str] | None
    start: int  # line number
    end: int
    caller: str
    stamped: bool
    message: str = ""  # first free text of a report that began with "cut here"
    cut_here: bool = False
    seen: int = 1
    foreign: int = 0
    head: bool = True
    finished: bool = False
    silence: int = 300  # lines of other callers after which nothing more is expected
    corrupted: bool = False
    trace: TraceReader = field(default_factory=TraceReader)

    def ends_with(self, text: str) -> bool:
        """Whether this line is the last of a report that is not finished."""
        if self.cut_here and text.startswith("---[ end trace "):
            return True
        return self.rule is not None and self.rule.end.match(text) is not None

    def finish(self) -> None:
        """Its last line was seen; registers may follow."""
        self.finished = True
        self.silence = 40

    def awaits_message(self, line: ConsoleLine) -> bool:
        """Whether this line says why, and is not what a program printed in between."""
        if not self.cut_here or not self.head or self.message:
            return False
        return bool(line.text) and (bool(line.stamp) or not self.stamped)

    @property
    def joinable(self) -> bool:
        """Whether a further header may belong to this report."""
        return self.rule is None or (self.head and bool(self.rule.joins))

    @property
    def patience(self) -> int:
        if self.cut_here:
            return max(_CUT_HERE_PATIENCE, self.rule.patience if self.rule else 0)
        return self.rule.patience if self.rule else _HEAD_LINES


def find_splats(data: bytes, rules: RuleSet) -> tuple[Splat, ...]:
    """All reports of a log, by first line."""
    return _Scanner(rules).run(data)


@lru_cache(maxsize=256)
def fingerprint(kind: str, title: str, frame: str) -> str:
    """12 hex digits that name one defect across runs."""
    return hashlib.sha256("\0".join((kind, title, frame)).encode()).hexdigest()[:12]


@lru_cache(maxsize=256)
def normalise(text: str) -> str:
    """What differs from boot to boot replaced: numbers and addresses by NUM, offsets by nothing."""
    text = text[:_MAX_TITLE_INPUT]
    for pattern, replacement in _NORMAL:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())[:200]


def to_json(splats: Sequence[Splat]) -> dict[str, list[dict[str, str | int | bool]]]:
    """The document that `parse log` prints."""
    return {
        "splats": [
            {
                "kind": splat.kind,
                "title": splat.title,
                "frame": splat.frame,
                "start_line": splat.start_line,
                "end_line": splat.end_line,
                "corrupted": splat.corrupted,
            }
            for splat in splats
        ]
    }


def excerpts(data: bytes, splats: Iterable[Splat], max_lines: int = 400) -> Iterator[str]:
    """The raw lines of each splat, decoded with replacement, without carriage returns.

    splats: by first line, as find_splats gives them: one pass over the log is enough for all.
    """
    at, line = 0, 1
    for splat in splats:
        while line < splat.start_line and at < len(data):
            at = line_bounds(data, at)[1] + 1
            line += 1
        yield _lines(data, at, min(splat.end_line - splat.start_line + 1, max_lines))


def _lines(data: bytes, start: int, count: int) -> str:
    found: list[str] = []
    while len(found) < count and start < len(data):
        begin, end = line_bounds(data, start)
        raw = data[begin : min(end, begin + MAX_LINE_BYTES)]
        found.append(raw.decode("utf-8", "replace").replace("\r", ""))
        start = end + 1
    return "\n".join(found)


class _Scanner:
    """The pass over one log."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.open: list[_Report] = []  # most recently opened last
        self.done: list[Splat] = []
        self.previous = ConsoleLine("", "", "")  # line before the present one
        self.glued: ConsoleLine | None = None  # header that the previous line had behind a prompt
        self.last_fatal = ("", 0)  # frame and last line, for a panic that names nobody

    def run(self, data: bytes) -> tuple[Splat, ...]:
        first = 1
        for piece in pieces(data):
            self._piece(first, piece)
            first += piece.count(b"\n")
        for report in list(self.open):
            self._close(report)
        return tuple(sorted(self.done, key=lambda item: (item.start_line, item.end_line)))

    def _piece(self, first: int, piece: bytes) -> None:
        """Take whole lines; `first` is the number of the first one."""
        numbers = LineNumbers(piece, first)
        candidates = [numbers.at(start) for start in needle_lines(piece, self.rules.needles)]
        may_be_header = set(candidates)
        lines = piece.removesuffix(b"\n").split(b"\n")
        number, end = first, first + len(lines)
        while number < end:
            if not self.open and self.glued is None and number not in may_be_header:
                index = bisect_left(candidates, number)
                number = candidates[index] if index < len(candidates) else end
                self.previous = parse_line(lines[number - first - 1])
                continue
            raw = lines[number - first]
            line = parse_line(raw)
            # an escape may stand within a needle
            self._take(number, line, number in may_be_header or b"\x1b" in raw)
            self.previous = line
            number += 1

    def _take(self, number: int, line: ConsoleLine, may_be_header: bool) -> None:
        if self.glued is not None:
            glued, self.glued = self.glued, None
            if self._continues(glued, line):
                self._take(number - 1, glued, True)
        report = self._report_of(number, line)
        if not may_be_header:
            if report is not None:
                self._body(number, line, report)
            return
        if _CUT_HERE.match(line.text):
            if report is not None and self._joins_cut_here(report):
                # The list debugging says its piece before the line.
                report.cut_here = True
                self._extend(report, number, line)
                return
            if report is not None:
                self._cut_off(report)
            new = _Report(
                None, len(self.rules.rules), None, number, number, line.caller, bool(line.stamp)
            )
            new.cut_here = True
            self._open(new)
            return
        found = self.rules.match(line.text)
        if found is not None and not self.rules.rules[found[0]].begins:
            found = found if report is not None and self._joins(report, found[0]) else None
        if found is not None and (
            report is None or report.finished or not report.ends_with(line.text)
        ):
            self._header(number, line, report, found)
            return
        if found is None and not line.stamp:
            self.glued = self._behind_prompt(line.text)
        if report is not None:
            self._body(number, line, report)

    def _behind_prompt(self, text: str) -> ConsoleLine | None:
        """The header in "root@guest:~# BUG: ...", or in what a test quotes: what follows tells."""
        prompt = _PROMPT.match(text)
        if prompt is None:
            return None
        line = parse_line(text[prompt.end() :].encode())
        return line if self.rules.match(line.text) is not None else None

    def _continues(self, glued: ConsoleLine, line: ConsoleLine) -> bool:
        """Whether the kernel goes on in the next line: nobody quotes only a first one like that."""
        same_source = bool(line.stamp) == bool(glued.stamp) and line.caller == glued.caller
        return same_source and self.rules.continues.match(line.text) is not None

    def _header(
        self,
        number: int,
        line: ConsoleLine,
        report: _Report | None,
        found: tuple[int, re.Match[str]],
    ) -> None:
        index, match = found
        rule = self.rules.rules[index]
        if report is not None:
            if self._joins(report, index):
                if index < report.rule_index:
                    report.rule, report.rule_index, report.match = rule, index, match
                self._extend(report, number, line)
                return
            self._cut_off(report)
        new = _Report(rule, index, match, number, number, line.caller, bool(line.stamp))
        # Nothing but heads so far: the lines of two processors are mixed, and stay so.
        new.corrupted = report is not None and report.corrupted and report.head and rule.trace
        if self.previous.caller == line.caller and _SEPARATOR.match(self.previous.text):
            new.start = number - 1
        self._open(new)
        if rule.end.match(line.text) is not None:
            new.finish()

    def _joins_cut_here(self, report: _Report) -> bool:
        common = report.rule is None or report.rule.joins == COMMON
        return common and report.joinable and not report.cut_here

    def _joins(self, report: _Report, index: int) -> bool:
        rule = self.rules.rules[index]
        if report.rule is None:
            return rule.begins
        together = bool(rule.joins) and rule.joins == report.rule.joins
        return report.joinable and together and index != report.rule_index

    def _body(self, number: int, line: ConsoleLine, report: _Report) -> None:
        text = line.text
        if report.finished:
            if self.rules.tail.match(text):
                self._extend(report, number, line)
            else:
                self._close(report)
            return
        if report.ends_with(text):
            self._extend(report, number, line)
            report.finish()
        elif self.rules.body.match(text):
            self._extend(report, number, line)
        elif report.awaits_message(line):
            report.message = text
            self._extend(report, number, line)
        else:
            report.seen += 1
            report.foreign += 1
            if report.foreign > report.patience:
                self._close(report)
                return
        if report.seen > self.rules.max_lines:
            self._close(report)

    def _extend(self, report: _Report, number: int, line: ConsoleLine) -> None:
        report.end = number
        report.seen += 1
        report.foreign = 0
        if "\ufffd" in line.text or "\0" in line.text:
            report.corrupted = True
        if report.head and (report.seen > _HEAD_LINES or _HEAD_ENDS.match(line.text)):
            report.head = False
        if not report.finished:
            report.trace.feed(line.text)

    def _report_of(self, number: int, line: ConsoleLine) -> _Report | None:
        """The open report that a line may belong to."""
        latest = stale = None
        for report in self.open:
            if number - report.end > report.silence:
                stale = report
            elif report.caller == line.caller:
                latest = report
        if stale is not None:
            self._close(stale)  # the next one with the next line
        if latest is not None:
            return latest
        if self.open and not self.open[-1].caller and self.open[-1].seen == 1:
            # The head came through early_printk, which knows no callers.
            self.open[-1].caller = line.caller
            return self.open[-1]
        return None

    def _open(self, report: _Report) -> None:
        if len(self.open) >= _MAX_OPEN:
            self._close(self.open[0])
        self.open.append(report)

    def _cut_off(self, report: _Report) -> None:
        """Another report of the same source starts: this one is over."""
        if not report.finished and report.rule is not None and report.rule.trace:
            report.corrupted = report.corrupted or not report.trace.trace()
        self._close(report)

    def _close(self, report: _Report) -> None:
        self.open.remove(report)
        rule = report.rule
        if rule is None:
            rule = self.rules.rule("warn")
            if rule is None or (report.trace.empty and not report.message):
                return
            # "cut here" without a header that is known: a report, but not a whole one.
            report.corrupted = True
        groups = report.match.groupdict("") if report.match is not None else {}
        frame, trace = self._frame(rule, report, groups)
        if not frame and rule.fatal == "panic" and report.start - self.last_fatal[1] <= _NEAR:
            frame = self.last_fatal[0]
        words = dict.fromkeys(rule.header.groupindex, "") | groups
        words["func"] = plain_function(words.get("func", ""))
        title = rule.title.format(**(words | {"frame": frame, "message": report.message}))
        title = _LOOSE_END.sub("", normalise(title)).strip(" :") or rule.kind
        if rule.trace and report.trace.empty:
            report.corrupted = True
        if rule.fatal != "panic" and rule.fatal:
            self.last_fatal = (frame, report.end)
        self.done.append(
            Splat(
                kind=rule.kind,
                title=title,
                frame=frame,
                start_line=report.start,
                end_line=report.end,
                corrupted=report.corrupted,
                trace=trace,
                fingerprint=fingerprint(rule.kind, title, frame),
            )
        )

    def _frame(
        self, rule: Rule, report: _Report, groups: dict[str, str]
    ) -> tuple[str, tuple[str, ...]]:
        """The guilty frame, and the call trace it is part of."""
        frame, segment = guilty_frame(
            report.trace.segments, rule.frames, self.rules.skip_frame, self.rules.skip_segment
        )
        trace = tuple(segment.frames) if segment is not None and segment.frames else ()
        if "header" in rule.frames and groups.get("func"):
            name = plain_function(groups["func"])
            if not is_address(name) and not self.rules.skip_frame.match(name):
                frame = name
        return frame, trace or report.trace.trace()
