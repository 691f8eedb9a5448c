# SPDX-License-Identifier: GPL-2.0-only
"""The directory of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from harness.errors import StorageError


def make_run_directory(runs: Path, plan: str, now: datetime) -> Path:
    """runs/<utc>-<plan>, new, and the link runs/latest to it."""
    stem = f"{now:%Y%m%dT%H%M%SZ}-{plan}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = runs / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            link = runs / f".latest-{path.name}"
            link.symlink_to(path.name)
            link.replace(runs / "latest")
            return path
    except OSError as exc:
        raise StorageError(
            f"{runs}: {exc.strerror}", hint="name another directory with --runs-dir"
        ) from exc
    raise StorageError(f"{runs}: no free name for {stem}")
