# SPDX-License-Identifier: GPL-2.0-only
"""SSH keys, made new for every run and thrown away with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True, slots=True)
class SshKey:
    """An ed25519 key pair. private: OpenSSH PEM. public: "ssh-ed25519 AAAA...".

    dropbear: the private key as dropbear reads it (src/ed25519.c there): the type, and the 64 bytes
    of seed and public key, each as an SSH string.
    """

    private: bytes
    public: str
    dropbear: bytes

    def save(self, path: Path) -> Path:
        """Write the private key, readable by the owner only; the path."""
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_bytes(self.private)
        return path


def generate_key() -> SshKey:
    """A new ed25519 key."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    raw = seed + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return SshKey(private, public.decode(), _string(b"ssh-ed25519") + _string(raw))


def _string(data: bytes) -> bytes:
    """RFC 4251 section 5."""
    return len(data).to_bytes(4, "big") + data
