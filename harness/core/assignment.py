# SPDX-License-Identifier: GPL-2.0-only
"""Assigning the platform's functions to a guest of the host machine: shell, its answer, QEMU.

On the host machine they are PCI devices like any other; vfio-pci hands them on. The memory of the
guest lies on huge pages there: each mapping of its IOMMU becomes a message to the platform, and
256 MiB of small pages are 65,000 of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.core.platform_argv import device_places, root_ports
from harness.errors import MachineError
from harness.model.platform import PlatformCell

HUGE_PAGE_MIB = 2
# of the ports of the security processor and of a TDI (docs/platform.md)
_GUEST_PORT_ID, _HOST_PORT_ID, _TDI_ID = "0x0def", "0x0df0", "0x0dee"
# pt: only what vfio-pci hands on is translated, the machine's own devices stay as fast as they are
HOST_APPEND = "intel_iommu=on iommu=pt"


def bind(sysfs: str = "/sys") -> str:
    """Shell that gives the functions to vfio-pci and prints "BDF DEVICE DRIVER" for each."""
    return f"""
modprobe -bq vfio-pci 2>/dev/null
for d in {sysfs}/bus/pci/devices/*; do
  read -r vendor < "$d/vendor"; read -r device < "$d/device"
  [ "$vendor" = 0x1b36 ] || continue
  case $device in {_GUEST_PORT_ID}|{_TDI_ID}) ;; *) continue ;; esac
  echo vfio-pci > "$d/driver_override"
  driver=$(readlink "$d/driver")
  if [ -n "$driver" ] && [ "${{driver##*/}}" != vfio-pci ]; then
    echo "${{d##*/}}" > "$d/driver/unbind"
  fi
  [ -e "$d/driver" ] || echo "${{d##*/}}" > {sysfs}/bus/pci/drivers_probe
  driver=$(readlink "$d/driver")
  echo "${{d##*/}} $device ${{driver##*/}}"
done
"""


def connect(sysfs: str = "/sys") -> str:
    """Shell by which the host's kernel takes charge: it connects the TDIs to its TSM.

    Prints "tsm NAME", then "BDF CONNECTED" for each TDI. vfio-pci binds to a guest what it gets
    from then on, so this comes before bind(). What is connected stays so.
    """
    return f"""
modprobe -abq tdisp-emu-link vfio-pci 2>/dev/null
tsm=
for t in {sysfs}/class/tsm/*; do
  read -r id < "$t/device/device" && [ "$id" = {_HOST_PORT_ID} ] && tsm=${{t##*/}}
done 2>/dev/null
echo "tsm $tsm"
[ -n "$tsm" ] || exit 0
echo 1 > {sysfs}/module/vfio_pci/parameters/tsm_bind
tdis=
for d in {sysfs}/bus/pci/devices/*; do
  read -r vendor < "$d/vendor"; read -r device < "$d/device"
  [ "$vendor" = 0x1b36 ] && [ "$device" = {_TDI_ID} ] && tdis="$tdis $d"
done
for d in $tdis; do
  [ -e "$d/tsm/connect" ] || continue
  read -r have < "$d/tsm/connect"
  [ "$have" = "$tsm" ] || echo "$tsm" > "$d/tsm/connect"
done
for d in $tdis; do
  dsm=
  [ -e "$d/tsm/dsm" ] && read -r dsm < "$d/tsm/dsm"
  echo "${{d##*/}} ${{dsm:-no}}"
done
"""


def check_connected(text: str, cell: PlatformCell) -> str:
    """The TSM's name, of what connect() printed. MachineError when a TDI is not connected."""
    words = [line.split() for line in text.splitlines()]
    named = [rest for first, *rest in words if first == "tsm"]
    if named != [rest for rest in named if rest] or len(named) != 1:
        raise MachineError("host: its kernel has no TSM for the platform's host port")
    tdis = {first: rest for first, *rest in words if first != "tsm"}
    lost = sorted(address for address, dsm in tdis.items() if dsm == ["no"])
    if lost or len(tdis) != cell.tdis:
        which = ", ".join(lost) or f"{len(tdis)} of {cell.tdis} found"
        raise MachineError(f"host: TDIs that {named[0][0]} did not connect: {which}")
    return named[0][0]


@dataclass(frozen=True, slots=True)
class Functions:
    """Addresses on the host machine ("0000:04:00.0"): the guest port, and the TDIs in order."""

    guest_port: str
    tdis: tuple[str, ...]


def parse_bound(text: str, cell: PlatformCell) -> Functions:
    """What bind() printed. MachineError when a function is missing or has another driver."""
    rows = [m.groups() for m in re.finditer(r"^(\S+) (0x[0-9a-f]{4}) ?(\S*)$", text, re.MULTILINE)]
    for address, _, driver in rows:
        if driver != "vfio-pci":
            have = f"has the driver {driver}" if driver else "has no driver"
            raise MachineError(f"host: {address} of the platform {have}, vfio-pci was asked for")
    ports = sorted(address for address, device, _ in rows if device == _GUEST_PORT_ID)
    tdis = sorted(address for address, device, _ in rows if device == _TDI_ID)
    if len(ports) != 1 or len(tdis) != cell.tdis:
        raise MachineError(
            f"host: {len(ports)} security processors and {len(tdis)} TDIs on its bus, "
            f"1 and {cell.tdis} were attached"
        )
    return Functions(ports[0], tuple(tdis))


def huge_pages(memory_mib: int) -> int:
    """How many the memory of a guest takes."""
    return -(-memory_mib // HUGE_PAGE_MIB)


def reserve(count: int) -> str:
    """Shell that makes huge pages and prints how many there are."""
    # cat: dash reads a byte at a time, and numbers in /proc/sys end after the first read
    wanted = f'echo {count} > "$pages"; have=$(cat "$pages")'
    return f"""
pages=/proc/sys/vm/nr_hugepages
{wanted}
if [ "$have" -lt {count} ]; then
  echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory
  {wanted}
fi
echo "$have"
"""


def assigned(cell: PlatformCell, functions: Functions) -> tuple[str, ...]:
    """The QEMU arguments of the guest, on the same places as the functions have in solo."""
    addresses = dict(zip(device_places(cell), (functions.guest_port, *functions.tdis), strict=True))
    argv = root_ports()
    for place, address in addresses.items():
        more = ",multifunction=on" if place.multifunction else ""
        where = f"id=assigned-{place.name},bus={place.bus},addr={place.addr}"
        argv += ["-device", f"vfio-pci,host={address},{where},rombar=0{more}"]
    return tuple(argv)
