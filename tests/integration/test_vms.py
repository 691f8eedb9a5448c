# SPDX-License-Identifier: GPL-2.0-only
"""What the VMs of a pair are made with, when the host machine assigns TDIs to its guest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness import layout
from harness.adapters.rootfs import OwnKernel, RootImage
from harness.core.plan import parse_plan
from harness.core.splat_rules import load_rules
from harness.errors import MachineError
from harness.machines.platform_process import PlatformProcess
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, ExecResult, QemuInstall
from harness.model.platform import PlatformCell
from harness.model.progress import SilentProgress
from harness.stages.provision import Provisions
from harness.stages.vms import Login, VmMaker

TCG = Accel("tcg", "nothing is booted here")
CELL = PlatformCell(append="cc_emulated=on", nested=True)
BOUND = (
    b"0000:04:00.0 0x0def vfio-pci\n0000:05:00.0 0x0dee vfio-pci\n0000:05:00.1 0x0dee vfio-pci\n"
)
CONNECTED = b"tsm tsm1\n0000:05:00.0 0000:05:00.0\n0000:05:00.1 0000:05:00.0\n"


class HostMachine:
    """Answers what is asked of a host machine before a guest starts on it."""

    name = "host"
    accel = TCG

    def __init__(
        self, bound: bytes = BOUND, huge_pages: int = 10_000, connected: bytes = CONNECTED
    ) -> None:
        self.bound, self.huge_pages, self.connected = bound, huge_pages, connected
        self.asked: list[str] = []

    def run(self, command: str | Sequence[str], **options: object) -> ExecResult:
        del options
        text = command if isinstance(command, str) else " ".join(command)
        self.asked.append(text)
        out = b""
        if "tsm/connect" in text:
            out = self.connected
        elif "driver_override" in text:
            out = self.bound
        elif "nr_hugepages" in text:
            out = f"{self.huge_pages}\n".encode()
        return ExecResult(text, 0, out, b"", 0.0)


@pytest.fixture
def maker(tmp_path: Path) -> VmMaker:
    text = (layout.PLANS / "default.toml").read_text()
    builds = {
        role: KernelBuild(role, "k", tmp_path, "7", "ab", "gcc", (), True, 0.0, "c")
        for role in Role
    }
    image = RootImage(tmp_path / "image", "00")
    provisions = Provisions(
        QemuInstall(("qemu",), (), "11.1.3", "cache"),
        image,
        image,
        OwnKernel(tmp_path / "vmlinuz", tmp_path / "initrd", tmp_path / "busybox", "6"),
    )
    rules = load_rules((layout.CONFIGS / "splat_rules.toml").read_text())
    login = Login(tmp_path, tmp_path / "id", "ssh-ed25519 AAAA", rules, lambda _: None)
    plan = parse_plan(text, "default.toml", "default")
    return VmMaker(plan, builds, provisions, login, SilentProgress())


def test_a_host_machine_with_a_platform_can_assign_it(maker: VmMaker, tmp_path: Path) -> None:
    platform = PlatformProcess(CELL, tmp_path, lambda _: None)
    machine = maker.host(TCG, platform)
    spec = machine._spec
    assert spec.iommu
    assert spec.shared_memory
    assert spec.extra_args == platform.qemu_arguments
    assert {"intel_iommu=on", "iommu=pt"} <= set(machine.append.split())
    assert "cc_emulated=on" not in machine.append, "that is the guest's"
    machine.close()
    platform.close()
    without = maker.host(TCG, None)
    assert not without._spec.iommu
    assert not without._spec.shared_memory
    assert "iommu" not in without.append
    without.close()


def test_the_guest_gets_functions_memory_and_command_line(maker: VmMaker) -> None:
    host = HostMachine()
    guest = maker.nested(cast(RemoteMachine, host), CELL)
    spec = guest._spec
    assert spec.huge_pages
    assert sum(word.startswith("vfio-pci,host=0000:") for word in spec.extra_args) == 3
    assert guest.append.endswith("cc_emulated=on")
    assert any("echo 384 >" in text for text in host.asked), "768 MiB"


def test_the_host_connects_before_vfio_takes_over(maker: VmMaker) -> None:
    """vfio-pci binds to its guest what is connected, and what it gets from then on."""
    by_host = replace(CELL, binds="host")
    host = HostMachine()
    guest = maker.nested(cast(RemoteMachine, host), by_host)
    assert sum(word.startswith("vfio-pci,host=0000:") for word in guest._spec.extra_args) == 3
    steps = ("tsm/connect", "driver_override", "nr_hugepages")
    order = [step for text in host.asked for step in steps if step in text]
    assert tuple(dict.fromkeys(order)) == steps
    autobound = HostMachine()
    maker.nested(cast(RemoteMachine, autobound), CELL)
    assert not any("tsm/connect" in text for text in autobound.asked)
    with pytest.raises(MachineError, match="no TSM for the platform's host port"):
        maker.nested(cast(RemoteMachine, HostMachine(connected=b"tsm \n")), by_host)


def test_a_guest_without_a_platform_changes_nothing_on_the_host(maker: VmMaker) -> None:
    host = HostMachine()
    guest = maker.nested(cast(RemoteMachine, host), None)
    assert not guest._spec.huge_pages
    assert guest._spec.extra_args == ()
    (asked,) = host.asked
    assert asked.endswith("test -w /dev/kvm")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (HostMachine(huge_pages=100), "host: 100 huge pages of 384 for the guest's memory"),
        (HostMachine(bound=BOUND[:30]), "host: 1 security processors and 0 TDIs"),
    ],
)
def test_what_the_host_machine_lacks_is_told(
    maker: VmMaker, host: HostMachine, message: str
) -> None:
    with pytest.raises(MachineError, match=message):
        maker.nested(cast(RemoteMachine, host), CELL)
