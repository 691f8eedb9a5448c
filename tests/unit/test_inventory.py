# SPDX-License-Identifier: GPL-2.0-only
"""Lab inventories: every error names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.inventory import machine_named, parse_inventory
from harness.errors import UserError
from harness.model.kernel import Role

NAME = "configs/labs/x.toml"
EXAMPLE = Path(__file__).parents[2] / "configs" / "labs" / "example.toml"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIGkpEwMtPBb1Yhwc8R0ZvYPiXkzyQ2k9uFe8VyZ3f0c"
GOOD = f"""
[machines.spr1]
role = "host"
[machines.spr1.ssh]
host = "spr1"
host_key = "{KEY} comment"
key = "~/.ssh/id"
"""


def parse(text: str) -> object:
    return parse_inventory(text, NAME, Path("/home/u"))


def test_the_example_is_valid() -> None:
    machines = parse_inventory(EXAMPLE.read_text(), "example.toml", Path("/home/u"))
    machine = machines["spr1"]
    assert machine.role is Role.HOST
    assert machine.power_cycle[0] == "ipmitool"
    assert machine.ssh.key == Path("/home/u/.ssh/id_ed25519")


def test_defaults() -> None:
    machine = parse_inventory(GOOD, NAME, Path("/home/u"))["spr1"]
    assert (machine.ssh.port, machine.ssh.user, machine.console) == (22, "root", ())
    assert machine.ssh.host_key == KEY


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('host = "spr1"', "", "machines.spr1.ssh: host missing"),
        ('host = "spr1"', "host = 5", "machines.spr1.ssh.host: a text is wanted, got 5"),
        ('host = "spr1"', 'host = ""', "machines.spr1.ssh.host: a text is wanted"),
        ('key = "~/.ssh/id"', "", "machines.spr1.ssh: key missing"),
        (f'host_key = "{KEY} comment"', "", "machines.spr1.ssh: host_key missing"),
        (f"{KEY} comment", "any", "machines.spr1.ssh.host_key: not a public key: 'any'"),
        ('role = "host"', "", "machines.spr1: role missing"),
        ('role = "host"', 'role = "both"', "machines.spr1.role: 'both' is neither"),
        ('role = "host"', 'role = "host"\npower = 1', "machines.spr1.power: no such key"),
        ('role = "host"', 'role = "host"\nconsole = "x"', "console: a list of texts is wanted"),
        ('role = "host"', 'role = "host"\nboot_limit_s = 1', "1 is not within 30..7200"),
        ('role = "host"', 'role = "host"\nboot_limit_s = true', "a number is wanted, got True"),
        ("[machines.spr1.ssh]", "[machines.spr1.ssh]\nport = 0", "0 is not within 1..65535"),
        (
            "[machines.spr1.ssh]",
            "[machines.spr1.ssh]\nport = 70000",
            "70000 is not within",
        ),
    ],
)
def test_errors_name_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        parse(GOOD.replace(old, new))
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{NAME}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{NAME}: machines missing"),
        ("[machines]\n", f"{NAME}: machines: empty"),
        ("machines = 1\n", f"{NAME}: machines: a table is wanted"),
        ("[machines.a]\nrole = 'host'\n", f"{NAME}: machines.a.ssh missing"),
        ("[machines\n", f"{NAME}: "),
        ("[machine.a]\n", f"{NAME}: machine: no such key"),
    ],
)
def test_errors_of_the_whole_file(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert message in caught.value.message


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UserError) as caught:
        parse(GOOD.replace('role = "host"', 'role = "host"\npower_cycel = []'))
    assert caught.value.hint == "did you mean power_cycle?"


def test_a_fragment_lies_beside_the_inventory() -> None:
    text = GOOD.replace('role = "host"\n', 'role = "host"\nfragment = "spr1.config"\n')
    machine = parse_inventory(text, NAME, Path("/home/u"))["spr1"]
    assert machine.fragment == Path("configs/labs/spr1.config")
    assert parse_inventory(GOOD, NAME, Path("/home/u"))["spr1"].fragment is None


def test_a_machine_that_is_not_there() -> None:
    machines = parse_inventory(GOOD, NAME, Path("/home/u"))
    assert machine_named(machines, "spr1", NAME).name == "spr1"
    with pytest.raises(UserError, match="no machine 'spr2'") as caught:
        machine_named(machines, "spr2", NAME)
    assert caught.value.hint == "did you mean spr1?"
