# SPDX-License-Identifier: GPL-2.0-only
"""A TOML table whose every access names the file and key when it fails."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import UserError


class Table:
    """where: the file, path: of the table in it, for messages. Errors are UserError."""

    def __init__(self, where: str, path: str, data: Mapping[str, Any]) -> None:
        self.where = where
        self.path = path
        self.data = data

    def error(self, key: str, expected: str) -> UserError:
        name = f"{self.path}.{key}" if self.path else key
        return UserError(f"{self.where}: {name}: {expected}")

    def known(self, *keys: str) -> None:
        for key in self.data:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(keys)}"
                name = f"{self.path}.{key}" if self.path else key
                raise UserError(f"{self.where}: {name}: unknown key", hint=hint)

    def get(self, key: str, kind: type, expected: str, default: Any = None) -> Any:
        value = self.data.get(key, default)
        if value is None:
            raise self.error(key, f"missing, expected {expected}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"expected {expected}, got {value!r}")
        return value

    def choice(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        allowed = list(choices)
        value = self.get(key, str, f"one of {', '.join(allowed)}", default)
        if value not in allowed:
            raise self.error(key, f"expected one of {', '.join(allowed)}, got {value!r}")
        return str(value)

    def table(self, key: str) -> Table:
        path = f"{self.path}.{key}" if self.path else key
        return Table(self.where, path, self.get(key, dict, "a table", {}))
