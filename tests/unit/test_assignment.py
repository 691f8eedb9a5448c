# SPDX-License-Identifier: GPL-2.0-only
"""The platform's functions on the host machine, and on the command line of its guest's QEMU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from harness.core.assignment import (
    Functions,
    assigned,
    bind,
    check_connected,
    connect,
    huge_pages,
    parse_bound,
    reserve,
)
from harness.core.platform_argv import qemu_platform
from harness.errors import MachineError
from harness.model.platform import PlatformCell

CELL = PlatformCell()
BOUND = """\
0000:05:00.1 0x0dee vfio-pci
0000:04:00.0 0x0def vfio-pci
0000:05:00.0 0x0dee vfio-pci
"""
FUNCTIONS = Functions("0000:04:00.0", ("0000:05:00.0", "0000:05:00.1"))


def test_functions_are_found_by_their_ids() -> None:
    assert parse_bound(BOUND, CELL) == FUNCTIONS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 security processors and 0 TDIs on its bus, 1 and 2 were attached"),
        (BOUND.replace("0x0def", "0x0dee"), "0 security processors and 3 TDIs"),
        (BOUND.replace("0x0def vfio-pci", "0x0def "), "0000:04:00.0 of the platform has no driver"),
        (BOUND.replace("0x0def vfio-pci", "0x0def nvme"), "has the driver nvme, vfio-pci was"),
    ],
)
def test_what_is_missing_is_named(text: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        parse_bound(text, CELL)


def test_the_guest_gets_them_where_a_guest_alone_has_them() -> None:
    argv = assigned(CELL, FUNCTIONS)
    devices = [word for word in argv if word.startswith("vfio-pci")]
    assert devices == [
        "vfio-pci,host=0000:04:00.0,id=assigned-tsm-guest,bus=tsm-rp,addr=0.0,rombar=0",
        "vfio-pci,host=0000:05:00.0,id=assigned-tdi0,bus=tdi-rp,addr=0.0,rombar=0,multifunction=on",
        "vfio-pci,host=0000:05:00.1,id=assigned-tdi1,bus=tdi-rp,addr=0.1,rombar=0,multifunction=on",
    ]
    alone = qemu_platform(CELL, PurePosixPath("/s"))
    assert [w for w in argv if "root-port" in w] == [w for w in alone if "root-port" in w]
    places = [(d["bus"], d["addr"]) for d in map(json.loads, alone[5::2])]
    assert places == [("tsm-rp", "0.0"), ("tdi-rp", "0.0"), ("tdi-rp", "0.1")]


def device(root: Path, address: str, ids: tuple[str, str], driver: str = "") -> Path:
    """A device of a fake sysfs."""
    path = root / "bus" / "pci" / "devices" / address
    path.mkdir(parents=True)
    (path / "vendor").write_text(f"{ids[0]}\n")
    (path / "device").write_text(f"{ids[1]}\n")
    if driver:
        target = root / "bus" / "pci" / "drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (path / "driver").symlink_to(target)
    return path


def test_only_the_platforms_functions_change_hands(tmp_path: Path) -> None:
    tdi = device(tmp_path, "0000:05:00.0", ("0x1b36", "0x0dee"), "other")
    port = device(tmp_path, "0000:04:00.0", ("0x1b36", "0x0def"), "vfio-pci")
    root_port = device(tmp_path, "0000:00:04.0", ("0x1b36", "0x000c"), "pcieport")
    disk = device(tmp_path, "0000:00:02.0", ("0x1af4", "0x0def"), "virtio-pci")
    done = subprocess.run(
        ["sh", "-c", bind(str(tmp_path))], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "0000:04:00.0 0x0def vfio-pci",
        "0000:05:00.0 0x0dee other",  # a fake sysfs does not act
    ]
    assert (tdi / "driver_override").read_text() == "vfio-pci\n"
    assert (tdi / "driver" / "unbind").read_text() == "0000:05:00.0\n"
    assert (port / "driver_override").read_text() == "vfio-pci\n"
    assert not (port / "driver" / "unbind").exists(), "it has the right one"
    for other in (root_port, disk):
        assert not (other / "driver_override").exists()
        assert not (other / "driver" / "unbind").exists()


def test_the_guest_does_not_get_the_hosts_port() -> None:
    by_host = PlatformCell(binds="host", nested=True)
    assert assigned(by_host, FUNCTIONS) == assigned(CELL, FUNCTIONS)
    argv = qemu_platform(by_host, PurePosixPath("/s"))
    devices = [json.loads(word) for word in argv if word.startswith("{")]
    assert devices[-1]["socket"]["path"] == "/s/tsm-host.sock"
    assert devices[:-1] == [
        json.loads(w) for w in qemu_platform(CELL, PurePosixPath("/s")) if w.startswith("{")
    ]
    ports = [word for word in argv if word.startswith("pcie-root-port,id=")]
    assert [device["bus"] for device in devices[-2:]] == ["tdi-rp", "host-rp"]
    assert len(ports) == len({word.partition("chassis=")[2] for word in ports}) == 3


def with_tsm(root: Path, name: str, device_id: str) -> None:
    """A TSM of a fake sysfs, and the device whose driver registered it."""
    port = device(root, f"0000:07:00.{name[-1]}", ("0x1b36", device_id))
    tsm = root / "class" / "tsm" / name
    tsm.mkdir(parents=True)
    (tsm / "device").symlink_to(port)
    parameters = root / "module" / "vfio_pci" / "parameters"
    parameters.mkdir(parents=True, exist_ok=True)
    (parameters / "tsm_bind").write_text("N\n")


def connected(root: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", connect(str(root))], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_hosts_kernel_connects_by_the_tsm_of_its_port(tmp_path: Path) -> None:
    with_tsm(tmp_path, "tsm3", "0x1234")
    with_tsm(tmp_path, "tsm5", "0x0df0")
    for number, have in ((0, "\n"), (1, None)):
        tdi = device(tmp_path, f"0000:05:00.{number}", ("0x1b36", "0x0dee"))
        (tdi / "tsm").mkdir()
        (tdi / "tsm" / "dsm").write_text("0000:05:00.0\n")
        if have is not None:
            (tdi / "tsm" / "connect").write_text(have)
    said = connected(tmp_path)
    assert said.splitlines() == [
        "tsm tsm5",
        "0000:05:00.0 0000:05:00.0",
        "0000:05:00.1 0000:05:00.0",
    ]
    assert check_connected(said, CELL) == "tsm5"
    first = tmp_path / "bus/pci/devices/0000:05:00.0/tsm/connect"
    assert first.read_text() == "tsm5\n"
    assert (tmp_path / "module/vfio_pci/parameters/tsm_bind").read_text() == "1\n"
    assert not (tmp_path / "bus/pci/devices/0000:05:00.1/tsm/connect").exists()


def test_what_is_connected_stays_so(tmp_path: Path) -> None:
    with_tsm(tmp_path, "tsm0", "0x0df0")
    tdi = device(tmp_path, "0000:05:00.0", ("0x1b36", "0x0dee"))
    (tdi / "tsm").mkdir()
    (tdi / "tsm" / "connect").write_text("tsm0\n")
    (tdi / "tsm" / "connect").chmod(0o444)  # a second connect would be refused
    (tdi / "tsm" / "dsm").write_text("0000:05:00.0\n")
    before = (tdi / "tsm" / "connect").stat().st_mtime_ns
    assert check_connected(connected(tmp_path), PlatformCell(tdis=1)) == "tsm0"
    assert (tdi / "tsm" / "connect").stat().st_mtime_ns == before


def test_a_kernel_without_the_driver_connects_nothing(tmp_path: Path) -> None:
    with_tsm(tmp_path, "tsm3", "0x1234")
    device(tmp_path, "0000:05:00.0", ("0x1b36", "0x0dee"))
    assert connected(tmp_path) == "tsm \n"
    assert (tmp_path / "module/vfio_pci/parameters/tsm_bind").read_text() == "N\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no TSM for the platform's host port"),
        ("tsm \n", "no TSM for the platform's host port"),
        ("tsm tsm0\na a\n", "tsm0 did not connect: 1 of 2 found"),
        ("tsm tsm0\na a\nb no\n", "tsm0 did not connect: b"),
    ],
)
def test_who_is_not_connected_is_named(text: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        check_connected(text, CELL)


def test_huge_pages_for_a_guest() -> None:
    assert (huge_pages(768), huge_pages(769)) == (384, 385)
    assert "echo 384 >" in reserve(384)
