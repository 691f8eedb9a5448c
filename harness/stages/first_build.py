# SPDX-License-Identifier: GPL-2.0-only
"""A role's first build, begun with the objects of another role's tree of the same source.

The roles differ in a few series and options. kbuild knows for each object which files and options
went in; so it compiles a copy of the other build directory up to this role's sources and
configuration, as it does in a tree that was patched further, and makes the same bytes as from
nothing. What kbuild does not see is told by time: every file that a series or overlay ever touched
in either tree becomes younger than the objects.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from harness.adapters.kbuild import BUILD, WARNINGS, is_whole
from harness.adapters.process import run
from harness.adapters.role_tree import RoleTree, copy_error, storage
from harness.model.kernel import PatchedTree
from harness.model.progress import Progress
from harness.stages.patch import source_key

# Made anew: linked images, what was installed, headers for programs (the other role's are more or
# fewer), and the harness's own notes.
_BEGUN = ".harness-copied"
_LEFT_OUT = (".config*", ".harness-*", "kselftest", "usr/include", "vmlinux*", ".tmp_vmlinux*")


def begin(tree: PatchedTree, others: Iterable[Path], progress: Progress) -> bool:
    """Copy the build directory of the first of `others` that fits.

    others: role directories, as `patch.apply` makes them. True: this tree's first kernel is made
    of a copy, be it one that an interrupted build left. A tree that has a kernel is left alone.
    The caller holds a lock on all of them.
    """
    into = tree.path / BUILD
    if (into / "vmlinux").exists():
        return False
    if (into / _BEGUN).exists():
        return True
    own = tree.path.parent
    for directory in sorted(d for d in others if d != own and is_whole(d / tree.path.name / BUILD)):
        key = source_key(tree.source)
        ours, other = (RoleTree(place, tree.source.path, key) for place in (own, directory))
        again = _warned(other.path / BUILD / WARNINGS)
        if (touched := other.managed()) is None or again is None:
            continue
        progress.say(f"{tree.role}: begins with the objects of the {directory.name}")
        # first: objects that are there already must never be younger than these files
        ours.renew(touched | (ours.managed() or frozenset()))
        with storage(into):
            _copy(other.path, tree.path, again)
        return True
    return False


def _copy(source: Path, target: Path, again: Iterable[str]) -> None:
    """The build directory of one kernel tree becomes that of another, in one step at the end.

    again: sources whose objects are left out.
    """
    for old in target.parent.glob(".tmp-*"):
        shutil.rmtree(old)
    scratch = target.parent / f".tmp-{secrets.token_hex(4)}"
    try:
        argv = ("cp", "-a", "--reflink=auto", str(source / BUILD), str(scratch))
        done = run(argv, env={"LC_ALL": "C"}, check=False)
        if done.returncode != 0:
            raise copy_error(done, target.parent)
        for pattern in _LEFT_OUT:
            for path in scratch.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for file in again:
            (scratch / file).with_suffix(".o").unlink(missing_ok=True)
        _move(scratch / "tools", source, target)
        (scratch / _BEGUN).touch()
        # a file that a power cut leaves empty would be as old as a good one
        run(("sync", "-f", str(scratch)), what="sync")
        shutil.rmtree(target / BUILD, ignore_errors=True)
        scratch.rename(target / BUILD)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _warned(record: Path) -> list[str] | None:
    """Sources that have to be compiled again, since they warned; None where that cannot be told.

    A warning about a header, or about what is not in the tree, does not say whose it is.
    """
    try:
        files = [str(one["file"]) for one in json.loads(record.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        return None
    plain = all(file.endswith((".c", ".S")) and ".." not in Path(file).parts for file in files)
    return files if plain and not any(Path(file).is_absolute() for file in files) else None


def _move(tools: Path, source: Path, target: Path) -> None:
    """The kernel's tools are recorded by absolute names, and all objects depend on objtool."""
    before, after = f"{source}/".encode(), f"{target}/".encode()
    for directory, _, names in os.walk(tools):
        for name in names:
            path = Path(directory) / name
            if name.endswith(".cmd") and before in (data := path.read_bytes()):
                times = path.stat()
                path.write_bytes(data.replace(before, after))
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
