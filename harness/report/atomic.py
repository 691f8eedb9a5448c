# SPDX-License-Identifier: GPL-2.0-only
"""Replace a report file in one step, so that no reader ever sees half of one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from harness.errors import StorageError


def write_bytes(path: Path, data: bytes, *, executable: bool = False, sync: bool = True) -> None:
    """Write `data` beside `path`, sync it, rename it over `path`, sync the directory.

    sync=False: for files that are written often; a kill of this process loses nothing, a power cut
    may lose the last of them.
    On any error the old file stays as it was and no temporary file remains.
    Raises StorageError (disk full, no permission, no such directory).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    mode = 0o777 if executable else 0o666  # less the umask
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            _sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot write: {error.strerror or error}",
            hint="check the free space and the permissions of the run directory",
        ) from error


def write_text(path: Path, text: str, *, executable: bool = False, sync: bool = True) -> None:
    """write_bytes() of UTF-8; characters that UTF-8 cannot hold become U+FFFD or '?'."""
    data = text.encode("utf-8", errors="replace")
    write_bytes(path, data, executable=executable, sync=sync)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
