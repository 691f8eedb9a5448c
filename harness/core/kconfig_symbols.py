# SPDX-License-Identifier: GPL-2.0-only
"""Reading Kconfig files: which symbols exist, what they depend on, what selects them.

The language is Documentation/kbuild/kconfig-language.rst. Macros are kept as text, apart from
$(SRCARCH) in `source`. Defaults and ranges are not modelled: the values come from the .config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_ENTRY = re.compile(r"(?:menu)?config\s+(\w+)\s*$")
_TYPE = re.compile(r"(def_)?(bool|tristate|string|int|hex)\b\s*(.*)$")
_SELECT = re.compile(r"(?:select|imply)\s+(\w+)(?:\s+if\s+(.*))?$")
_SOURCE = re.compile(r"(o|r|or)?source\s+\"?([^\"]+)\"?\s*$")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_HELP = re.compile(r"(?:---)?help(?:---)?$")
_MAX_DEPTH = 40


@dataclass(slots=True)
class Definition:
    """One `config X` entry. depends: expressions that all must hold (its own and the blocks')."""

    symbol: str
    where: str  # file:line
    depends: list[str]
    kind: str = ""  # bool, tristate, string, int, hex
    prompt: bool = False
    prompt_if: str = ""
    choice: int = 0  # number of the choice block it is in, 0 for none


@dataclass(slots=True)
class SymbolTable:
    """What the Kconfig files say. selectors: symbol -> (selecting symbol, condition)."""

    symbols: dict[str, list[Definition]] = field(default_factory=dict)
    selectors: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def choice_members(self, number: int) -> list[str]:
        return [
            name
            for name, definitions in self.symbols.items()
            if any(d.choice == number for d in definitions)
        ]


@dataclass(slots=True)
class _Block:
    kind: str  # if, menu, choice
    depends: list[str]


class _Reader:
    """Keeps the table and the stack of open blocks, which `source` carries into its file."""

    def __init__(self, read: Callable[[str], str | None], srcarch: str) -> None:
        self.table = SymbolTable()
        self._read = read
        self._srcarch = srcarch
        self._blocks: list[_Block] = []
        self._entry: Definition | _Block | None = None
        self._choices = 0
        self._open_choice: list[int] = []

    def file(self, path: str, depth: int = 0) -> None:
        text = self._read(path)
        if text is None or depth > _MAX_DEPTH:
            return
        for number, line in _statements(text):
            if source := _SOURCE.match(line):
                self._entry = None
                target = re.sub(r"\$[({]?(?:SRC|HEADER_)?ARCH[)}]?", self._srcarch, source[2])
                if "r" in (source[1] or ""):
                    target = f"{path.rpartition('/')[0]}/{target}".lstrip("/")
                self.file(target, depth + 1)
            elif not self._block(line):
                self._attribute(line, f"{path}:{number}")

    def _block(self, line: str) -> bool:
        """Handle statements that open or close a block."""
        word = line.split(None, 1)[0]
        if word in ("if", "menu", "choice"):
            block = _Block(word, [line[2:].strip()] if word == "if" else [])
            self._blocks.append(block)
            self._entry = block
            if word == "choice":
                self._choices += 1
                self._open_choice.append(self._choices)
        elif word in ("endif", "endmenu", "endchoice"):
            if self._blocks:
                self._blocks.pop()
            if word == "endchoice" and self._open_choice:
                self._open_choice.pop()
            self._entry = None
        elif word in ("comment", "mainmenu"):
            self._entry = _Block(word, [])  # its depends must not reach the entry before it
        else:
            return False
        return True

    def _attribute(self, line: str, where: str) -> None:
        if match := _ENTRY.match(line):
            depends = [text for block in self._blocks for text in block.depends]
            choice = self._open_choice[-1] if self._open_choice else 0
            self._entry = Definition(match[1], where, depends, choice=choice)
            self.table.symbols.setdefault(match[1], []).append(self._entry)
        elif self._entry is None:
            return
        elif line.startswith("depends on"):
            self._entry.depends.append(line[len("depends on") :].strip())
        elif isinstance(self._entry, Definition):
            self._of_symbol(self._entry, line)

    def _of_symbol(self, entry: Definition, line: str) -> None:
        if match := _TYPE.match(line):
            entry.kind = match[2]
            if not match[1]:
                _take_prompt(entry, match[3])
        elif line.startswith("prompt"):
            _take_prompt(entry, line[len("prompt") :].strip())
        elif match := _SELECT.match(line):
            self.table.selectors.setdefault(match[1], []).append((entry.symbol, match[2] or ""))


def _take_prompt(entry: Definition, text: str) -> None:
    if match := _STRING.match(text):
        entry.prompt = True
        rest = text[match.end() :].strip()
        entry.prompt_if = rest[3:].strip() if rest.startswith("if ") else ""


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """(line number, statement) without comments and help texts, continuations joined."""
    help_indent: int | None = None
    in_help = False
    pending = ""
    start = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.expandtabs(8)
        stripped = line.strip()
        if in_help:
            indent = len(line) - len(line.lstrip())
            if not stripped:
                continue
            if help_indent is None and indent > 0:
                help_indent = indent
            if help_indent is not None and indent >= help_indent:
                continue
            in_help = False
        if not pending:
            start = number
        joined = f"{pending}{stripped}"
        if joined.endswith("\\"):
            pending = joined[:-1] + " "
            continue
        pending = ""
        statement = _without_comment(joined)
        if _HELP.match(statement):
            in_help, help_indent = True, None
        elif statement:
            yield start, statement


def _without_comment(line: str) -> str:
    if "#" not in line:
        return line
    bare = _STRING.sub(lambda m: "_" * len(m[0]), line)
    return line[: bare.index("#")].strip() if "#" in bare else line


def read_symbols(read: Callable[[str], str | None], srcarch: str = "x86") -> SymbolTable:
    """The symbols reachable from the top Kconfig. read: text of a path in the tree, or None."""
    reader = _Reader(read, srcarch)
    reader.file("Kconfig")
    return reader.table
