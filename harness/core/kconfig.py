# SPDX-License-Identifier: GPL-2.0-only
"""Kernel configuration: fragments, merging, and the proof that each request stuck.

A fragment is what scripts/kconfig/merge_config.sh takes: `CONFIG_X=value` and
`# CONFIG_X is not set` lines, comments, blank lines.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.core.kconfig_explain import explain
from harness.core.kconfig_symbols import SymbolTable
from harness.errors import UserError
from harness.model.kernel import ConfigProof, ConfigRow

_ASSIGNMENT = re.compile(r"CONFIG_(\w+)=(.*)")
_NOT_SET = re.compile(r"# CONFIG_(\w+) is not set")
_VALUE = re.compile(r'[ymn]|-?\d+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')
_NEARLY_NOT_SET = re.compile(r"#\s*(?:CONFIG_)?(\w+)\s+is\s+not\s+set\s*", re.IGNORECASE)
_NEARLY_ASSIGNMENT = re.compile(r"(?:CONFIG[_-])?(\w+)\s*=\s*(\S.*?)\s*", re.IGNORECASE)
_WORDS = {
    "y": "y",
    "m": "m",
    "n": "n",
    "yes": "y",
    "true": "y",
    "1": "y",
    "no": "n",
    "false": "n",
    "module": "m",
    "off": "n",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One requested option. symbol: without CONFIG_; value as in a .config, "n" for not set.

    binding: False for a request of somebody else's kselftest, which may go unanswered.
    """

    symbol: str
    value: str
    origin: str  # file:line
    binding: bool = True


@dataclass(frozen=True, slots=True)
class Merged:
    """The requests that remain after merging, and a line for each that lost."""

    requests: tuple[Request, ...]
    overrides: tuple[str, ...] = ()

    def render(self) -> str:
        """The text to append to a .config."""
        return "".join(
            f"# CONFIG_{r.symbol} is not set\n"
            if r.value == "n"
            else f"CONFIG_{r.symbol}={r.value}\n"
            for r in self.requests
        )


def parse_fragment(name: str, text: str, *, binding: bool = True) -> tuple[Request, ...]:
    """The requests of one fragment, in order. UserError names `name:line` and what was meant."""
    found: list[Request] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        origin = f"{name}:{number}"
        if not line:
            continue
        if match := _NOT_SET.fullmatch(line):
            found.append(Request(match[1], "n", origin, binding))
        elif line.startswith("#"):
            if match := _NEARLY_NOT_SET.fullmatch(line):
                raise UserError(
                    f"{origin}: {line!r} is read as a comment",
                    hint=f"write `# CONFIG_{match[1].upper()} is not set`",
                )
        elif (match := _ASSIGNMENT.fullmatch(line)) and _VALUE.fullmatch(match[2]):
            found.append(Request(match[1], match[2], origin, binding))
        else:
            raise UserError(
                f"{origin}: {line!r} is not a configuration line", hint=_nearest_form(line)
            )
    return tuple(found)


def _nearest_form(line: str) -> str:
    """What the writer of a malformed line probably meant."""
    match = _NEARLY_ASSIGNMENT.fullmatch(line)
    if match is None:
        return "write `CONFIG_X=y` or `# CONFIG_X is not set`"
    symbol, value = match[1].upper(), re.sub(r"\s+#.*$", "", match[2])
    if not _VALUE.fullmatch(value):
        near = difflib.get_close_matches(value.lower(), _WORDS, 1)
        value = _WORDS[near[0]] if near else '"' + value.strip("\"'") + '"'
    return f"did you mean `CONFIG_{symbol}={value}`?"


def merge(fragments: Iterable[Iterable[Request]]) -> Merged:
    """Later requests win over earlier ones; a request that is not binding never beats one that is.

    Repeating the same value is not an override.
    """
    final: dict[str, Request] = {}
    overrides: list[str] = []
    for request in (one for fragment in fragments for one in fragment):
        before = final.get(request.symbol)
        if before is not None and (before.value == request.value or before.binding):
            if before.value == request.value:
                continue
            if not request.binding:
                if (before.value, request.value) != ("y", "m"):  # y answers a wish for m
                    overrides.append(_override(request, before))
                continue
        if before is not None:
            overrides.append(_override(before, request))
        final[request.symbol] = request
    return Merged(tuple(final.values()), tuple(overrides))


def _override(loser: Request, winner: Request) -> str:
    return (
        f"CONFIG_{winner.symbol}={winner.value} ({winner.origin}) "
        f"overrides {loser.value} ({loser.origin})"
    )


def parse_config(text: str) -> dict[str, str]:
    """Symbols of a .config; those not set have the value "n"."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if match := _ASSIGNMENT.fullmatch(line):
            values[match[1]] = match[2]
        elif match := _NOT_SET.fullmatch(line):
            values[match[1]] = "n"
    return values


def config_hash(final: str) -> str:
    """sha256 of what a .config says; comments (which name tools and versions) do not count."""
    values = parse_config(final)
    text = "".join(f"{symbol}={values[symbol]}\n" for symbol in sorted(values))
    return hashlib.sha256(text.encode()).hexdigest()


def prove(role: str, merged: Merged, final: str, table: SymbolTable) -> ConfigProof:
    """Each request with what it became. final: text of the .config after olddefconfig.

    A request for m answered by y, and a request that is not binding, make no broken row: such a
    row shows what it got, and `why` says what was asked for.
    """
    config = parse_config(final)
    rows = tuple(_row(request, config, table) for request in merged.requests)
    return ConfigProof(role, rows, final)


def _row(request: Request, config: Mapping[str, str], table: SymbolTable) -> ConfigRow:
    got = config.get(request.symbol, "n")
    if request.symbol not in table.symbols and request.symbol not in config:
        got = ""
    row = ConfigRow(request.symbol, request.value, got, request.origin)
    if row.ok:
        return row
    row = replace(row, why=explain(table, row, config))
    if got == "y" and request.value == "m":
        return replace(row, requested=got, why="asked for m; y answers it")
    if not request.binding:
        return replace(row, requested=got, why=f"asked for {request.value}, not needed: {row.why}")
    return row


def render_proof(proof: ConfigProof, overrides: Iterable[str] = ()) -> str:
    """config-proof-<role>.txt: broken rows first, then all, then what overrode what."""
    broken = proof.broken
    lines = [f"{proof.role}: {len(proof.rows)} options requested, {len(broken)} not honoured", ""]
    for row in (*broken, *(r for r in proof.rows if r.ok)):
        state = "ok    " if row.ok else "BROKEN"
        got = row.got or "(no such symbol)"
        lines.append(f"{state} CONFIG_{row.symbol}={row.requested}  got {got}  [{row.fragment}]")
        if row.why:
            lines.append(f"         {row.why}")
    said = list(overrides)
    if said:
        lines += ["", "overrides:", *(f"  {line}" for line in said)]
    return "\n".join(lines) + "\n"


def describe_broken(proof: ConfigProof) -> str:
    """One line per broken row, for an error message."""
    return "\n".join(
        f"  CONFIG_{row.symbol}={row.requested} ({row.fragment}): "
        + (f"got {row.got}: " if row.got else "")
        + row.why
        for row in proof.broken
    )
