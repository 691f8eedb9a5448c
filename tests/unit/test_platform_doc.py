# SPDX-License-Identifier: GPL-2.0-only
"""docs/platform.md, and C that speaks to the platform: registers, numbers and log fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType

import pytest

from harness.emulator import mailbox, tdi_function
from harness.emulator.function import PciFunction
from harness.emulator.words import Command, Injection, Reason, Result, TdiState, word_name
from harness.layout import KSELFTESTS, REPOSITORY
from tests.unit.emulator_rig import Rig

PAGE = (REPOSITORY / "docs/platform.md").read_text()
HEADER = (KSELFTESTS / "tsm/lib/tsm_test.h").read_text()
DRIVER = next((REPOSITORY / "kernel_patches/guest/cc-emulated").glob("0001-*.patch")).read_text()
_DWORDS = {"32": 1, "64": 2, "6x64": 12, "4x64": 8, "4 KiB": 1}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def registers(title: str) -> dict[str, tuple[int, int, str]]:
    """Name -> (offset, dwords, access) of a register map."""
    rows = re.findall(r"^\| 0x(\w+) \| ([^|]+) \| (R[OW]|WO) \| (\w+)", section(title), re.M)
    return {name: (int(at, 16), _DWORDS[bits], access) for at, bits, access, name in rows}


def offsets(title: str, access: str) -> set[int]:
    return {
        at + 4 * number
        for at, dwords, found in registers(title).values()
        if found == access
        for number in range(dwords)
    }


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def kept(function: PciFunction, offset: int) -> bool:
    """Whether a dword keeps what is written. What it does to the rig is of no interest."""
    function.bar_write(offset, (0xA5).to_bytes(4, "little"))
    return function.bar_read(offset, 4) == (0xA5).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("title", "module"), [("TDI registers", tdi_function), ("Security processor", mailbox)]
)
def test_register_maps(rig: Rig, title: str, module: ModuleType) -> None:
    function = rig.platform.tdi_functions[0] if module is tdi_function else rig.platform.guest_port
    names = {"ARG0": "ARGS", "OUT0": "OUTS"}
    for name, (offset, _, _) in registers(title).items():
        assert getattr(module, names.get(name, name)) == offset, name
    bells, computed = set(function.registers.doorbells), set(function.registers.computed)
    assert offsets(title, "WO") == bells
    assert computed <= offsets(title, "RO")
    below = [at for at in range(0, 0x1004, 4) if at not in bells]
    assert {at for at in below if kept(function, at)} == offsets(title, "RW")
    told = set().union(*(offsets(title, access) for access in ("RO", "RW", "WO")))
    assert {at for at in below if any(function.bar_read(at, 4))} <= told


def numbered(text: str) -> dict[str, int]:
    """Name -> number, from a list like "0 OK, 1 UNKNOWN_COMMAND"."""
    return {name: int(number) for number, name in re.findall(r"(\d+) ([A-Z_]+)", text)}


def members(enum: type[IntEnum]) -> dict[str, int]:
    return {one.name: one.value for one in enum}


def test_commands_results_injections() -> None:
    text = section("Security processor")
    rows = re.findall(r"^\| 0x(\w\w) \| (\w+) \|", text, re.MULTILINE)
    assert {name: int(number, 16) for number, name in rows} == members(Command)
    assert numbered(text.split("Results:")[1].split(".\n")[0]) == members(Result)
    kinds = re.findall(r"(\d) ([a-z]+(?:\s[a-z]+)?)", text.split("Injection kinds:")[1])
    assert {"_".join(name.upper().split()): int(number) for number, name in kinds} == (
        members(Injection)
    )


def test_reasons_and_states() -> None:
    text = section("TDI registers")
    cells = re.findall(r"(?<=\| )(\d+) \| ([a-z0-9-]+)", text.partition("| reason |")[2])
    assert {name: int(number) for number, name in cells} == {word_name(r): r.value for r in Reason}
    assert numbered(text.split("STATE:")[1].split("|")[0]) == members(TdiState)


def c_enum(text: str, name: str, prefix: str) -> dict[str, int]:
    """An enum of a C header: numbers count on where none is given. prefix: is taken off."""
    body = text.partition(f"enum {name} {{")[2].partition("}")[0].replace("\n+", "\n")
    found, number = {}, 0
    for entry in re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL).split(","):
        word, _, value = (part.strip() for part in entry.partition("="))
        if word:
            number = int(value, 0) if value else number
            found[word.removeprefix(prefix)] = number
            number += 1
    return found


@pytest.mark.parametrize(
    ("found", "enum"),
    [
        (c_enum(HEADER, "tdi_state", ""), TdiState),
        (c_enum(HEADER, "opcode", "CMD_"), Command),
        (c_enum(HEADER, "injection", "INJECT_"), Injection),
        (c_enum(HEADER.replace("ANY_REASON", "ANY"), "reason", ""), Reason),
        (c_enum(DRIVER, "tdisp_emu_opcode", "TDISP_EMU_"), Command),
    ],
    ids=["tdi_state", "opcode", "injection", "reason", "tdisp_emu_opcode"],
)
def test_c_headers_have_the_same_numbers(found: dict[str, int], enum: type[IntEnum]) -> None:
    assert len(found) >= 4
    assert found.items() <= members(enum).items()


def written() -> dict[str, set[str]]:
    """Event -> its fields, from every call of EventLog.write() in the emulator."""
    events: dict[str, set[str]] = {}
    for path in (REPOSITORY / "harness/emulator").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "write"
                and ast.unparse(node.func.value).endswith("log")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg}
                events.setdefault(str(node.args[0].value), set()).update(fields)
    return events


def test_log_fields() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section("Event log"), re.MULTILINE)
    told = {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}
    assert told == written()
