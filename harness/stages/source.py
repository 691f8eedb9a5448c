# SPDX-License-Identifier: GPL-2.0-only
"""Stage source: a pristine kernel tree in the cache, from a package, a git tree or a tarball.

Nothing is downloaded or unpacked twice, and nothing is written outside the cache. A run without a
network works when the cache holds the tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.adapters.apt import PrivateApt
from harness.adapters.git import GitTree
from harness.adapters.process import run
from harness.adapters.source_cache import Manifest, SourceCache, altered, load_manifest
from harness.adapters.tarball import (
    SUFFIXES,
    check_space,
    full,
    is_full,
    refuse_outward_links,
    unpack,
    unpack_from,
)
from harness.core.series import kernel_version
from harness.errors import HarnessError, InfraError, NetworkError, StorageError, UserError
from harness.model.kernel import SourceSpec, SourceTree
from harness.model.progress import Progress

SUITES = ("trixie", "trixie-backports")  # where the linux-source-* packages are looked for
TREE_BYTES = 2_200_000_000  # a kernel tree and the archive it comes from, while unpacking
_FRESH_S = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest version of a package that is in the cache. checked: Unix time."""

    version: str
    size_bytes: int
    sha256: str
    checked: float


def fetch(
    spec: SourceSpec, cache: Path, progress: Progress, *, thorough: bool = True
) -> SourceTree:
    """The tree that the user asked for, made when the cache lacks it or holds a damaged one.

    thorough: look at all of its files, else at some: before something is made of it, the stages
    look at the others (source_cache.require_whole).
    UserError: no such tree, ref or file, not a kernel. NetworkError: a download failed.
    StorageError: disk full.
    """
    given = [bool(spec.package), spec.tree is not None, spec.tarball is not None]
    if sum(given) != 1:
        raise UserError("source: give exactly one of package, tree and tarball")
    entries = SourceCache(cache, thorough)
    if spec.tree is not None:
        return _from_git(spec.tree, spec.ref, entries, progress)
    if spec.tarball is not None:
        return _from_tarball(spec.tarball, entries, progress)
    if spec.sha256 and (tree := _cached(entries, "package", spec.sha256, progress)) is not None:
        return tree
    return _from_package(
        spec.package, entries, PrivateApt(cache / "apt" / "-".join(SUITES), SUITES), progress
    )


def pin(tree: SourceTree) -> str:
    """What names this very source, for reproduce.sh."""
    if tree.kind == "git":
        return f"git commit {tree.id} (Linux {tree.version})"
    # the name of a tarball may change, that of a package says where to look for it
    what = tree.origin if tree.kind == "package" else "tarball"
    return f"{what} (Linux {tree.version}), sha256 {tree.id}"


def _from_package(
    package: str, entries: SourceCache, apt: PrivateApt, progress: Progress
) -> SourceTree:
    record = entries.root / f"newest-{package}.json"
    seen = _load_seen(record)
    if seen is not None and time.time() - seen.checked < _FRESH_S:
        tree = _cached(entries, "package", seen.sha256, progress)
        if tree is not None:
            return tree
    try:
        version, size_bytes, sha256 = _newest(package, apt, progress)
    except (NetworkError, InfraError) as exc:
        tree = _cached(entries, "package", seen.sha256, progress) if seen is not None else None
        if tree is None:
            raise
        progress.say(f"warning: no newer {package} can be looked for: {exc.message}")
        return tree

    def fill(scratch: Path) -> tuple[Path, str]:
        deb = apt.download(package, scratch, version, progress)
        progress.say(f"unpacking {package} {version}")
        argv = ("dpkg-deb", "-x", str(deb), str(scratch / "deb"))
        done = run(argv, env={"LC_ALL": "C"}, check=False)
        if "No space left" in done.err:
            raise full(str(entries.root))
        if done.returncode != 0:
            raise InfraError(f"{package}: {done.err.strip()}", command=shlex.join(argv))
        deb.unlink()
        archives = [
            path
            for path in sorted((scratch / "deb/usr/src").glob("linux-source-*"))
            if path.name.endswith(SUFFIXES)
        ]
        if len(archives) != 1:
            raise UserError(f"{package} {version}: holds no usr/src/linux-source-*.tar.*")
        (scratch / "tree").mkdir()
        unpack(archives[0], scratch / "tree")
        return _kernel_top(scratch / "tree", f"{package} {version}")

    space = min(TREE_BYTES, 14 * size_bytes)
    tree = _ensure(entries, ("package", sha256, f"{package} {version}"), space, fill, progress)
    _write_seen(record, _Seen(version, size_bytes, sha256, time.time()))
    return tree


def _newest(package: str, apt: PrivateApt, progress: Progress) -> tuple[str, int, str]:
    """PrivateApt.newest(); a package that is not listed is looked for in fresh lists too."""
    apt.update(progress)
    try:
        return apt.newest(package)
    except InfraError as exc:
        progress.say(f"note: {exc.message}: the package lists are fetched anew")
        apt.forget()
        apt.update(progress)
        return apt.newest(package)


def _from_git(path: Path, ref: str, entries: SourceCache, progress: Progress) -> SourceTree:
    git = GitTree(path)
    commit = git.commit(ref)
    makefile = git.file(commit, "Makefile")
    if makefile is None or kernel_version(makefile) is None:
        raise UserError(
            f"--tree {path}: {ref} ({commit[:12]}) is not a kernel tree: "
            + ("no Makefile" if makefile is None else "its Makefile has no VERSION"),
            hint="name the top of a Linux tree",
        )
    if ref == "HEAD" and git.has_uncommitted():
        progress.say(f"note: {path} has uncommitted changes; HEAD ({commit[:12]}) is built")

    def fill(scratch: Path) -> tuple[Path, str]:
        progress.say(f"exporting {path} {ref} ({commit[:12]})")
        try:
            unpack_from(git.archive_argv(commit), scratch, f"{path} {ref}")
        except HarnessError as exc:
            git.refuse_partial(commit, exc.message)
            raise
        refuse_outward_links(scratch, f"{path} {ref}")
        return _kernel_top(scratch, f"{path} {ref}")

    return _ensure(entries, ("git", commit, f"{path} {ref}"), TREE_BYTES, fill, progress)


def _from_tarball(path: Path, entries: SourceCache, progress: Progress) -> SourceTree:
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: not an archive", hint=f"known are {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size_bytes = path.stat().st_size
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}") from exc

    def fill(scratch: Path) -> tuple[Path, str]:
        progress.say(f"unpacking {path} ({size_bytes / 1e6:.0f} MB)")
        unpack(path, scratch)
        return _kernel_top(scratch, str(path))

    space = min(TREE_BYTES, 2 * size_bytes)
    return _ensure(entries, ("tarball", digest, str(path)), space, fill, progress)


def _kernel_top(directory: Path, what: str) -> tuple[Path, str]:
    """The top of the kernel tree in an unpacked archive, and its version."""
    children = list(directory.iterdir())
    top = directory
    if not (directory / "Makefile").is_file() and len(children) == 1 and children[0].is_dir():
        top = children[0]
    makefile = top / "Makefile"
    if not makefile.is_file():
        raise UserError(f"{what}: not a kernel tree: no Makefile at its top")
    version = kernel_version(makefile.read_text(encoding="utf-8", errors="replace"))
    if version is None:
        raise UserError(f"{what}: not a kernel tree: its Makefile has no VERSION")
    return top, version


def _ensure(
    entries: SourceCache,
    identity: tuple[str, str, str],
    space: int,
    fill: Callable[[Path], tuple[Path, str]],
    progress: Progress,
) -> SourceTree:
    """The cached tree, unpacked first when it is missing or damaged. identity: kind, id, origin."""
    kind, ident, origin = identity
    entry = entries.entry(kind, ident)
    with entries.lock(entry.name):
        tree = _cached(entries, kind, ident, progress)
        if tree is None:
            check_space(entries.root, space, origin)
            return _tree(entries.make(kind, ident, origin, fill), entry)
        # another tree, ref or file may have brought the same content into the cache
        return replace(tree, origin=origin)


def _cached(entries: SourceCache, kind: str, ident: str, progress: Progress) -> SourceTree | None:
    """The entry when it is whole; says so when there is a damaged one."""
    entry = entries.entry(kind, ident)
    if not entry.exists():
        return None
    manifest = load_manifest(entry)
    damage = "no manifest"
    if manifest is not None:
        damage = (
            altered(entry, manifest, entries.thorough) if manifest.id == ident else "another id"
        )
    if manifest is None or damage:
        progress.say(f"note: {entry} is damaged ({damage}): making it again")
        return None
    return _tree(manifest, entry)


def _tree(manifest: Manifest, entry: Path) -> SourceTree:
    return SourceTree(
        manifest.kind, manifest.version, manifest.id, entry / "linux", manifest.origin
    )


def _load_seen(path: Path) -> _Seen | None:
    try:
        return _Seen(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write_seen(path: Path, seen: _Seen) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(asdict(seen)), encoding="utf-8")
        scratch.replace(path)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise full(str(path)) if is_full(exc) else StorageError(f"{path}: {exc}") from exc
