# SPDX-License-Identifier: GPL-2.0-only
"""scripts/checkpatch.pl of a kernel tree, and nm on its objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.adapters.process import Completed, run
from harness.errors import UserError

SCRIPT = "scripts/checkpatch.pl"
_NM_BATCH = 500  # files per call


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


def symbols(output: Path, directories: Sequence[str]) -> str:
    """What nm lists for the compiled objects below some directories of a build."""
    objects: list[str] = []
    for name in directories:
        for where, _, files in os.walk(output / name):
            # what the compiler made, not what was linked of that
            objects += [
                f"{where}/{file}"
                for file in files
                if file.endswith(".o")
                and not file.startswith((".", "built-in", "vmlinux"))
                and (Path(where) / f".{file}.cmd").is_file()
                and not file.endswith(".mod.o")
            ]
    objects.sort()
    listing = []
    for at in range(0, len(objects), _NM_BATCH):
        argv = ("nm", "--format=posix", "--extern-only", *objects[at : at + _NM_BATCH])
        listing.append(run(argv, env={"LC_ALL": "C"}, what="nm").out)
    return "".join(listing)
