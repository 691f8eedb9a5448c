# SPDX-License-Identifier: GPL-2.0-only
"""Files to and from a machine over its SSH connection, verified by SHA-256.

`cat` over an exec channel, not SFTP: one request instead of one per block.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import zlib
from pathlib import Path

from harness.adapters.ssh import SshConnection
from harness.adapters.ssh_exec import Readable
from harness.errors import MachineError
from harness.model.machine import ExecResult

_MAX_READ_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
# below this rate a transfer counts as stuck
_SLOWEST_BYTES_PER_S = 100_000
_LEAST_S = 60.0
_USE_S = 300.0
_BAD_SUM = 91
_NOT_USED = 92
ARCHIVE = "/var/tmp/tdisp-upload.tar.gz"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(
    ssh: SshConnection,
    local: Path,
    remote: str,
    *,
    sha256: str = "",
    compress: bool = False,
    use: str = "",
) -> None:
    """Upload a file. It appears under `remote` complete and verified, or not at all.

    sha256: of the file when already known. compress: gzip on the way, holes kept (disk images).
    use: see put().
    """
    size = local.stat().st_size
    with local.open("rb") as file:
        source: Readable = _Deflated(file) if compress else file
        size_and_sum = (size, sha256 or sha256_of(local))
        put(ssh, source, remote, size_and_sum, compress=compress, use=use)


def write(ssh: SshConnection, remote: str, data: bytes, *, use: str = "") -> None:
    """Write a small file, like `upload`."""
    put(ssh, io.BytesIO(data), remote, (len(data), hashlib.sha256(data).hexdigest()), use=use)


def unpack(
    ssh: SshConnection, archive: Path | bytes, directory: str, *, replaced: str = ""
) -> None:
    """Upload a .tar.gz and unpack it into a directory of the machine, in one command.

    archive: one, or several one after the other. Nothing is unpacked before all was verified. It is
    added to the directory, through symbolic links to directories. replaced: a directory that is
    removed just before that.
    """
    before = f"rm -rf -- {shlex.quote(replaced)} && " if replaced else ""
    how = "--ignore-zeros --no-same-owner --keep-directory-symlink"
    use = f'{before}tar {how} -C {shlex.quote(directory)} -xzf "$part"'
    if isinstance(archive, bytes):
        write(ssh, ARCHIVE, archive, use=use)
    else:
        upload(ssh, archive, ARCHIVE, use=use)


def read(ssh: SshConnection, remote: str) -> bytes:
    """The content of a file of at most 64 MiB."""
    result = ssh.run(
        ["cat", "--", remote],
        timeout_s=_limit_s(_MAX_READ_BYTES),
        max_output_bytes=2 * _MAX_READ_BYTES,
    )
    if result.exit_status != 0:
        raise MachineError(f"{ssh.name}: cannot read {remote}: {describe(result)}")
    return result.stdout


def put(
    ssh: SshConnection,
    source: Readable,
    remote: str,
    size_and_sum: tuple[int, str],
    *,
    compress: bool = False,
    use: str = "",
) -> None:
    """Write a stream of known size and SHA-256 to a file of the machine.

    use: a shell command for what is to be done with the file, "$part", instead of giving it its
    name; it is gone afterwards.

    Few programs are started for it, and busybox where there is one: under nested emulation each
    program costs a tenth of a second, and sha256sum loads a library of 5 MB.
    """
    size, checksum = size_and_sum
    receive = 'gunzip | dd of="$part" bs=1M conv=sparse iflag=fullblock 2>/dev/null'
    command = f"""
set -e; target={shlex.quote(remote)}
directory=${{target%/*}}/
[ -d "$directory" ] || mkdir -p -- "$directory"
part=$target.part.$$
trap '[ ! -e "$part" ] || rm -f -- "$part"' EXIT
{receive if compress else 'cat > "$part"'}
sum=$({{ busybox sha256sum || sha256sum; }} < "$part" 2> /dev/null)
[ "${{sum%% *}}" = {checksum} ] || exit {_BAD_SUM}
{f"{{ {use}; }} || exit {_NOT_USED}" if use else 'mv -f -- "$part" "$target"'}
"""
    limit_s = _limit_s(size) + (_USE_S if use else 0.0)
    result = ssh.run(command, timeout_s=limit_s, stdin=source)
    if result.exit_status == _BAD_SUM:
        raise MachineError(f"{ssh.name}: upload of {remote}: checksum differs after the transfer")
    if result.exit_status == _NOT_USED:
        raise MachineError(f"{ssh.name}: {remote} is there, but not unpacked: {describe(result)}")
    if result.exit_status != 0:
        raise MachineError(f"{ssh.name}: upload of {remote} failed: {describe(result)}")


def describe(result: ExecResult) -> str:
    """Why a command failed, in a phrase."""
    if result.lost:
        return "the connection was lost"
    if result.timed_out:
        return f"no end after {result.duration_s:.0f} s"
    said = result.stderr.decode(errors="replace").strip().splitlines()[-3:]
    return f"exit status {result.exit_status}" + "".join(f"\n  {line}" for line in said)


def _limit_s(size_bytes: int) -> float:
    return _LEAST_S + size_bytes / _SLOWEST_BYTES_PER_S


class _Deflated:
    """A file as a gzip stream."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        # level 1: disk images are mostly holes; wbits 31: gzip
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._ended = False

    def read(self, size: int, /) -> bytes:
        del size  # any amount will do
        while not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            out = self._deflate.compress(block) if block else self._deflate.flush()
            if out:
                return out
        return b""
