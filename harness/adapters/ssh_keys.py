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
    """An ed25519 key pair. private: OpenSSH PEM. public: "ssh-ed25519 AAAA..."."""

    private: bytes
    public: str

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
    return SshKey(private, public.decode())
