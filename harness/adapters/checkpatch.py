# SPDX-License-Identifier: GPL-2.0-only
"""scripts/checkpatch.pl of a kernel tree, and nm on its objects."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.adapters.process import Completed, run
from harness.errors import UserError

SCRIPT = "scripts/checkpatch.pl"
_NM_BATCH = 500  # files per call
_SOURCE = re.compile(r"^source_\S+ := (\S+)$", re.MULTILINE)  # of a record that fixdep wrote


def checkpatch(tree: Path, patch: Path, ignored: Sequence[str]) -> Completed:
    """--strict on one mail, judged by the script and the files of `tree`.

    UserError when the tree has no such script. Its exit status is 1 when it found something.
    """
    if not (tree / SCRIPT).is_file():
        raise UserError(f"{tree}: no {SCRIPT} in it", hint="is this a whole kernel tree?")
    argv = (
        "perl",
        str(tree / SCRIPT),
        f"--root={tree}",
        "--strict",
        "--terse",
        "--show-types",
        "--no-summary",
        f"--ignore={','.join(ignored)}",
        str(patch.absolute()),
    )
    # in the tree: in a repository of the user's, it would ask that one for commits
    return run(argv, cwd=tree, env={"LC_ALL": "C"}, check=False, what=SCRIPT)


def drop_stale(output: Path, directories: Sequence[str]) -> None:
    """Remove the objects of sources that are gone: make leaves them where they are."""
    for path, source in _objects(output, directories):
        if not source.is_file():
            path.unlink()


def symbols(output: Path, directories: Sequence[str]) -> str:
    """What nm lists for the compiled objects below some directories of a build."""
    objects = sorted(str(path) for path, _ in _objects(output, directories))
    listing = []
    for at in range(0, len(objects), _NM_BATCH):
        argv = ("nm", "--format=posix", "--extern-only", *objects[at : at + _NM_BATCH])
        listing.append(run(argv, env={"LC_ALL": "C"}, what="nm").out)
    return "".join(listing)


def _objects(output: Path, directories: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """What the compiler made, not what was linked of that, and of which source."""
    for name in directories:
        for where, _, files in os.walk(output / name):
            for file in files:
                record = Path(where, f".{file}.cmd")
                if not file.endswith(".o") or file.endswith(".mod.o") or not record.is_file():
                    continue
                if made_of := _SOURCE.search(record.read_text(errors="replace")):
                    yield Path(where, file), output / made_of[1]
