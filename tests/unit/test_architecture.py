# SPDX-License-Identifier: GPL-2.0-only
"""Dependencies point one way: cli -> stages -> machines -> adapters -> model."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.layout import REPOSITORY

PACKAGE = REPOSITORY / "harness"

# layer -> layers it may import, besides itself and the top-level modules errors and layout
ALLOWED = {
    "model": set(),
    "core": {"model"},
    "emulator": {"model"},
    "report": {"model"},
    "adapters": {"model", "core"},
    "machines": {"model", "core", "adapters"},
    # the oracle reads the event log of the emulator
    "stages": {"model", "core", "adapters", "machines", "report", "emulator"},
}
TOP = {"errors", "layout", "__init__"}
IO_MODULES = {"subprocess", "socket", "paramiko", "tempfile", "shutil", "threading", "time"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(layer: str) -> list[Path]:
    return sorted((PACKAGE / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", ALLOWED)
def test_layer_imports_only_lower_layers(layer: str) -> None:
    for path in modules(layer):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "harness" or len(parts) == 1 or parts[1] in TOP:
                continue
            if parts[1] in {"__version__"}:
                continue
            allowed = ALLOWED[layer] | {layer}
            assert parts[1] in allowed, f"{path.relative_to(REPOSITORY)} imports {name}"


@pytest.mark.parametrize("layer", ["model", "core"])
def test_pure_layers_do_no_io(layer: str) -> None:
    for path in modules(layer):
        used = {name.split(".")[0] for name in imports(path)} & IO_MODULES
        assert not used, f"{path.relative_to(REPOSITORY)} imports {used}"


def test_only_process_starts_processes() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "adapters" / "process.py":
            continue
        assert "subprocess" not in set(imports(path)), path.relative_to(REPOSITORY)


def test_every_source_file_names_its_licence() -> None:
    for path in [*PACKAGE.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]:
        text = path.read_text()
        head = text[:200]
        assert not text or "SPDX-License-Identifier: GPL-2.0-only" in head, path
