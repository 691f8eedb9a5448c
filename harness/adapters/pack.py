# SPDX-License-Identifier: GPL-2.0-only
"""Deterministic tar.gz archives: same files, same bytes."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Collection
from pathlib import Path


def pack(directory: Path, archive: Path, leave_out: frozenset[str] = frozenset()) -> int:
    """Write the content of `directory` (may be missing: empty archive); the number of entries.

    Sorted, owner root, time 0; file modes and links are kept. leave_out: names left out anywhere.
    """
    count = 0
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for where, directories, names in os.walk(directory):
            directories.sort()
            for name in sorted((*directories, *names)):
                path = Path(where) / name
                if name in leave_out:
                    continue
                entry = tar.gettarinfo(str(path), path.relative_to(directory).as_posix())
                entry.uid = entry.gid = entry.mtime = 0
                entry.uname = entry.gname = "root"
                if entry.islnk():  # a second name of a packed file: kept as a file of its own
                    entry.type, entry.linkname = tarfile.REGTYPE, ""
                    entry.size = path.stat().st_size
                if entry.isreg():
                    with path.open("rb") as stream:
                        tar.addfile(entry, stream)
                else:
                    tar.addfile(entry)
                count += 1
            directories[:] = [d for d in directories if d not in leave_out]
    return count


def moved(archive: Path, directory: str, leave_out: Collection[str]) -> bytes:
    """A tar.gz of what is in a tar.gz, below `directory`; packed in haste.

    leave_out: entries left out, by their names in `archive`.
    """
    buffer = io.BytesIO()
    with (
        tarfile.open(archive, "r:gz") as source,
        tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as target,
    ):
        for entry in source:
            if entry.name not in leave_out:
                data = source.extractfile(entry) if entry.isreg() else None
                entry.name = f"{directory}/{entry.name}"
                entry.pax_headers = {}  # which would hold the old name, if it is a long one
                target.addfile(entry, data)
    return buffer.getvalue()
