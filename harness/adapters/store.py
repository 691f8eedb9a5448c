# SPDX-License-Identifier: GPL-2.0-only
"""The artifact store: `<root>/<kind>/<key>/` holds the files of one result and manifest.json.

An entry appears whole, by a rename, and is checked whenever it is taken out: sizes always, SHA-256
once per file identity (size, mtime, inode). One that was altered or cut short is removed, with a
note, and made again. Several processes may use a store at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.adapters.process import TABLE, Interrupted
from harness.errors import StorageError

MANIFEST = "manifest.json"
_VERIFIED = "verified.json"  # not in the manifest: what was hashed, and by its mtime the last use
_OWN = (MANIFEST, _VERIFIED)
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_STALE_DRAFT_S = 24 * 3600
_POLL_S = 0.3


@dataclass(slots=True)
class Draft:
    """An entry being made: put files into `directory`; `metadata` must be JSON."""

    directory: Path
    metadata: dict[str, Any] = field(default_factory=dict)


class ArtifactStore:
    """Entries by kind and key. on_note receives one line for each entry removed as unusable."""

    def __init__(self, root: Path, on_note: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._on_note = on_note
        with _storage(root):
            for name in (".locks", ".drafts"):
                (root / name).mkdir(parents=True, exist_ok=True)

    def get(self, kind: str, key: str) -> Path | None:
        """The directory of a whole entry, None when there is none (any more)."""
        path = self._path(kind, key)
        if not path.is_dir():
            return None
        with _storage(path), self._changing():
            if not path.is_dir():
                return None
            damage = _damage(path)
            if damage:
                self._remove(path)
        if not damage:
            return path
        if self._on_note is not None:
            self._on_note(f"{kind}/{key[:16]}: removed from the store: {damage}")
        return None

    def metadata(self, kind: str, key: str) -> Mapping[str, Any]:
        """The metadata of an entry; empty when there is none."""
        manifest = _manifest(self._path(kind, key))
        return manifest["metadata"] if manifest is not None else {}

    def newest(self, kind: str, matches: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """Metadata of the newest entry of a kind for which `matches`; empty when there is none."""
        found: list[tuple[float, Mapping[str, Any]]] = []
        for path in (self.root / kind).glob("*"):
            manifest = _manifest(path)
            if manifest is not None and matches(manifest["metadata"]):
                found.append((manifest["created"], manifest["metadata"]))
        return max(found, key=lambda one: one[0])[1] if found else {}

    @contextlib.contextmanager
    def put(self, kind: str, key: str) -> Iterator[Draft]:
        """Make an entry. It appears when the block ends, and not at all when it raises.

        An entry that came to be in the meantime stays; StorageError when the disk is full.
        """
        path = self._path(kind, key)
        draft = Draft(self.root / ".drafts" / f"{kind}-{secrets.token_hex(8)}")
        try:
            with _storage(self.root):
                draft.directory.mkdir()
                yield draft
                _seal(draft, kind, key)
                path.parent.mkdir(exist_ok=True)
                with self._changing():
                    if path.is_dir() and _damage(path):
                        self._remove(path)
                    if not path.is_dir():
                        draft.directory.rename(path)
                        _sync(path.parent)
        finally:
            shutil.rmtree(draft.directory, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Held by the one that makes an entry, so that another waits instead of making it too."""
        self._path(kind, key)
        lock = FileLock(self.root / ".locks" / f"{kind}-{key}.lock")
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                break
            except Timeout as exc:
                if TABLE.stopping.is_set():
                    raise Interrupted from exc
        try:
            yield
        finally:
            lock.release()

    def remove(self, kind: str, key: str) -> None:
        """Drop an entry, if there is one."""
        path = self._path(kind, key)
        with _storage(path), self._changing():
            if path.is_dir():
                self._remove(path)

    def size_bytes(self) -> int:
        """Of all entries."""
        return sum(_size(path) for path in self._entries())

    def prunable(self, max_bytes: int, keep_s: float = 3600.0) -> list[tuple[Path, int]]:
        """What prune() would remove: directories and their bytes, the longest unused first."""
        now = time.time()
        sizes = {path: _size(path) for path in self._entries()}
        excess = sum(sizes.values()) - max_bytes
        found: list[tuple[Path, int]] = []
        for path in sorted(sizes, key=_last_use):
            if excess <= 0:
                break
            if now - _last_use(path) >= keep_s:
                found.append((path, sizes[path]))
                excess -= sizes[path]
        return found

    def prune(self, max_bytes: int, keep_s: float = 3600.0) -> int:
        """Remove entries, the longest unused first, until `max_bytes` are left; bytes removed.

        An entry used within the last `keep_s` seconds stays: a run may be holding its path.
        """
        with _storage(self.root), self._changing():
            for draft in (self.root / ".drafts").iterdir():
                if time.time() - draft.lstat().st_mtime > _STALE_DRAFT_S:
                    shutil.rmtree(draft, ignore_errors=True)
            doomed = self.prunable(max_bytes, keep_s)
            for path, _ in doomed:
                self._remove(path)
        return sum(size for _, size in doomed)

    def _entries(self) -> list[Path]:
        return [path for path in self.root.glob("[!.]*/*") if path.is_dir()]

    def _path(self, kind: str, key: str) -> Path:
        if not _NAME.fullmatch(kind) or not _NAME.fullmatch(key):
            raise ValueError(f"{kind!r}/{key!r} cannot name a store entry")
        return self.root / kind / key

    def _changing(self) -> FileLock:
        """Short: held while an entry is checked, renamed or removed."""
        return FileLock(self.root / ".locks" / "store.lock")

    def _remove(self, path: Path) -> None:
        """Out of sight first, so that nobody sees half an entry."""
        doomed = self.root / ".drafts" / f"doomed-{secrets.token_hex(8)}"
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _seal(draft: Draft, kind: str, key: str) -> None:
    """Write the manifest; everything is on the disk before the entry gets its name."""
    files: dict[str, Any] = {}
    verified: dict[str, Any] = {}
    for file in sorted(draft.directory.iterdir()):
        if not file.is_file() or file.is_symlink() or file.name in _OWN:
            raise ValueError(f"{file.name}: a store entry holds plain files only")
        files[file.name] = {"size": file.stat().st_size, "sha256": _sha256(file)}
        verified[file.name] = _identity(file)
        _sync(file)
    body = {
        "format": _FORMAT,
        "kind": kind,
        "key": key,
        "created": time.time(),
        "metadata": draft.metadata,
        "files": files,
    }
    for name, content in ((MANIFEST, body), (_VERIFIED, verified)):
        (draft.directory / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
        _sync(draft.directory / name)
    _sync(draft.directory)


def _damage(path: Path) -> str:
    """What is wrong with an entry, "" when nothing is. Notes the use."""
    manifest = _manifest(path)
    if manifest is None:
        return f"{MANIFEST} is missing or unreadable"
    verified = _load(path / _VERIFIED)
    seen: dict[str, Any] = {}
    for name, expected in manifest["files"].items():
        file = path / name
        try:
            seen[name] = _identity(file)
        except FileNotFoundError:
            return f"{name} is missing"
        if seen[name][0] != expected["size"]:
            return f"{name} has {seen[name][0]} bytes instead of {expected['size']}"
        if verified.get(name) != seen[name] and _sha256(file) != expected["sha256"]:
            return f"{name} was altered"
    with contextlib.suppress(OSError):  # a memory only: a read-only store hashes each time
        if seen != verified:
            scratch = path / f".{_VERIFIED}"
            scratch.write_text(json.dumps(seen), encoding="utf-8")
            scratch.replace(path / _VERIFIED)
        os.utime(path / _VERIFIED)
    return ""


def _manifest(path: Path) -> dict[str, Any] | None:
    raw = _load(path / MANIFEST)
    whole = raw.get("format") == _FORMAT and isinstance(raw.get("files"), dict)
    return raw if whole and isinstance(raw.get("metadata"), dict) else None


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _identity(file: Path) -> list[int]:
    status = file.lstat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _last_use(path: Path) -> float:
    try:
        return (path / _VERIFIED).lstat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    """0 for an entry that another process has just removed."""
    try:
        return sum(file.lstat().st_size for file in entry.iterdir())
    except OSError:
        return 0


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _storage(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{where}: no space left",
                hint="free some space, or move the cache with XDG_CACHE_HOME",
            ) from exc
        raise StorageError(f"{exc.filename or where}: {exc.strerror or exc}") from exc
