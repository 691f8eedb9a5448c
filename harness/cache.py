# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness cache`: how large the cache is, and removing what was not used for long."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness import layout
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.adapters.store import ArtifactStore

_GB = 1_000_000_000
_DEFAULT_GB = 5.0
# a run under way may hold the path of an entry that it took out
_KEEP_S = 4 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("action", choices=["show", "prune"], help="prune: remove store entries")
    parser.add_argument(
        "--keep-gb",
        type=float,
        default=_DEFAULT_GB,
        metavar="N",
        help="prune: remove the longest unused until N GB are left (default: %(default)g); "
        "what was used within the last four hours stays",
    )
    parser.add_argument("--dry-run", action="store_true", help="prune: say it, remove nothing")


def run(options: argparse.Namespace) -> int:
    """Show or prune; 0."""
    cache = layout.cache_directory()
    if options.keep_gb < 0:
        raise UserError(f"--keep-gb {options.keep_gb:g}: expected 0 or more")
    if options.action == "show":
        _show(cache)
    elif not (cache / "store").is_dir():
        print(f"{cache}/store: nothing there")
    else:
        # late: the command line imports this module whatever the verb
        from harness.adapters.store import ArtifactStore  # noqa: PLC0415

        _prune(ArtifactStore(cache / "store"), round(options.keep_gb * _GB), options.dry_run)
    return 0


def _show(cache: Path) -> None:
    total = 0
    for path in sorted(cache.glob("*")):
        if path.is_dir():
            size = _disk_use(path)
            total += size
            print(f"{size / _GB:8.2f} GB  {path}")
    print(f"{total / _GB:8.2f} GB  in all")


def _disk_use(directory: Path) -> int:
    """Bytes on the disk, a file with several names counted once."""
    blocks: dict[tuple[int, int], int] = {}
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.lstat(f"{where}/{name}")
            except FileNotFoundError:  # a run may be at work
                continue
            blocks[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())


def _prune(store: ArtifactStore, max_bytes: int, dry_run: bool) -> None:
    doomed = store.prunable(max_bytes, _KEEP_S)
    going = sum(size for _, size in doomed)
    print(
        f"{store.root}: {store.size_bytes() / _GB:.2f} GB, of which {going / _GB:.2f} GB "
        f"({len(doomed)} entries) {'would go' if dry_run else 'go'}",
        flush=True,
    )
    for path, size in doomed:
        print(f"{size / _GB:8.2f} GB  {path.parent.name}/{path.name[:16]}", flush=True)
    if not dry_run:
        print(f"removed {store.prune(max_bytes, _KEEP_S) / _GB:.2f} GB")
