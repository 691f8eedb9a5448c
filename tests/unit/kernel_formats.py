# SPDX-License-Identifier: GPL-2.0-only
"""The table of what the kernel prints (data/kernel_formats.toml), and lines made from it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "kernel_formats.toml"
_CONVERSION = re.compile(r"%(p[A-Za-z]*|[-#0 +]*[0-9]*(?:ll|l|z|h)*[a-zA-Z])")
_JOINED = re.compile(r'"\s*(?:\\\n\s*)?"')
_ADDRESS = "00000000deadbe42"
_VALUES = {
    "c": "R",
    "pS": "tdi_map+0x1c/0x40 [tdi_test]",
    "pSb": "tdi_map+0x1c/0x40 [tdi_test]",
    "ps": "tdi_map",
    "pV": "Object already free",
    "pGg": "GFP_KERNEL",
}


@dataclass(frozen=True, slots=True)
class Format:
    """One format string of the kernel, and the kind of report it has to be found as."""

    kind: str
    file: str
    text: str
    prefix: str
    values: tuple[str, ...]  # of its %s

    def line(self) -> str:
        """What the kernel would print."""
        values = iter(self.values)

        def value(match: re.Match[str]) -> str:
            what = match[1]
            if what == "s":
                return next(values, "word")
            if what in _VALUES:
                return _VALUES[what]
            if what.startswith("p"):
                return _ADDRESS
            if what[-1] in "xX":
                digits = re.sub(r"\D", "", what)
                return ("0x" if "#" in what else "") + format(0x1F, f"{digits}x")
            return "3"

        return self.prefix + _CONVERSION.sub(value, self.text)

    def __str__(self) -> str:
        return f"{self.kind or 'innocent'}: {self.line()[:60]}"


def formats() -> list[Format]:
    return [
        Format(
            row["kind"],
            row["file"],
            row["text"],
            row.get("prefix", ""),
            tuple(row.get("with", ())),
        )
        for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["format"]
    ]


def source_text(path: Path) -> str:
    """A C file with its adjacent string literals joined."""
    return _JOINED.sub("", path.read_text(encoding="utf-8", errors="replace"))


def as_literal(text: str) -> str:
    """A text as it stands in C source."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
