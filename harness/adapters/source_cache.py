# SPDX-License-Identifier: GPL-2.0-only
"""The cache of pristine kernel trees: `<cache>/source/<kind>-<id[:16]>/linux`.

An entry appears whole (a renamed temporary directory) and carries a manifest, COMPLETE, by which
a truncated or altered one is recognised. Role trees share its files by hard links, so the files
are kept read-only.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from harness.adapters.tarball import full, is_full
from harness.errors import DamagedSourceError, StorageError

MANIFEST = "COMPLETE"
_SAMPLES = 256


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an entry holds. made: random, one per unpacking; sample: path -> [size, mtime_ns]."""

    kind: str
    version: str
    id: str
    origin: str
    made: str
    files: int
    size_bytes: int
    makefile: str  # sha256 of the top Makefile
    sample: dict[str, tuple[int, int]]


class SourceCache:
    """The entries below `<cache>/source`. Several processes may use it at once.

    thorough: look at every file of an entry that is taken out, see `altered`.
    """

    def __init__(self, cache: Path, thorough: bool = True) -> None:
        self.root = cache / "source"
        self.thorough = thorough
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"{self.root}: {exc.strerror}", hint="set XDG_CACHE_HOME") from exc

    def entry(self, kind: str, ident: str) -> Path:
        return self.root / f"{kind}-{ident[:16]}"

    def lock(self, name: str) -> FileLock:
        return FileLock(self.root / f".{name}.lock")

    def make(
        self, kind: str, ident: str, origin: str, unpack: Callable[[Path], tuple[Path, str]]
    ) -> Manifest:
        """Fill an entry (the caller holds its lock), replacing what is there.

        unpack(scratch): puts the tree somewhere below `scratch`, returns its top and version.
        """
        entry = self.entry(kind, ident)
        for old in self.root.glob(f".tmp-{entry.name}-*"):  # of a harness that was killed
            _remove(old)
        scratch = self.root / f".tmp-{entry.name}-{secrets.token_hex(4)}"
        try:
            (scratch / "unpack").mkdir(parents=True)
            top, version = unpack(scratch / "unpack")
            top.rename(scratch / "linux")
            _remove(scratch / "unpack")
            manifest = _survey(scratch / "linux", kind, ident, origin, version)
            text = json.dumps(asdict(manifest), indent=1, sort_keys=True)
            (scratch / MANIFEST).write_text(text, encoding="utf-8", errors="surrogateescape")
            if entry.exists():
                _remove(entry)
            scratch.rename(entry)
        except OSError as exc:
            if is_full(exc):
                raise full(str(entry)) from exc
            raise StorageError(f"{entry}: {exc}") from exc
        finally:
            _remove(scratch)
        return manifest


def load_manifest(entry: Path) -> Manifest | None:
    """The manifest of an entry, None when it is missing or unreadable."""
    try:
        raw = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        raw["sample"] = {path: (int(a), int(b)) for path, (a, b) in raw["sample"].items()}
        return Manifest(**raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def altered(entry: Path, manifest: Manifest, thorough: bool) -> str:
    """What differs from the manifest, "" when nothing does.

    Always: the Makefile and some 256 files' size and mtime. thorough: also the number of files.
    """
    tree = entry / "linux"
    for path, expected in manifest.sample.items():
        try:
            status = (tree / path).lstat()
        except OSError:
            return f"{path} is missing"
        if (status.st_size, status.st_mtime_ns) != expected:
            return f"{path} was changed"
    try:
        if _sha256(tree / "Makefile") != manifest.makefile:
            return "Makefile was changed"
    except OSError:
        return "Makefile is missing"
    if thorough:
        count, size_bytes = _measure(tree)
        if count != manifest.files:
            return f"{count} files instead of {manifest.files}"
        if size_bytes != manifest.size_bytes:
            return f"{size_bytes} bytes instead of {manifest.size_bytes}"
    return ""


_found_whole: set[str] = set()  # `made` of entries that this process has looked at, file by file


def require_whole(tree: Path) -> None:
    """Look at every file of an entry's tree, once per process, before something is made of it.

    DamagedSourceError when one differs. A run whose kernels are cached needs none of them.
    """
    manifest = load_manifest(tree.parent)
    if manifest is None or manifest.made in _found_whole:
        return
    damage = altered(tree.parent, manifest, thorough=True)
    if damage:
        raise DamagedSourceError(
            f"{tree.parent}: the pristine tree was altered: {damage}",
            hint="remove it; the next run makes it again",
        )
    _found_whole.add(manifest.made)


def _survey(tree: Path, kind: str, ident: str, origin: str, version: str) -> Manifest:
    """Take away write permission from all files and describe the tree."""
    paths: list[str] = []
    size_bytes = 0
    for entry in _walk(tree):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            size_bytes += status.st_size
            # read-only, and readable whatever the umask was
            os.chmod(entry.path, 0o555 if status.st_mode & 0o100 else 0o444)  # noqa: PTH101
        paths.append(entry.path)
    paths.sort()
    sample: dict[str, tuple[int, int]] = {}
    for path in paths[:: max(1, len(paths) // _SAMPLES)]:
        status = Path(path).lstat()
        sample[str(Path(path).relative_to(tree))] = (status.st_size, status.st_mtime_ns)
    return Manifest(
        kind=kind,
        version=version,
        id=ident,
        origin=origin,
        made=secrets.token_hex(8),
        files=len(paths),
        size_bytes=size_bytes,
        makefile=_sha256(tree / "Makefile"),
        sample=sample,
    )


def _measure(tree: Path) -> tuple[int, int]:
    count = size_bytes = 0
    for entry in _walk(tree):
        count += 1
        status = entry.stat(follow_symlinks=False)
        size_bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return count, size_bytes


def _walk(tree: Path) -> list[os.DirEntry[str]]:
    """Everything below `tree` that is no directory."""
    found: list[os.DirEntry[str]] = []
    pending = [str(tree)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    found.append(entry)
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
