# SPDX-License-Identifier: GPL-2.0-only
"""Command lines around the platform: its own, and what QEMU needs to have its functions.

The security processor comes first on the bus, so that a guest kernel finds it before the TDIs. The
TDIs are the functions of one device, as hardware has them: function 0 is the PF0 of the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from harness.model.platform import ALL_ONES, PlatformCell

GUEST_PORT, HOST_PORT = "tsm-guest", "tsm-host"
_PORTS = ("tsm-rp", "tdi-rp")
_HOST_ROOT_PORT = "host-rp"
# apart from those of the empty root ports
_CHASSIS = 200
# where firmware puts them behind the second of these ports, until the guest's LOCK says it better
_TDI_BUS = "02:00"


def platform_argv(cell: PlatformCell, socket_dir: PurePath, log: PurePath) -> list[str]:
    """The options of `tdisp-harness platform` for a cell (docs/platform.md)."""
    argv = ["--socket-dir", str(socket_dir), "--log", str(log), "--model", cell.model]
    argv += ["--vtom", "all-ones" if cell.vtom == ALL_ONES else hex(cell.vtom)]
    argv += ["--locked-t0", cell.locked_t0, "--bme-clear", cell.bme_clear]
    argv += ["--c-bit", str(cell.c_bit)]
    for number in range(cell.tdis):
        argv += ["--tdi", f"{_TDI_BUS}.{number}"]
    return argv + ["--no-autobind"] * cell.by_host


def sockets(cell: PlatformCell) -> tuple[str, ...]:
    """The functions that the guest gets, by the names of their sockets, in bus order."""
    return (GUEST_PORT, *(f"tdi{number}" for number in range(cell.tdis)))


def root_ports(ports: Sequence[str] = _PORTS) -> list[str]:
    """The QEMU arguments of root ports, by default the two of a guest."""
    argv: list[str] = []
    for number, port in enumerate(ports):
        place = f"chassis={_CHASSIS + number},slot={_CHASSIS + number}"
        argv += ["-device", f"pcie-root-port,id={port},{place}"]
    return argv


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function sits in its VM. name: of its socket; addr: "slot.function"."""

    name: str
    bus: str
    addr: str
    multifunction: bool


def device_places(cell: PlatformCell) -> tuple[Place, ...]:
    """The places of the functions, in bus order."""
    return tuple(
        Place(name, _PORTS[0], "0.0", multifunction=False)
        if name == GUEST_PORT
        else Place(name, _PORTS[1], f"0.{name.removeprefix('tdi')}", multifunction=cell.tdis > 1)
        for name in sockets(cell)
    )


def places(cell: PlatformCell) -> tuple[Place, ...]:
    """The places in the VM that has the platform: with the host's port, a host machine."""
    last = (Place(HOST_PORT, _HOST_ROOT_PORT, "0.0", multifunction=False),) * cell.by_host
    return device_places(cell) + last


def devices(cell: PlatformCell, socket_dir: PurePath) -> tuple[dict[str, object], ...]:
    """The functions as QEMU's -device and QMP's device_add take them, in bus order."""
    found = []
    for place in places(cell):
        device: dict[str, object] = {
            "driver": "vfio-user-pci",
            "id": f"platform-{place.name}",
            "bus": place.bus,
            "addr": place.addr,
            "rombar": 0,
            "socket": {"path": str(socket_dir / f"{place.name}.sock"), "type": "unix"},
        }
        if place.multifunction:
            device["multifunction"] = True
        found.append(device)
    return tuple(found)


def qemu_platform(cell: PlatformCell, socket_dir: PurePath) -> tuple[str, ...]:
    """The further arguments of a VM that has the platform."""
    argv = root_ports((*_PORTS, *(_HOST_ROOT_PORT,) * cell.by_host))
    for device in devices(cell, socket_dir):
        argv += ["-device", json.dumps(device, separators=(",", ":"))]
    return tuple(argv)
