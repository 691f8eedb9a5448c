# SPDX-License-Identifier: GPL-2.0-only
"""The rule table of configs/splat_rules.toml, compiled."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

_NAMED = re.compile(r"\(\?P<\w+>")
_NEVER = re.compile(r"(?!)")
_KEYS = {
    "kind",
    "needles",
    "header",
    "title",
    "end",
    "frames",
    "joins",
    "begins",
    "trace",
    "patience",
    "fatal",
}
COMMON = "common"  # the group of `joins = true`
_FRAME_SOURCES = ("header", "rip", "trace")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of kernel report. Earlier rules win when several match one report."""

    kind: str
    needles: tuple[bytes, ...]  # one of them is in every header line
    header: re.Pattern[str]  # matched at the start of the message; named groups feed the title
    title: str  # format string over the groups, {frame} and {message}
    end: re.Pattern[str]  # the last line of the report
    frames: tuple[str, ...]  # where the guilty frame is looked for, in this order
    joins: str  # of several headers that may make one report, the group; "" for none
    begins: bool  # else it only goes on with a report of its group
    trace: bool  # a report without frames is corrupted
    patience: int  # foreign lines tolerated inside the report
    fatal: str  # "panic", "oops", "hang" or "": what it means for the machine


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules, the shared line patterns, and the frames that are nobody's fault."""

    rules: tuple[Rule, ...]
    innocent: re.Pattern[str]
    body: re.Pattern[str]  # lines that belong to a report
    continues: re.Pattern[str]  # lines that show that a header behind a prompt is one
    tail: re.Pattern[str]  # lines that may follow the end of a report
    skip_frame: re.Pattern[str]
    skip_segment: re.Pattern[str]  # a trace that holds such a function is not the guilty one
    max_lines: int
    needles: tuple[bytes, ...]
    any_header: re.Pattern[str]  # all headers in one; its last group, "r12", tells the rule

    def rule(self, kind: str) -> Rule | None:
        """The first rule of a kind."""
        return next((rule for rule in self.rules if rule.kind == kind), None)

    def match(self, text: str) -> tuple[int, re.Match[str]] | None:
        """The first rule (index) whose header is at the start of `text`."""
        found = self.any_header.match(text)
        if found is None or self.innocent.search(text):
            return None
        index = int((found.lastgroup or "")[1:])
        match = self.rules[index].header.match(text)
        return None if match is None else (index, match)


def load_rules(toml_text: str, name: str = "configs/splat_rules.toml") -> RuleSet:
    """Compile the rule table. Raises UserError that names the rule and key at fault."""
    try:
        table = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name}: {error}") from error
    rows = table.get("rule")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{name}: rule: missing", hint="add at least one [[rule]]")
    rules = tuple(_rule(row, f"{name}: rule[{number}]") for number, row in enumerate(rows, 1))
    lines = _section(table, "lines", name)
    frames = _section(table, "frames", name)
    max_lines = lines.get("max", 400)
    if not isinstance(max_lines, int) or max_lines < 1:
        raise UserError(f"{name}: lines.max: a number above 0 is wanted")
    needles = {needle for rule in rules for needle in rule.needles} | {b"[ cut here ]"}
    return RuleSet(
        rules=rules,
        innocent=_alternation(lines, "innocent", name),
        body=_alternation(lines, "body", name),
        continues=_alternation(lines, "continues", name),
        tail=_alternation(lines, "tail", name),
        skip_frame=_names(frames, "skip", name),
        skip_segment=_names(frames, "skip_segment", name),
        max_lines=max_lines,
        needles=_shortest(needles),
        any_header=_any([rule.header for rule in rules]),
    )


def _any(headers: Sequence[re.Pattern[str]]) -> re.Pattern[str]:
    """One expression for all, without their own names: two headers may use the same."""
    parts = (_NAMED.sub("(?:", one.pattern) for one in headers)
    return re.compile("|".join(f"(?:{part})(?P<r{index}>)" for index, part in enumerate(parts)))


def _shortest(needles: set[bytes]) -> tuple[bytes, ...]:
    """Without those that hold another one: it is found wherever they are, and each costs a pass."""
    return tuple(
        sorted(
            needle
            for needle in needles
            if not any(other in needle for other in needles if other != needle)
        )
    )


def _rule(row: Any, where: str) -> Rule:
    if not isinstance(row, dict):
        raise UserError(f"{where}: a table is wanted")
    unknown = sorted(set(row) - _KEYS)
    if unknown:
        raise UserError(f"{where}: {unknown[0]}: no such key")
    kind = _text(row, "kind", where)
    where = f"{where} ({kind})"
    header = _regex(_text(row, "header", where), f"{where}: header")
    title = _text(row, "title", where)
    try:
        title.format(frame="", message="", **dict.fromkeys(header.groupindex, ""))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{where}: title: {error!r} is no group of the header") from error
    frames = _texts(row, "frames", where, ("header", "rip", "trace"))
    for source in frames:
        if source not in _FRAME_SOURCES:
            raise UserError(f"{where}: frames: {source!r} is none of {', '.join(_FRAME_SOURCES)}")
    needles = tuple(text.encode() for text in _texts(row, "needles", where, ()))
    if not needles or not all(needles):
        raise UserError(f"{where}: needles: missing or empty")
    patience = row.get("patience", 8)
    if not isinstance(patience, int) or patience < 0:
        raise UserError(f"{where}: patience: a number is wanted")
    return Rule(
        kind=kind,
        needles=needles,
        header=header,
        title=title,
        end=_regex(row["end"], f"{where}: end") if "end" in row else _NEVER,
        frames=frames,
        joins=_group(row.get("joins", False), where),
        begins=bool(row.get("begins", True)),
        trace=bool(row.get("trace", True)),
        patience=patience,
        fatal=str(row.get("fatal", "")),
    )


def _group(value: object, where: str) -> str:
    if not isinstance(value, (bool, str)):
        raise UserError(f"{where}: joins: true, or the name of a group, is wanted")
    return value if isinstance(value, str) else COMMON if value else ""


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {key}: missing")
    return value


def _texts(row: dict[str, Any], key: str, where: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = row.get(key, list(default))
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: {key}: a list of texts is wanted")
    return tuple(value)


def _section(table: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{name}: {key}: a table is wanted")
    return value


def _regex(text: Any, where: str) -> re.Pattern[str]:
    if not isinstance(text, str):
        raise UserError(f"{where}: a text is wanted")
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{where}: {error}") from error


def _alternation(section: dict[str, Any], key: str, name: str) -> re.Pattern[str]:
    parts = _texts(section, key, f"{name}: lines", ())
    try:
        return re.compile("|".join(f"(?:{part})" for part in parts)) if parts else _NEVER
    except re.error:
        for number, part in enumerate(parts, 1):  # which one
            _regex(part, f"{name}: lines.{key}[{number}]")
        raise


def _names(section: dict[str, Any], key: str, name: str) -> re.Pattern[str]:
    """Function names, "*" for any ending."""
    parts = _texts(section, key, f"{name}: frames", ())
    if not parts:
        return _NEVER
    words = (re.escape(part).replace(r"\*", r"\w*") for part in parts)
    return re.compile(rf"(?:{'|'.join(words)})\Z")
