# SPDX-License-Identifier: GPL-2.0-only
"""The seed: what a machine's init script (configs/rootfs/init.sh) needs to know, as a raw tar."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

from harness.core.user_net import UserNet

_SECTOR_BYTES = 512
DIRECTORY = "run/tdisp"

# Below tmpfs and devtmpfs, hence made at each boot. What udev would link: run_kselftest.sh writes
# the output of its tests to /dev/stdout
_DIRECTORIES = ("run/lock", DIRECTORY, "dev/pts", "dev/shm", "dev/hugepages")
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
}


@dataclass(frozen=True, slots=True)
class Seed:
    """host_key: private key as dropbear reads it. authorized: public key lines."""

    hostname: str
    host_key: bytes
    authorized: tuple[str, ...]
    network: UserNet


def seed_archive(seed: Seed) -> bytes:
    """The archive that goes on the disk with the serial "seed", relative to /; whole sectors."""
    net = seed.network
    network = f"address={net.guest} netmask={net.netmask} gateway={net.gateway}\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _DIRECTORIES:
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        authorized = "".join(f"{line}\n" for line in seed.authorized)
        _file(archive, f"{DIRECTORY}/ssh_host_key", seed.host_key)
        _file(archive, f"{DIRECTORY}/authorized_keys", authorized.encode())
        _file(archive, f"{DIRECTORY}/hostname", f"{seed.hostname}\n".encode())
        _file(archive, f"{DIRECTORY}/network", network.encode())
    data = buffer.getvalue()
    return data + bytes(-len(data) % _SECTOR_BYTES)


def _file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o600, len(data)
    archive.addfile(info, io.BytesIO(data))
