# SPDX-License-Identifier: GPL-2.0-only
"""Unpacking archives with GNU tar: hostile members are refused, a full disk is told apart."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.adapters.process import TABLE, Interrupted, run
from harness.errors import InfraError, StorageError, UserError

_DECOMPRESS = {
    ".tar": (),
    ".tar.xz": ("-I", "xz -T0"),
    ".txz": ("-I", "xz -T0"),
    ".tar.gz": ("-z",),
    ".tgz": ("-z",),
    ".tar.zst": ("-I", "zstd"),
}
SUFFIXES = tuple(_DECOMPRESS)
_ENV = {"LC_ALL": "C"}
_FULL = "No space left on device"
# what GNU tar says about members that lead out of the directory
_HOSTILE = ("Member name contains '..'", "Removing leading `", "Skipping to next header: ..")
_EXTRACT = ("--extract", "--no-same-owner", "--no-same-permissions", "--delay-directory-restore")


def unpack(archive: Path, into: Path) -> None:
    """Unpack into an empty directory.

    UserError: unknown suffix, broken archive, a member or link that leads out of the directory.
    StorageError: the disk is full.
    """
    options = next((o for s, o in _DECOMPRESS.items() if archive.name.endswith(s)), None)
    if options is None:
        raise UserError(f"{archive}: not an archive", hint=f"known are {', '.join(SUFFIXES)}")
    argv = ("tar", *_EXTRACT, "-C", str(into), *options, "-f", str(archive))
    done = run(argv, env=_ENV, check=False)
    _judge(done.err, done.returncode, f"{archive}", shlex.join(argv))
    refuse_outward_links(into, str(archive))


def unpack_from(producer: Sequence[str], into: Path, what: str) -> None:
    """Unpack the tar that a command writes to its standard output, without a file between."""
    argv = ("tar", *_EXTRACT, "-C", str(into), "-f", "-")
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as said, os.fdopen(read_end, "rb") as reader:
        with os.fdopen(write_end, "wb") as writer:
            source = TABLE.start(producer, env=_ENV, stdout=writer, stderr=said)
        try:
            sink = TABLE.start(argv, env=_ENV, stdin=reader, stderr=said)
            try:
                reader.close()
                sink_code = sink.popen.wait()
                source_code = source.popen.wait()
            finally:
                sink.end()
        finally:
            source.end()
        said.seek(0)
        text = said.read().decode(errors="replace")
    if TABLE.stopping.is_set():
        raise Interrupted
    command = f"{shlex.join(producer)} | {shlex.join(argv)}"
    if sink_code == 0 and source_code != 0:
        raise InfraError(f"{what}: exit status {source_code}\n  {text.strip()}", command=command)
    _judge(text, sink_code, what, command)


def _judge(said: str, returncode: int, what: str, command: str) -> None:
    if _FULL in said:
        raise full(what)
    hostile = [line for line in said.splitlines() if any(mark in line for mark in _HOSTILE)]
    if hostile:
        raise UserError(f"{what}: a member leads out of the archive: {hostile[0]}")
    if returncode != 0:
        lines = "".join(f"\n  {line}" for line in said.strip().splitlines()[-5:])
        raise UserError(f"{what}: cannot be unpacked{lines}", command=command)


def full(what: str) -> StorageError:
    """The error for a disk that ran full."""
    return StorageError(
        f"{what}: no space left on the disk",
        hint="free some space, or move the cache elsewhere (XDG_CACHE_HOME)",
        command="df -h",
    )


def is_full(exc: OSError) -> bool:
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def refuse_outward_links(root: Path, what: str) -> None:
    """UserError when a symbolic link below `root` points outside of it."""
    top = os.path.realpath(root)
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)  # noqa: PTH118  (90,000 times: Path is slow)
            if not os.path.islink(path):  # noqa: PTH114
                continue
            target = os.path.normpath(os.path.join(os.path.realpath(directory), os.readlink(path)))  # noqa: PTH115, PTH118
            if target != top and not target.startswith(top + os.sep):
                raise UserError(f"{what}: the link {Path(path).relative_to(root)} leads outside")


def check_space(directory: Path, need_bytes: int, what: str) -> None:
    """StorageError when the disk that holds `directory` has less than `need_bytes` free."""
    free = shutil.disk_usage(directory).free
    if free < need_bytes:
        raise StorageError(
            f"{what}: needs {need_bytes / 1e9:.1f} GB, {directory} has {free / 1e9:.1f} GB free",
            hint="free some space, or move the cache elsewhere (XDG_CACHE_HOME)",
            command=f"df -h {shlex.quote(str(directory))}",
        )
