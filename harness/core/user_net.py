# SPDX-License-Identifier: GPL-2.0-only
"""Choice of an address range for QEMU's user-mode network.

QEMU's default range (10.0.2.0/24) is also used on real networks, and by every nested level: a guest
whose range equals one of its host's routes cannot be told apart from that network. So the range is
chosen free of all routes of the machine that runs QEMU, and of the ranges taken further out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from harness.errors import InfraError

# private ranges (RFC 1918), the least used corners first
_POOLS = (IPv4Network("10.201.0.0/16"), IPv4Network("172.29.0.0/16"), IPv4Network("192.168.0.0/16"))


@dataclass(frozen=True, slots=True)
class UserNet:
    """A /24 for one VM: QEMU answers at .2, the guest is .15."""

    network: IPv4Network

    @property
    def gateway(self) -> str:
        return str(self.network[2])

    @property
    def guest(self) -> str:
        return str(self.network[15])

    @property
    def netmask(self) -> str:
        return str(self.network.netmask)


def choose_user_net(taken: Iterable[IPv4Network]) -> UserNet:
    """The first candidate that overlaps nothing in `taken`. The default route is no obstacle."""
    obstacles = [network for network in taken if network.prefixlen > 0]
    for candidate in _candidates():
        if not any(candidate.overlaps(network) for network in obstacles):
            return UserNet(candidate)
    raise InfraError(
        "no free private IPv4 range for the VM's network",
        hint="every /24 of 10.201/16, 172.29/16 and 192.168/16 overlaps a route (see `ip route`)",
    )


def _candidates() -> Iterator[IPv4Network]:
    for pool in _POOLS:
        yield from pool.subnets(new_prefix=24)


def parse_ip_route(text: str) -> tuple[IPv4Network, ...]:
    """The destinations in what `ip -json route` prints, the default route included."""
    found = (route["dst"] for route in json.loads(text or "[]"))
    return tuple(IPv4Network("0.0.0.0/0" if dst == "default" else dst) for dst in found)


def parse_proc_net_route(text: str) -> tuple[IPv4Network, ...]:
    """The routes in /proc/net/route (hexadecimal, host byte order of a little-endian machine)."""
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        address = int.from_bytes(bytes.fromhex(fields[1]), "little")
        mask = int.from_bytes(bytes.fromhex(fields[7]), "little")
        routes.append(IPv4Network((address & mask, mask.bit_count())))
    return tuple(routes)


def parse_listening_ports(text: str) -> frozenset[int]:
    """The ports of listening sockets (state 0A) in /proc/net/tcp or /proc/net/tcp6."""
    ports = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == "0A":
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(ports)
