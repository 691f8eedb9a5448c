# SPDX-License-Identifier: GPL-2.0-only
"""A role's kernel tree: hard links to the pristine tree, plus the files that differ from it.

A changed file is written new and renamed, never through the link. A file is written only when its
content differs, so that make rebuilds only what changed. A file that returns to its pristine
content is copied, not linked: its old modification time would make make keep a stale object.

The state file beside the tree names every path that was ever written ("managed"). It is written
before a sync (status "syncing") and after it ("clean"): the next one repairs an interrupted sync.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.adapters.process import Completed, run
from harness.adapters.tarball import full, is_full
from harness.errors import StorageError, UserError

_FORMAT = 1
_EDITOR_LEFTOVERS = ("~", ".o", ".orig", ".rej", ".swp")


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it should be. mode: 0o644, 0o755, or 0o120000 for a link (data: its target)."""

    mode: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _State:
    status: str
    source: str  # which unpacking of which source the links point to
    series_hash: str
    managed: dict[str, tuple[int, int, int] | None]  # mode, size, mtime_ns; None: must not exist


class RoleTree:
    """`<directory>/linux`; the caller holds a lock on `directory`."""

    def __init__(self, directory: Path, pristine: Path, source_key: str) -> None:
        self.directory = directory
        self.path = directory / "linux"
        self._pristine = pristine
        self._source_key = source_key
        self._state_file = directory / "state.json"

    def is_current(self, series_hash: str) -> bool:
        """Whether the tree already holds exactly this series."""
        state = self._load()
        if state is None or state.status != "clean" or state.series_hash != series_hash:
            return False
        if not self.path.is_dir():
            return False
        return all(_stamp(self.path / p) == stamp for p, stamp in state.managed.items())

    def managed(self) -> frozenset[str] | None:
        """Every path that was ever written here; None without a whole tree of this source."""
        state = self._load()
        if state is None or state.status != "clean" or not self.path.is_dir():
            return None
        return frozenset(state.managed)

    def renew(self, paths: Iterable[str]) -> None:
        """Give these files the present time, as copies of their own: what was made of them is old.

        Those that do not exist are passed over. An interrupted call is repaired by the next sync.
        """
        state = self._load()
        if state is None:
            raise StorageError(f"{self.path}: no tree of this source")
        with storage(self.directory):
            contents = {path: read_content(self.path / path) for path in sorted(paths)}
            there = {path: content for path, content in contents.items() if content is not None}
            union = {**dict.fromkeys(there), **state.managed}
            self._store(_State("syncing", self._source_key, "", union))
            for path, content in there.items():
                self._write(path, content)
            stamps = {path: _stamp(self.path / path) for path in there}
            self._store(replace(state, managed={**state.managed, **stamps}))

    def ensure(self) -> bool:
        """Make the tree when it is missing or belongs to another source; True when it was made."""
        if self._load() is not None and self.path.is_dir():
            return False
        with storage(self.directory):
            self._state_file.unlink(missing_ok=True)
            for old in self.directory.glob(".tmp-*"):
                shutil.rmtree(old)
            if self.path.exists():
                doomed = self.directory / f".tmp-{secrets.token_hex(4)}"
                self.path.rename(doomed)
                shutil.rmtree(doomed)
            scratch = self.directory / f".tmp-{secrets.token_hex(4)}"
            self._copy(scratch)
            scratch.rename(self.path)
            self._store(_State("clean", self._source_key, "", {}))
        return True

    def sync(self, wanted: Mapping[str, Content | None], series_hash: str) -> tuple[str, ...]:
        """Bring the tree to pristine plus `wanted` (None: the file must not exist).

        The paths that were written or removed. A path that was managed before and is not wanted
        any more becomes pristine again.
        """
        state = self._load()
        before = state.managed if state is not None else {}
        target: dict[str, Content | None] = {
            path: read_content(self._pristine / path) for path in before if path not in wanted
        }
        target |= wanted
        with storage(self.directory):
            union = {**dict.fromkeys(target), **before}
            self._store(_State("syncing", self._source_key, "", union))
            changed = [p for p, content in target.items() if read_content(self.path / p) != content]
            # removals first: a file may become a directory, or a directory a file
            for path in changed:
                if target[path] is None:
                    self._remove(path)
            for path in changed:
                if (content := target[path]) is not None:
                    self._write(path, content)
            stamps = {path: _stamp(self.path / path) for path in target}
            self._store(_State("clean", self._source_key, series_hash, stamps))
        return tuple(sorted(changed))

    def _copy(self, scratch: Path) -> None:
        """Hard links where the file system allows them, else copies."""
        source = f"{self._pristine}/."
        done = run(("cp", "-al", source, str(scratch)), env={"LC_ALL": "C"}, check=False)
        if done.returncode != 0 and "cross-device" in done.err:
            shutil.rmtree(scratch, ignore_errors=True)
            argv = ("cp", "-a", "--reflink=auto", source, str(scratch))
            done = run(argv, env={"LC_ALL": "C"}, check=False)
        if done.returncode != 0:
            shutil.rmtree(scratch, ignore_errors=True)
            raise copy_error(done, self.directory)

    def _write(self, path: str, content: Content) -> None:
        target = self.path / path
        self._make_parents(path)
        scratch = target.with_name(f".{secrets.token_hex(6)}.tmp")
        try:
            if content.mode == 0o120000:
                scratch.symlink_to(os.fsdecode(content.data))
            else:
                scratch.write_bytes(content.data)
                scratch.chmod(content.mode)
            if target.is_dir() and not target.is_symlink():
                _remove_empty(target)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)

    def _make_parents(self, path: str) -> None:
        """Directories above a path; UserError when one is a link or a file."""
        at = self.path
        for part in path.split("/")[:-1]:
            at = at / part
            if at.is_symlink() or (at.exists() and not at.is_dir()):
                raise UserError(f"{path}: {at.relative_to(self.path)} is not a directory")
            if not at.exists():
                at.mkdir()

    def _remove(self, path: str) -> None:
        target = self.path / path
        target.unlink(missing_ok=True)
        parent = target.parent
        while parent != self.path and not (self._pristine / parent.relative_to(self.path)).is_dir():
            try:
                parent.rmdir()
            except OSError:
                return
            parent = parent.parent

    def _load(self) -> _State | None:
        """The state when it fits this source and can be read."""
        try:
            raw = json.loads(self._state_file.read_text(encoding="utf-8"))
            if raw["format"] != _FORMAT or raw["source"] != self._source_key:
                return None
            managed = {
                os.fsdecode(path.encode("utf-8", "surrogateescape")): (
                    None if stamp is None else (int(stamp[0]), int(stamp[1]), int(stamp[2]))
                )
                for path, stamp in raw["managed"].items()
            }
            return _State(str(raw["status"]), raw["source"], str(raw["series_hash"]), managed)
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return None

    def _store(self, state: _State) -> None:
        body = {
            "format": _FORMAT,
            "status": state.status,
            "source": state.source,
            "series_hash": state.series_hash,
            "managed": state.managed,
        }
        scratch = self._state_file.with_name(".state.json.tmp")
        scratch.write_text(json.dumps(body, indent=1), encoding="utf-8")
        scratch.replace(self._state_file)


def read_content(path: Path) -> Content | None:
    """A file or link as it is on disk, None when there is none (or a directory)."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return Content(0o120000, os.fsencode(path.readlink()))
        if not stat.S_ISREG(status.st_mode):
            return None
        return Content(0o755 if status.st_mode & 0o100 else 0o644, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def overlay_files(source: Path, dest: str) -> dict[str, Content]:
    """The files of an overlay directory by their path in the kernel tree.

    Editors' leftovers and objects stay out. UserError when there is no such directory.
    """
    if not source.is_dir():
        raise UserError(f"overlay {source}: no such directory")
    found: dict[str, Content] = {}
    for directory, names, files in os.walk(source):
        names[:] = sorted(n for n in names if n not in ("__pycache__", ".git"))
        links = [n for n in names if (Path(directory) / n).is_symlink()]
        for name in (*sorted(files), *links):
            content = read_content(Path(directory) / name)
            if content is not None and not name.endswith(_EDITOR_LEFTOVERS):
                inside = (Path(directory) / name).relative_to(source).as_posix()
                found[f"{dest.strip('/')}/{inside}"] = content
    return found


def _remove_empty(directory: Path) -> None:
    """Remove a directory that the removals left without files; OSError when one is in it."""
    for below, _, _ in os.walk(directory, topdown=False):
        Path(below).rmdir()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mode, status.st_size, status.st_mtime_ns


def copy_error(done: Completed, where: Path) -> StorageError:
    """What became of a `cp` that failed."""
    if "No space left" in done.err:
        return full(str(where))
    return StorageError(f"{where}: {(done.err.strip().splitlines() or ['cp failed'])[-1]}")


@contextlib.contextmanager
def storage(where: Path) -> Iterator[None]:
    """StorageError, which names `where`, for an OSError inside."""
    try:
        yield
    except OSError as exc:
        raise full(str(where)) if is_full(exc) else StorageError(f"{where}: {exc}") from exc
