# SPDX-License-Identifier: GPL-2.0-only
"""The seed: what a machine's init script (configs/rootfs/init.sh) needs to know, as a raw tar."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

from harness.core.user_net import UserNet

_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Seed:
    """host_key: OpenSSH private key. authorized: public key lines."""

    hostname: str
    host_key: bytes
    authorized: tuple[str, ...]
    network: UserNet


def seed_archive(seed: Seed) -> bytes:
    """The archive that goes on the disk with the serial "seed"; whole sectors."""
    network = f"address={seed.network.guest_cidr} gateway={seed.network.gateway}\n"
    members = {
        "ssh_host_ed25519_key": seed.host_key,
        "authorized_keys": "".join(f"{line}\n" for line in seed.authorized).encode(),
        "hostname": f"{seed.hostname}\n".encode(),
        "network": network.encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o600
            archive.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    return data + bytes(-len(data) % _SECTOR_BYTES)
