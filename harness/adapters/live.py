# SPDX-License-Identifier: GPL-2.0-only
"""Live records: what a run would leave behind if it were killed.

Each run holds a lock on `<cache>/live/<run>.lock` and lists its children and temporary paths in
`<run>.json`. A later run that obtains such a lock knows that the owner is dead, and ends what is
listed. A process is identified by pid *and* start time, so that a reused pid is never hit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from harness.errors import StorageError


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a dead run left and that was removed."""

    run: str
    what: str


def _start_time(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


class LiveRecord:
    """This run's record. Every change is on disk before the call returns."""

    def __init__(self, cache: Path, run: str) -> None:
        self._directory = cache / "live"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file = self._directory / f"{run}.json"
        self._lock = FileLock(self._directory / f"{run}.lock", timeout=0)
        self._processes: dict[int, float] = {}
        self._paths: list[str] = []
        self._guard = threading.Lock()
        self._lock.acquire()
        self._save()

    def add_process(self, pid: int) -> None:
        start = _start_time(pid)
        if start is not None:
            with self._guard:
                self._processes[pid] = start
                self._save()

    def remove_process(self, pid: int) -> None:
        """Never raises: a process that ended does no harm in the record."""
        with self._guard, contextlib.suppress(StorageError):
            if self._processes.pop(pid, None) is not None:
                self._save()

    def add_path(self, path: Path) -> None:
        """A temporary file or directory of this run."""
        with self._guard:
            self._paths.append(str(path))
            self._save()

    def close(self) -> None:
        """Remove the temporary paths and the record itself. Idempotent."""
        with self._guard:
            for path in self._paths:
                _remove(Path(path))
            for file in (self._file, self._file.with_suffix(".tmp")):  # the latter on a full disk
                file.unlink(missing_ok=True)
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _save(self) -> None:
        text = json.dumps({"processes": list(self._processes.items()), "paths": self._paths})
        temporary = self._file.with_suffix(".tmp")
        try:
            temporary.write_text(text)
            temporary.replace(self._file)
        except OSError as exc:
            raise StorageError(f"{self._file}: {exc.strerror}", hint="free some space") from exc


def sweep(cache: Path) -> tuple[Leftover, ...]:
    """End the processes and remove the paths of runs that are dead."""
    found: list[Leftover] = []
    for record in sorted((cache / "live").glob("*.json")):
        lock = FileLock(record.with_suffix(".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            found += _clear(record)
        finally:
            record.unlink(missing_ok=True)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
    return tuple(found)


def _clear(record: Path) -> list[Leftover]:
    try:
        data = json.loads(record.read_text())
        processes = [(int(pid), float(start)) for pid, start in data["processes"]]
        paths = [Path(path) for path in data["paths"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # written half by a full disk: nothing to go by
    found = []
    for pid, start in processes:
        current = _start_time(pid)
        if current is not None and abs(current - start) < 0.05:
            found.append(Leftover(record.stem, f"process {pid}"))
            end_group(pid)
    for path in paths:
        if path.exists() or path.is_symlink():
            found.append(Leftover(record.stem, str(path)))
            _remove(path)
    return found


def end_group(pid: int) -> None:
    """SIGTERM to the process group that `pid` leads, SIGKILL after a second."""
    for signum, wait_s in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.5)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)
        deadline = time.monotonic() + wait_s
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.02)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
