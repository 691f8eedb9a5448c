# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness run --lab FILE --machine NAME`, with a VM in the place of the lab machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.machines.qemu import QemuMachine
from harness.model.kernel import Role
from harness.model.machine import VmSpec
from tests.vm.conftest import Assets, MakeVm
from tests.vm.test_main_job import harness, result_of

Inventory = Callable[..., Path]


@pytest.fixture
def metal(make_vm: MakeVm, spec: VmSpec, assets: Assets) -> Iterator[QemuMachine]:
    """A VM on a distribution's kernel that knows nothing of the harness but its SSH key."""
    machine = make_vm(
        replace(
            spec,
            name="metal",
            memory_mib=1024,
            kernel=str(assets.own_kernel),
            initrd=str(assets.own_initrd),
        )
    )
    machine.start()
    yield machine


@pytest.fixture
def inventory(metal: QemuMachine, tmp_path: Path) -> Inventory:
    """inventory(role, key lines): an inventory with the one machine "metal"."""
    endpoint = metal.ssh.endpoint

    def write(role: Role = Role.HOST, host_key: str = "", more: str = "") -> Path:
        path = tmp_path / "lab.toml"
        path.write_text(
            f'[machines.metal]\nrole = "{role}"\nappend = "tdisp_mark"\nboot_limit_s = 120\n{more}'
            f'[machines.metal.ssh]\nhost = "127.0.0.1"\nport = {endpoint.port}\n'
            f'key = "{endpoint.key}"\nhost_key = "{host_key or endpoint.host_key}"\n'
        )
        return path

    return write


def test_the_host_role_on_a_lab_machine(
    metal: QemuMachine, inventory: Inventory, tmp_path: Path
) -> None:
    (tmp_path / "lab.config").write_text("CONFIG_VFIO_PCI=y\n")
    file = inventory(more='fragment = "lab.config"\n')
    lab = ("--lab", str(file), "--machine", "metal")
    done = harness("default", *lab, "-k", "host and tsm_class", runs=tmp_path / "r", check=0)
    result = result_of(tmp_path / "r")
    (machine,) = result["machines"]
    kernels = {kernel["role"]: kernel for kernel in result["kernels"]}
    assert (machine["name"], machine["kind"], machine["accel"]) == ("metal", "lab", "none")
    assert machine["build_id"] == kernels["host"]["build_id"]
    assert [(t["machine"], t["test"], t["outcome"]) for t in result["tests"]] == [
        ("metal", "tsm_class", "pass")
    ]
    assert "deploying" in done.stderr
    # it stays up, on the kernel under test; a reboot would bring back its own
    assert metal.answers()
    assert metal.running_build_id() == kernels["host"]["build_id"]
    assert b"tdisp_mark" in metal.read("/proc/cmdline")
    # once more, from the kernel that it now runs
    harness("default", *lab, "-k", "host and tsm_class", runs=tmp_path / "r", check=0)
    metal.ssh.drop()
    assert metal.read("/proc/cmdline").count(b"tdisp_mark") == 1


def test_a_lab_machine_that_is_somebody_else(inventory: Inventory, tmp_path: Path) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIGkpEwMtPBb1Yhwc8R0ZvYPiXkzyQ2k9uFe8VyZ3f0c"
    lab = ("--lab", str(inventory(host_key=other)), "--machine", "metal")
    harness("default", *lab, "-k", "host and tsm_class", runs=tmp_path / "r", check=2)
    result = result_of(tmp_path / "r")
    assert result["failures"][0]["kind"] == "infra"
    assert "key" in result["failures"][0]["message"]
    assert all(test["outcome"] == "infra" for test in result["tests"])
