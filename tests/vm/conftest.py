# SPDX-License-Identifier: GPL-2.0-only
"""What the VM tests boot, described by a TOML file that TDISP_VM_ASSETS names:

qemu = ["/path/qemu-system-x86_64"]     # argv prefix
environment = { }                       # of that QEMU, optional
image = "/path/root.img"                # made with configs/rootfs/init.sh as /sbin/tdisp-init
kernel = "/path/build"                  # holds bzImage of the kernel under test
release = "7.3.4"
build_id = "hex"
own_kernel = "/path/vmlinuz"            # a distribution's, with own_initrd: the host machine's
own_initrd = "/path/initrd"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.adapters.ssh_keys import generate_key
from harness.core.splat_rules import load_rules
from harness.machines.qemu import QemuMachine, QemuSetup
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, QemuInstall, VmSpec

RULES = Path(__file__).parents[2] / "configs" / "splat_rules.toml"


@dataclass(frozen=True)
class Assets:
    """What there is to boot."""

    install: QemuInstall
    image: Path
    build: KernelBuild
    own_kernel: Path
    own_initrd: Path


@pytest.fixture(scope="session")
def assets() -> Assets:
    name = os.environ.get("TDISP_VM_ASSETS")
    if not name:
        pytest.skip("TDISP_VM_ASSETS names no file")
    table = tomllib.loads(Path(name).read_text())
    install = QemuInstall(
        tuple(table["qemu"]), tuple(table.get("environment", {}).items()), "?", "system"
    )
    build = KernelBuild(
        role=Role.GUEST,
        key="test",
        directory=Path(table["kernel"]),
        release=table["release"],
        build_id=table["build_id"],
        compiler="",
        warnings=(),
        cached=True,
        build_s=0.0,
        config_hash="",
    )
    own = Path(table["own_kernel"]), Path(table["own_initrd"])
    return Assets(install, Path(table["image"]), build, *own)


@pytest.fixture
def setup(assets: Assets, tmp_path: Path) -> QemuSetup:
    key = generate_key()
    return QemuSetup(
        install=assets.install,
        accel=Accel("tcg", "the tests use what works everywhere"),
        run_dir=tmp_path,
        user_key=key.save(tmp_path / "id"),
        authorized=key.public,
        rules=load_rules(RULES.read_text()),
    )


@pytest.fixture
def spec(assets: Assets) -> VmSpec:
    return VmSpec(
        name="guest",
        role=Role.GUEST,
        memory_mib=512,
        cpus=2,
        kernel=str(assets.build.image),
        initrd="",
        append="",
        root_image=str(assets.image),
    )


MakeVm = Callable[..., QemuMachine]


@pytest.fixture
def make_vm(setup: QemuSetup) -> Iterator[MakeVm]:
    """make_vm(spec, build=None): a machine that is closed after the test."""
    with ExitStack() as stack:

        def make(spec: VmSpec, build: KernelBuild | None = None) -> QemuMachine:
            machine = QemuMachine(spec, setup, build)
            stack.callback(machine.close)
            return machine

        yield make
