# SPDX-License-Identifier: GPL-2.0-only
"""The controller's own network: its routes, and free ports."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network

from pyroute2 import IPRoute


def ipv4_routes() -> tuple[IPv4Network, ...]:
    """All IPv4 destinations that the controller has a route to, the default route included."""
    routes = []
    with IPRoute() as netlink:
        for route in netlink.get_routes(family=socket.AF_INET):
            address = route.get_attr("RTA_DST") or "0.0.0.0"
            routes.append(IPv4Network((address, route["dst_len"])))
    return tuple(routes)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now. Somebody may take it before QEMU does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
