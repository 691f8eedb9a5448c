# SPDX-License-Identifier: GPL-2.0-only
"""The controller's own network: its routes, and free ports."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

from harness.adapters import process
from harness.core.user_net import parse_ip_route


def ipv4_routes() -> tuple[IPv4Network, ...]:
    """All IPv4 destinations that the controller has a route to, in any table."""
    argv = ["ip", "-json", "-4", "route", "show", "table", "all"]
    return parse_ip_route(process.run(argv, timeout_s=30, what="ip route").out)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now. Somebody may take it before QEMU does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
