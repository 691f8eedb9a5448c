# SPDX-License-Identifier: GPL-2.0-only
"""--lab and --machine: what they choose, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli, commands
from harness.core.plan import all_cells
from harness.errors import MachineError, UserError
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.plan import Topology
from harness.stages import lab

INVENTORY = """
[machines.metal]
role = "{role}"
[machines.metal.ssh]
host = "metal"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIGkpEwMtPBb1Yhwc8R0ZvYPiXkzyQ2k9uFe8VyZ3f0c"
key = "/key"
"""


def options(tmp_path: Path, *more: str, role: str = "host") -> RunOptions:
    file = tmp_path / "lab.toml"
    file.write_text(INVENTORY.format(role=role))
    arguments = cli.parse(["run", "--lab", str(file), *more])
    return commands.run_options(arguments, ["run"])


@pytest.mark.parametrize(("role", "topology"), [("host", Topology.PAIR), ("guest", Topology.SOLO)])
def test_the_role_of_the_machine_makes_the_topology(
    tmp_path: Path, role: str, topology: Topology
) -> None:
    found = options(tmp_path, "--machine", "metal", role=role)
    assert found.topology is topology
    assert found.lab is not None
    assert found.lab.role is Role(role)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--lab and --machine"),
        (("--machine", "metall"), "no machine 'metall'"),
        (("--machine", "metal", "--topology", "solo"), "--topology solo: metal has the role host"),
    ],
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        options(tmp_path, *arguments)


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml: cannot be read"):
        lab.load(tmp_path / "nowhere.toml", "metal")


def test_one_run_at_a_time_on_a_machine(tmp_path: Path) -> None:
    spec = options(tmp_path, "--machine", "metal").lab
    refused = pytest.raises(MachineError, match="metal: another run")
    with lab.reserved(spec, tmp_path), refused, lab.reserved(spec, tmp_path):
        pass
    with lab.reserved(spec, tmp_path), lab.reserved(None, tmp_path):
        pass


@pytest.mark.parametrize("role", ["host", "guest"])
def test_a_plan_that_is_all_about_the_platform_needs_a_vm(tmp_path: Path, role: str) -> None:
    with pytest.raises(UserError, match=r"--lab: plan trust: all tests need the \[platform\]"):
        options(tmp_path, "trust", "--machine", "metal", role=role)


def test_the_default_plan_on_a_guest_of_the_lab_leaves_the_platform_out(tmp_path: Path) -> None:
    found = options(tmp_path, "default", "--machine", "metal", role="guest")
    assert found.lab is not None
    cells = all_cells(found.plan)
    assert cells, "its tests are shown as skipped"
    assert all(lab.cannot_have(found.lab, cell) for cell in cells.values())
