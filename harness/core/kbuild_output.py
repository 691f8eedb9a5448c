# SPDX-License-Identifier: GPL-2.0-only
"""Reading what kbuild prints: steps (`  CC [M]  fs/open.o`), warnings and errors."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from harness.model.kernel import CompilerMessage

_STEP = re.compile(r"  ([A-Z][A-Z0-9_]+)\s+(?:\[[MN]\]\s+)?(\S+)$")
_OBJECT_STEPS = ("CC", "AS", "HOSTCC", "HOSTCXX")
_COMPILER = re.compile(
    r"([^\s:]+):(\d+):(?:\d+:)? ?(fatal error|error|Error|warning|Warning): ?(.*)"
)
_KCONFIG = re.compile(r"([^\s:]*Kconfig[^\s:]*|\.config[^\s:]*):(\d+): ?(.*)")
_OBJTOOL = re.compile(r"([^\s:]+): (warning|error): (objtool: .*)")
_MODPOST = re.compile(r"(WARNING|ERROR): (modpost: .*)")
_UNMET = re.compile(r"WARNING: (unmet direct dependencies detected for \S+)")
_LINKER = re.compile(
    r"(?:\S*\bld(?:\.\w+)?: )?([^\s:]+):(?:(\d+):|\([^)]*\):)? ?"
    r"((?:undefined reference to|multiple definition of|relocation truncated).*)"
)
_LINKER_SAYS = re.compile(r"\S*\bld(?:\.\w+)?: (warning: )?(.*)")
_MODULE = re.compile(r"\[([^\]]+)\.ko\]")
_MAKE = re.compile(r"make(?:\[\d+\])?: \*\*\* (.*)|(\S+):(\d+): \*\*\* (.*)")
_FAILED_TARGET = re.compile(r"\[(?:[^\]]*: )?([^\]:]+)\] (?:Error|Killed|Terminated)")
_KILLED = re.compile(r"Killed signal terminated program|\] Killed$|fatal error: Killed")
_FULL = "No space left on device"


class KbuildOutput:
    """Collects from lines. tree: absolute path of the source tree, O= is its `build`.

    on_object is called with the number of objects so far.
    """

    def __init__(self, tree: str, on_object: Callable[[int], None]) -> None:
        self._tree = tree.rstrip("/")
        self._on_object = on_object
        self._messages: dict[tuple[str, int, str], CompilerMessage] = {}
        self._stops: list[CompilerMessage] = []
        self.objects = 0
        self.compiled: set[str] = set()
        self.disk_full = False
        self.killed = False

    def line(self, text: str) -> None:
        """One line of output, without its end."""
        if match := _STEP.match(text):
            self.compiled.add(match[2])
            if match[1] in _OBJECT_STEPS:
                self.objects += 1
                self._on_object(self.objects)
            return
        self.disk_full = self.disk_full or _FULL in text
        self.killed = self.killed or _KILLED.search(text) is not None
        if found := self._stop(text):
            self._stops.append(found)
        elif found := self._message(text):
            self._messages.setdefault((found.file, found.line, found.text), found)

    @property
    def warnings(self) -> tuple[CompilerMessage, ...]:
        return tuple(m for m in self._messages.values() if not m.error)

    @property
    def errors(self) -> tuple[CompilerMessage, ...]:
        """What the tools called errors, or else where make itself stopped."""
        return tuple(m for m in self._messages.values() if m.error) or tuple(self._stops)

    @property
    def first_error(self) -> CompilerMessage | None:
        """The first error of a tool, or else the first stop of make itself."""
        return next(iter(self.errors), None)

    def _stop(self, text: str) -> CompilerMessage | None:
        match = _MAKE.match(text)
        if match is None:
            return None
        if match[2]:
            return CompilerMessage(self._path(match[2]), int(match[3]), match[4], True)
        target = _FAILED_TARGET.search(match[1])
        return CompilerMessage(self._path(target[1].strip()) if target else "", 0, match[1], True)

    def _message(self, text: str) -> CompilerMessage | None:
        if match := _COMPILER.match(text):
            error = match[3].lower() != "warning"
            return CompilerMessage(self._path(match[1]), int(match[2]), match[4], error)
        if match := _KCONFIG.match(text):
            return CompilerMessage(self._path(match[1]), int(match[2]), match[3], True)
        if match := _OBJTOOL.match(text):
            return CompilerMessage(self._path(match[1]), 0, match[3], match[2] == "error")
        if match := _MODPOST.match(text):
            module = _MODULE.search(match[2])
            file = f"{module[1]}.ko" if module else ""
            return CompilerMessage(file, 0, match[2], match[1] == "ERROR")
        if match := _UNMET.match(text):
            return CompilerMessage("Kconfig", 0, match[1], False)
        if match := _LINKER.match(text):
            return CompilerMessage(self._path(match[1]), int(match[2] or 0), match[3], True)
        if match := _LINKER_SAYS.match(text):
            # "ld: a.o: in function `f':" only introduces the line that follows
            if match[2].endswith("':"):
                return None
            return CompilerMessage("", 0, f"ld: {match[2]}", not match[1])
        return None

    def _path(self, path: str) -> str:
        """A path as make prints it (relative to build/, or absolute), relative to the tree."""
        if path.startswith("/"):
            return path.removeprefix(f"{self._tree}/")
        if path.startswith("../"):
            return posixpath.normpath(path[3:])
        if path.startswith("./"):
            return f"build/{path[2:]}"
        return path
