# SPDX-License-Identifier: GPL-2.0-only
"""The platform's part of a plan: its keys, and the cells of the matrix that they make.

A test runs in the product of its axes. `[platform.axes]` gives the axes of all tests, the
`platform` table of a `[[tests]]` entry replaces some of them for its tests. Settings that cannot
matter are made equal (vTOM outside of model N, the C-bit in it), so that no cell comes twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.core.toml_table import Table
from harness.model.platform import (
    ALL_ONES,
    BY_HOST,
    ENTRY_KNOBS,
    KNOBS,
    Expectation,
    PlatformCell,
    PlatformPlan,
)

Axes = tuple[tuple[str, tuple[str | int, ...]], ...]

_PAGE_BYTES = 4096
_MAX_TDIS = 8  # functions of one device
_MAX_CELLS = 64


def parse_platform(table: Table) -> PlatformPlan:
    """The `[platform]` table of a plan."""
    table.known(*KNOBS, "append", "axes")
    base = PlatformCell(append=table.get("append", str, "kernel parameters", ""))
    for key in KNOBS:
        if key in table.data:
            change: dict[str, Any] = {key: _value(table, key, table.data[key])}
            base = replace(base, **change)
    return PlatformPlan(base, parse_axes(table.table("axes")))


def parse_axes(table: Table, knobs: tuple[str, ...] = KNOBS) -> Axes:
    """A table of knob = value or list of values."""
    table.known(*knobs)
    axes = []
    for key, given in table.data.items():
        values = given if isinstance(given, list) else [given]
        if not values:
            raise table.error(key, "an empty list: no cell would be left")
        axes.append((key, tuple(dict.fromkeys(_value(table, key, value) for value in values))))
    return tuple(axes)


def parse_entry(table: Table) -> Axes:
    """The `platform` table of a `[[tests]]` entry."""
    return parse_axes(table, ENTRY_KNOBS)


def host_binds(axes: Axes) -> bool:
    """Whether some cell of an entry is one in which the host machine's kernel binds."""
    return BY_HOST in dict(axes).get("binds", ())


def parse_expectation(table: Table) -> Expectation:
    """The `expect` table of a `[[tests]]` entry."""
    table.known("splats", "faults")
    found = {}
    for key in ("splats", "faults"):
        words = table.get(key, list, "a list of words", [])
        if not all(isinstance(word, str) and word for word in words):
            raise table.error(key, "expected a list of words")
        found[key] = tuple(words)
    return Expectation(**found)


def cells(plan: PlatformPlan, axes: Axes) -> tuple[PlatformCell, ...]:
    """The cells in which a test with these axes of its own runs, each once."""
    own = dict(axes)
    merged = {key: own.pop(key, values) for key, values in plan.axes} | own
    found = []
    for values in itertools.product(*merged.values()):
        changes: dict[str, Any] = dict(zip(merged, values, strict=True))
        found.append(_normal(replace(plan.base, **changes)))
    return tuple(dict.fromkeys(found))


def _normal(cell: PlatformCell) -> PlatformCell:
    if cell.model == "N":
        return replace(cell, c_bit=PlatformCell().c_bit)
    return replace(cell, vtom=ALL_ONES)


def check_matrix(table: Table, plan: PlatformPlan, own: Mapping[str, Axes]) -> None:
    """Refuse a matrix that nobody wants to wait for. own: axes per entry, for the message."""
    for where, axes in own.items():
        count = len(cells(plan, axes))
        if count > _MAX_CELLS:
            raise table.error("axes", f"{where} would run in {count} cells, at most {_MAX_CELLS}")


def _value(table: Table, key: str, value: object) -> str | int:
    check, expected = _CHECKS[key]
    found = check(value)
    if found is None:
        raise table.error(key, f"expected {expected}, got {value!r}")
    return found


def _word(*words: str) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and value in words else None


def _number(low: int, high: int) -> Callable[[object], int | None]:
    def check(value: object) -> int | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if good and isinstance(value, int) else None

    return check


def _vtom(value: object) -> int | None:
    """A TOML integer has 63 bits, so an address may also be given as text."""
    if value == "all-ones":
        return ALL_ONES
    try:
        address = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(address, int) or isinstance(address, bool):
        return None
    return address if 0 < address < ALL_ONES and address % _PAGE_BYTES == 0 else None


_CHECKS: dict[str, tuple[Callable[[object], str | int | None], str]] = {
    "model": (_word("A", "B", "N"), "A, B or N"),
    "vtom": (_vtom, '"all-ones" or a page-aligned address'),
    "locked_t0": (_word("allow", "block"), "allow or block"),
    "bme_clear": (_word("error", "ignore"), "error or ignore"),
    "c_bit": (_number(32, 51), "a bit from 32 to 51"),
    "tdis": (_number(1, _MAX_TDIS), f"a number from 1 to {_MAX_TDIS}"),
    "binds": (_word("platform", BY_HOST), f"platform or {BY_HOST}"),
}
