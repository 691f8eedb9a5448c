# SPDX-License-Identifier: GPL-2.0-only
"""The directory of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from harness.errors import StorageError, UserError

_OTHERS = ("mutants.json", "patchcheck.json")  # of the verbs that write something else than a run


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


def run_directory(name: str, runs: Path) -> Path | None:
    """A run by its name below `runs`, or by its path; None when it is no run."""
    for candidate in (runs / name, Path(name)):
        if (candidate / "result.json").is_file():
            return candidate.resolve()
    return None


def no_such_run(name: str, runs: Path) -> UserError:
    """Why run_directory() found nothing, and what there is instead."""
    for candidate in (runs / name, Path(name)):
        for other in _OTHERS:
            if (candidate / other).is_file():
                inner = sorted(
                    path.parent
                    for path in candidate.glob("*/*/result.json")
                    if not path.parent.is_symlink()
                )
                hint = f"its runs are e.g. {inner[0]}" if inner else f"read {candidate / other}"
                return UserError(f"{candidate}: no run, but {other} of another verb", hint=hint)
    if not runs.is_dir():
        return UserError(
            f"{runs}: no such directory", hint="name the folder of your runs with --runs-dir"
        )
    known = sorted(path.parent.name for path in runs.glob("*/result.json"))
    hint = f"there are: {', '.join(known[-5:])}" if known else "no run has been made here yet"
    return UserError(f"{name}: no such run in {runs}", hint=hint)
