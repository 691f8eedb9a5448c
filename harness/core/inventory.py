# SPDX-License-Identifier: GPL-2.0-only
"""Lab inventories (configs/labs/*.toml): the machines of a lab and how to reach them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.lab import LabSpec, LabSsh

_MACHINE_KEYS = (
    "role",
    "ssh",
    "console",
    "power_cycle",
    "append",
    "boot_limit_s",
    "fragment",
)
_SSH_KEYS = ("host", "host_key", "key", "port", "user")
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-rsa")


def parse_inventory(toml_text: str, name: str, home: Path) -> dict[str, LabSpec]:
    """All machines by name. `name` is the file's: for errors, and what fragments are relative to.

    `home` replaces "~" in key paths.
    """
    try:
        table = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{name}: {exc}") from exc
    top = _Section(table, name, "")
    top.only(("machines",))
    machines = top.section("machines")
    if not machines.table:
        raise UserError(f"{name}: machines: empty", hint="one table [machines.NAME] per machine")
    return {key: _machine(machines.section(key), key, home) for key in machines.table}


def machine_named(machines: Mapping[str, LabSpec], wanted: str, file: str) -> LabSpec:
    """One machine of an inventory; UserError with the nearest name."""
    if wanted in machines:
        return machines[wanted]
    near = difflib.get_close_matches(wanted, machines, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(machines))}"
    raise UserError(f"{file}: no machine {wanted!r}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Section:
    """A TOML table that knows where it stands; every error names file and key."""

    table: Mapping[str, Any]
    file: str
    path: str

    def where(self, key: str) -> str:
        return f"{self.file}: {self.path}.{key}" if self.path else f"{self.file}: {key}"

    def only(self, known: tuple[str, ...]) -> None:
        for key in self.table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                raise UserError(f"{self.where(key)}: no such key", hint=hint)

    def section(self, key: str) -> _Section:
        value = self.table.get(key)
        if value is None:
            raise UserError(f"{self.where(key)} missing")
        if not isinstance(value, dict):
            raise UserError(f"{self.where(key)}: a table is wanted, got {value!r}")
        return _Section(value, self.file, f"{self.path}.{key}".lstrip("."))

    def text(self, key: str, default: str | None = None) -> str:
        value = self.table.get(key, default)
        if value is None:
            raise UserError(f"{self.file}: {self.path}: {key} missing")
        if not isinstance(value, str) or (not value and default is None):
            raise UserError(f"{self.where(key)}: a text is wanted, got {value!r}")
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self.table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{self.where(key)}: a number is wanted, got {value!r}")
        if not least <= value <= most:
            raise UserError(f"{self.where(key)}: {value} is not within {least:g}..{most:g}")
        return float(value)

    def command(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise UserError(
                f"{self.where(key)}: a list of texts is wanted, got {value!r}",
                hint='e.g. ["ipmitool", "-H", "bmc.example", "power", "cycle"]',
            )
        return tuple(value)


def _machine(section: _Section, name: str, home: Path) -> LabSpec:
    section.only(_MACHINE_KEYS)
    role = section.text("role")
    if role not in (one.value for one in Role):
        raise UserError(f'{section.where("role")}: {role!r} is neither "host" nor "guest"')
    fragment = section.text("fragment", "")
    return LabSpec(
        name=name,
        role=Role(role),
        ssh=_ssh(section.section("ssh"), home),
        console=section.command("console"),
        power_cycle=section.command("power_cycle"),
        append=section.text("append", ""),
        boot_limit_s=section.number("boot_limit_s", 900, 30, 7200),
        fragment=Path(section.file).parent / fragment if fragment else None,
    )


def _ssh(section: _Section, home: Path) -> LabSsh:
    section.only(_SSH_KEYS)
    host = section.text("host")
    host_key = section.text("host_key")
    words = host_key.split()
    if len(words) < 2 or words[0] not in _KEY_TYPES:
        raise UserError(
            f"{section.where('host_key')}: not a public key: {host_key[:40]!r}",
            hint=f"`ssh-keyscan -t ed25519 {host}` prints it, behind the name; verify it",
        )
    key = section.text("key")
    return LabSsh(
        host=host,
        host_key=" ".join(words[:2]),
        key=home / key[2:] if key.startswith("~/") else Path(key),
        port=int(section.number("port", 22, 1, 65535)),
        user=section.text("user", "root"),
    )
