# SPDX-License-Identifier: GPL-2.0-only
"""Unified diffs as git writes them: files they touch, their hunks, why one finds no place.

Source: git-diff(1) "Generating patch text with -p", git apply's own parser (apply.c). Tolerant: a
malformed diff is read as far as it goes, git itself says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.model.kernel import HunkFailure

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_NAME_LINES = {
    "rename from ": "old",
    "copy from ": "old",
    "rename to ": "new",
    "copy to ": "new",
}


@dataclass(frozen=True, slots=True)
class Hunk:
    """Line numbers are 1-based (0 for an empty side). before, after: the lines of either side."""

    old_start: int
    old_len: int
    new_start: int
    new_len: int
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiffFile:
    """One file of a diff. old is None for an added file, new is None for a deleted one."""

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for n in (self.old, self.new) if n is not None))


@dataclass
class _Open:
    """A file of the diff while it is being read."""

    old: str | None = None
    new: str | None = None
    added: bool = False
    deleted: bool = False
    hunks: list[Hunk] = field(default_factory=list)

    def close(self) -> DiffFile:
        old = None if self.added else self.old
        new = None if self.deleted else self.new
        return DiffFile(old, new, tuple(self.hunks))


def parse_diff(text: str) -> tuple[DiffFile, ...]:
    """The files of a diff, in order; what stands before the first one is passed over."""
    lines = text.split("\n")
    done: list[DiffFile] = []
    current: _Open | None = None
    at = 0
    while at < len(lines):
        line = lines[at]
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if line.startswith("diff --git "):
            if current is not None:
                done.append(current.close())
            current = _from_git_header(line[len("diff --git ") :])
        elif line.startswith("--- ") and following.startswith("+++ "):
            # a diff without "diff --git" lines starts a file here
            if current is None or current.hunks:
                if current is not None:
                    done.append(current.close())
                current = _Open()
            _set_names(current, line[4:], following[4:])
            at += 1
        elif current is not None:
            match = _HUNK.match(line)
            if match:
                hunk, at = _read_hunk(lines, at + 1, match)
                current.hunks.append(hunk)
                continue
            _extended_header(current, line)
        at += 1
    if current is not None:
        done.append(current.close())
    return tuple(f for f in done if f.names)


def touched_files(files: Sequence[DiffFile]) -> tuple[str, ...]:
    """Every path that a diff reads or writes, old and new names, each once, in order."""
    return tuple(dict.fromkeys(name for f in files for name in f.names))


def _from_git_header(rest: str) -> _Open:
    """Names of `diff --git a/X b/Y`; the only place that has them for a mode or binary change."""
    if rest.startswith('"'):
        old, length = _unquote(rest)
        tail = rest[length:].strip()
        new = _unquote(tail)[0] if tail.startswith('"') else tail
        return _Open(_strip(old), _strip(new))
    if rest.endswith('"') and ' "' in rest:
        old, _, new = rest.partition(' "')
        return _Open(_strip(old), _strip(_unquote('"' + new)[0]))
    # unquoted names may hold blanks: both are equal but for the prefix unless renamed
    middle = len(rest) // 2
    old, new = rest[:middle], rest[middle + 1 :]
    if rest[middle : middle + 1] != " " or _strip(old) != _strip(new):
        old, _, new = rest.partition(" ")
    return _Open(_strip(old), _strip(new))


def _set_names(current: _Open, old: str, new: str) -> None:
    if (name := _file_name(old)) == "/dev/null":
        current.added = True
    else:
        current.old = _strip(name)
    if (name := _file_name(new)) == "/dev/null":
        current.deleted = True
    else:
        current.new = _strip(name)


def _extended_header(current: _Open, line: str) -> None:
    if line.startswith("new file mode "):
        current.added = True
    elif line.startswith("deleted file mode "):
        current.deleted = True
    for prefix, side in _NAME_LINES.items():
        if line.startswith(prefix):
            name = line[len(prefix) :]
            name = _unquote(name)[0] if name.startswith('"') else name
            setattr(current, side, name)


def _file_name(text: str) -> str:
    if text.startswith('"'):
        return _unquote(text)[0]
    return text.split("\t", 1)[0].rstrip("\r")


def _strip(name: str) -> str:
    """The name without its first component, as -p1 does."""
    _, slash, rest = name.partition("/")
    return rest if slash else name


def _unquote(text: str) -> tuple[str, int]:
    """A C-quoted name at the start of `text`, and the length of its quoted form."""
    out = bytearray()
    at = 1
    while at < len(text) and text[at] != '"':
        if text[at] != "\\":
            out += text[at].encode("utf-8", "surrogateescape")
            at += 1
        elif text[at + 1 : at + 4].isdigit():
            out.append(int(text[at + 1 : at + 4], 8) & 0xFF)
            at += 4
        else:
            out.append(_ESCAPES.get(text[at + 1 : at + 2], 63))
            at += 2
    return out.decode("utf-8", "surrogateescape"), at + 1


def _read_hunk(lines: Sequence[str], at: int, match: re.Match[str]) -> tuple[Hunk, int]:
    """The hunk whose header matched, and the index of the first line after it."""
    old_start, old_len, new_start, new_len = (
        int(value) if value is not None else 1 for value in match.groups()
    )
    old_left, new_left = old_len, new_len
    before: list[str] = []
    after: list[str] = []
    while at < len(lines) and (old_left > 0 or new_left > 0):
        mark, body = lines[at][:1], lines[at][1:]
        if mark == "\\":
            at += 1
            continue
        if mark not in ("", " ", "+", "-"):
            break
        # mailers strip the blank of an empty context line; git takes that
        if mark != "+":
            before.append(body)
            old_left -= 1
        if mark != "-":
            after.append(body)
            new_left -= 1
        at += 1
    return Hunk(old_start, old_len, new_start, new_len, tuple(before), tuple(after)), at


def explain(hunk: Hunk, content: Sequence[str]) -> str:
    """Why a hunk found no place in a file of these lines, in one line for a person."""
    if _position(hunk.after, content) is not None and hunk.after != hunk.before:
        return "already applied: the file holds the new lines"
    best = _best_place(hunk.before, content, hunk.old_start - 1)
    for offset, wanted in enumerate(hunk.before):
        number = best + offset
        if number >= len(content):
            return f"the file ends at line {len(content)}, the patch expects {wanted.strip()!r}"
        if content[number] != wanted:
            has = content[number].strip()
            return f"line {number + 1} is {has!r}, the patch expects {wanted.strip()!r}"
    if best != max(hunk.old_start - 1, 0):
        return f"its lines stand at line {best + 1}, where git does not take them"
    return "its context matches, but an earlier hunk took its place"


def _position(wanted: Sequence[str], content: Sequence[str]) -> int | None:
    size = len(wanted)
    if not size:
        return None
    for start in range(len(content) - size + 1):
        if content[start] == wanted[0] and tuple(content[start : start + size]) == tuple(wanted):
            return start
    return None


def _best_place(wanted: Sequence[str], content: Sequence[str], near: int) -> int:
    """0-based line where most lines match; the nearest to `near` among equals."""

    def rank(start: int) -> tuple[int, int]:
        pairs = zip(wanted, content[start : start + len(wanted)], strict=False)
        return sum(a == b and bool(a.strip()) for a, b in pairs), -abs(start - near)

    return max(range(max(len(content), 1)), key=rank)


_APPLYING = re.compile(r"^Applying patch (.+) with \d+ rejects?\.\.\.$")
_REJECTED = re.compile(r"^Rejected hunk #(\d+)\.$")
_WHOLE_FILE = re.compile(
    r"^error: (?!patch failed|while searching|corrupt|git diff|No valid)(.+?): "
    r"((?:No such file|does not exist|already exists|wrong type|patch does not apply|cannot ).*)$"
)


def failures(
    output: str, files: Sequence[DiffFile], contents: Mapping[str, Sequence[str]]
) -> tuple[HunkFailure, ...]:
    """The hunks that `git apply --reject --verbose` refused.

    output: its stderr in the C locale. contents: lines of the files before the patch.
    """
    by_name = {f.old or f.new or "": f for f in reversed(files)}
    by_name |= {f.new: f for f in reversed(files) if f.new is not None}
    found: list[HunkFailure] = []
    name = ""
    for line in output.splitlines():
        if match := _APPLYING.match(line):
            name = match[1]
        elif (match := _REJECTED.match(line)) and name in by_name:
            diff_file, number = by_name[name], int(match[1])
            if number <= len(diff_file.hunks):
                hunk = diff_file.hunks[number - 1]
                old_lines = contents.get(diff_file.old or name, ())
                reason = explain(hunk, old_lines)
                found.append(HunkFailure(name, number, hunk.old_start, reason))
        elif match := _WHOLE_FILE.match(line):
            hunks = by_name[match[1]].hunks if match[1] in by_name else ()
            start = hunks[0].old_start if hunks else 0
            found.append(HunkFailure(match[1], 1, start, match[2]))
    named = {f.file for f in found if f.reason != "patch does not apply"}
    return tuple(f for f in found if f.reason != "patch does not apply" or f.file not in named)
