# SPDX-License-Identifier: GPL-2.0-only
"""The identity of what mutants are held against: series, kselftests, configuration, platform."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness import layout
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.options import RunOptions

_PLATFORM = layout.REPOSITORY / "harness" / "emulator"


def digest_of(data: bytes) -> str:
    """A short name of a content."""
    return hashlib.sha256(data).hexdigest()[:32]


def code_digest(options: RunOptions, mutated: Role) -> str:
    """Of all but the kernel's source, whose id a run tells. UserError for unreadable files.

    mutated: whose kernel the mutants are for.
    """
    roots = [layout.KSELFTESTS, layout.KERNEL_CONFIGS, _PLATFORM]
    if mutated not in options.without_builtin:
        roots.append(layout.SERIES / mutated.value)
    roots += [path for role, path in options.extra_series if role is mutated]
    digest = hashlib.sha256(repr((options.plan_text, options.source)).encode())
    for root in roots:
        for path in _files(root):
            try:
                data = path.read_bytes()
            except OSError as exc:
                raise UserError(f"{path}: {exc.strerror}") from exc
            name = path.relative_to(root).as_posix()
            digest.update(f"\0{root.name}\0{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)
