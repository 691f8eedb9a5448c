# SPDX-License-Identifier: GPL-2.0-only
"""Reaching machines by hand while a run keeps them up: its key, and OpenSSH's command line."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.adapters.ssh import SshEndpoint
from harness.adapters.ssh_keys import SshKey


def write_key(run_dir: Path, key: SshKey) -> Path:
    """The private key of a run, in its directory while machines are up."""
    path = run_dir / "id_ed25519"
    path.touch(0o600)
    path.write_bytes(key.private)
    return path


def ssh_argv(endpoint: SshEndpoint, known_hosts: Path) -> list[str]:
    """The OpenSSH command for an endpoint; writes its host key, pinned, to `known_hosts`.

    The name to check against is an alias: loopback ports are no identity.
    """
    alias = known_hosts.name
    known_hosts.write_text(f"{alias} {endpoint.host_key}\n")
    argv = ["ssh", "-i", str(endpoint.key), "-p", str(endpoint.port)]
    for option in (
        f"UserKnownHostsFile={known_hosts}",
        f"HostKeyAlias={alias}",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
    ):
        argv += ["-o", option]
    if endpoint.via is not None:
        inner = ssh_argv(endpoint.via.endpoint, known_hosts.with_name(f"{alias}-via"))
        target = f"{endpoint.host}:{endpoint.port}"
        argv += ["-o", f"ProxyCommand={shlex.join([*inner, '-W', target])}"]
    return [*argv, f"{endpoint.user}@{endpoint.host}"]
