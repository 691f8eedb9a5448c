# SPDX-License-Identifier: GPL-2.0-only
"""Plans for the pair with tests of both topologies: where each test runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli, commands
from harness.core.mutants import CaughtBy, plan_for
from harness.core.plan import all_cells, choose_tests, first_cell, in_topology, parse_plan
from harness.errors import UserError
from harness.layout import PLANS
from harness.model.kernel import Role
from harness.model.lab import LabSpec, LabSsh
from harness.model.options import RunOptions
from harness.model.plan import Plan, Topology
from harness.stages.lab import cannot_have

HEAD = 'title = "t"\ntopology = "{}"\n'
HOST = '[[tests]]\nrole = "host"\ncollection = "tsm"\n'
GUEST = '[[tests]]\nrole = "guest"\ncollection = "tsm"\ntests = ["{}"]\n'
PLATFORM = '[platform]\naxes = { model = ["A", "N"] }\n'
SOLO = 'topology = "solo"\n'
MIXED = (
    PLATFORM
    + (
        GUEST.format("races")
        + SOLO
        + HOST
        + GUEST.format("rebind")
        + "platform = { model = 'B' }\n"
    )
    + GUEST.format("freeze")
)
BUILT = {Role.HOST: ["tsm:x"], Role.GUEST: ["tsm:races", "tsm:freeze", "tsm:rebind"]}


def plan_of(text: str, topology: str = "pair") -> Plan:
    return parse_plan(HEAD.format(topology) + text, "p.toml", "p")


def refused(text: str, topology: str = "pair") -> str:
    with pytest.raises(UserError) as caught:
        plan_of(text, topology)
    assert caught.value.hint
    return caught.value.message


def chosen(plan: Plan) -> list[str]:
    return [str(test) for test, _ in choose_tests(plan, BUILT, None)]


def test_the_pair_comes_first_then_the_guests_that_stand_alone() -> None:
    plan = plan_of(MIXED)
    assert chosen(plan) == [
        "host:tsm:x",
        "guest:tsm:freeze",
        "guest:tsm:rebind@model-B+pair",
        "guest:tsm:races@model-A",
        "guest:tsm:races@model-N",
    ]
    assert {name: cell.nested for name, cell in all_cells(plan).items()} == {
        "model-B+pair": True,
        "model-A": False,
        "model-N": False,
    }


def test_in_a_pair_only_those_have_the_platform_that_ask_for_it() -> None:
    plan = plan_of(PLATFORM + GUEST.format("races") + "platform = {}\n" + GUEST.format("freeze"))
    assert chosen(plan) == [
        "guest:tsm:freeze",
        "guest:tsm:races@model-A+pair",
        "guest:tsm:races@model-N+pair",
    ]


BY_HOST = 'platform = { model = "B", binds = "host" }\n'


def test_the_host_has_tests_where_it_binds() -> None:
    """In one cell with the guest, and before it: one host machine serves both."""
    plan = plan_of(PLATFORM + HOST + BY_HOST + GUEST.format("rebind") + BY_HOST + HOST)
    assert chosen(plan) == [
        "host:tsm:x",
        "host:tsm:x@model-B+host-binds+pair",
        "guest:tsm:rebind@model-B+host-binds+pair",
    ]
    cells = all_cells(plan)
    assert [(cell.by_host, cell.nested) for cell in cells.values()] == [(True, True)]


def test_binds_is_no_knob_of_the_whole_plan() -> None:
    for where in ('binds = "host"\n', 'axes = { binds = ["host"] }\n'):
        with pytest.raises(UserError, match="binds: unknown key"):
            plan_of("[platform]\n" + where + GUEST.format("a") + SOLO)
    with pytest.raises(UserError, match=r"platform.binds: expected platform or host, got 'me'"):
        plan_of(PLATFORM + GUEST.format("a") + 'platform = { binds = "me" }')


def test_without_a_host_nobody_binds_by_it() -> None:
    plan = plan_of(MIXED + GUEST.format("rebind") + BY_HOST)
    left = in_topology(plan, Topology.SOLO)
    assert not any(cell.by_host for cell in all_cells(left).values())
    assert len(left.selections) == len(plan.selections) - 1
    with pytest.raises(UserError, match="has no test without a host machine"):
        in_topology(plan_of(PLATFORM + GUEST.format("rebind") + BY_HOST), Topology.SOLO)


def test_topology_solo_makes_every_guest_stand_alone() -> None:
    plan = in_topology(plan_of(MIXED), Topology.SOLO)
    assert [str(t) for t, _ in choose_tests(plan, {Role.GUEST: BUILT[Role.GUEST]}, None)] == [
        "guest:tsm:freeze",
        "guest:tsm:races@model-A",
        "guest:tsm:races@model-N",
        "guest:tsm:rebind@model-B",
    ]


def test_what_boot_boots() -> None:
    assert first_cell(plan_of(MIXED)) == "model-A"
    assert first_cell(plan_of(GUEST.format("freeze"))) == ""
    assert first_cell(plan_of(PLATFORM + HOST, "solo")) == "model-B"
    assert first_cell(plan_of(PLATFORM + GUEST.format("races"), "solo")) == "model-A"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLATFORM + HOST + SOLO, "p.toml: tests[0].topology: only for the role guest"),
        (PLATFORM + HOST + "platform = { model = 'A' }", "p.toml: tests[0].platform: only for the"),
        (
            PLATFORM + HOST + 'platform = { binds = ["platform", "host"] }',
            "p.toml: tests[0].platform: only for the role guest",
        ),
        (
            PLATFORM + GUEST.format("a") + SOLO + 'platform = { binds = "host" }',
            'p.toml: tests[0].platform.binds: "host" in topology solo',
        ),
        (GUEST.format("races") + SOLO, "p.toml: tests[0].topology: solo in a plan for the pair"),
        (PLATFORM + GUEST.format("races"), "p.toml: platform: no entry of [[tests]] has it"),
        (
            PLATFORM + GUEST.format("a") + SOLO + GUEST.format("b") + 'expect = { faults = ["x"] }',
            "p.toml: tests[1].expect.faults: these tests have no platform",
        ),
    ],
)
def test_refusals_in_a_pair(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_an_entry_for_the_pair_is_refused_in_solo() -> None:
    text = GUEST.format("races") + 'topology = "pair"\n'
    assert refused(text, "solo").startswith("p.toml: tests[0].topology: pair in a plan for solo")


def test_a_topology_that_does_not_exist_names_the_key() -> None:
    with pytest.raises(UserError, match=r"p.toml: tests\[0\].topology: expected one of solo, pair"):
        plan_of(GUEST.format("races") + 'topology = "trio"\n')


def test_what_says_twice_what_holds_anyway_is_taken() -> None:
    assert chosen(plan_of(GUEST.format("races") + SOLO, "solo")) == ["guest:tsm:races"]
    assert chosen(plan_of(GUEST.format("races") + 'topology = "pair"\n')) == ["guest:tsm:races"]


def test_the_default_plan_shows_what_the_readme_says() -> None:
    """Every test of the status table but those of the plan explosion, in its cell."""
    plan = parse_plan((PLANS / "default.toml").read_text(), "default.toml", "default")
    built = {Role.GUEST: ["tsm:dma_freeze"], Role.HOST: ["tsm:tsm_class"]}
    names = {str(test) for test, _ in choose_tests(plan, built, None)}
    models = {f"model-{model}" for model in "ABN"}
    everywhere = ("dma_matrix", "dma_api", "probe_time", "rebind", "tsm_uapi", "races")
    assert {f"guest:tsm:{test}@{cell}" for test in everywhere for cell in models} <= names
    split = "model-N+vtom-0x800000000000"
    assert {f"guest:tsm:{test}@{split}" for test in ("viommu_vtom", "dma_matrix")} <= names
    assert {"guest:tsm:dma_freeze", "host:tsm:tsm_class"} <= names
    assert "guest:tsm:rebind@model-B+host-binds+pair" in names
    assert "host:tsm:tsm_link@model-B+host-binds+pair" in names


def options(*arguments: str) -> RunOptions:
    return commands.run_options(cli.parse(["run", *arguments]), ["run"])


def test_topology_solo_on_the_command_line(tmp_path: Path) -> None:
    del tmp_path
    plan = options("default", "--topology", "solo").plan
    assert plan.topology is Topology.SOLO
    assert not any(cell.nested for cell in all_cells(plan).values())


def test_mutants_find_their_tests_in_a_plan_of_both_topologies() -> None:
    plan = in_topology(plan_of(MIXED), Topology.SOLO)
    wanted = (CaughtBy("tsm", "freeze"), CaughtBy("tsm", "races", cell="model-N"))
    assert chosen(plan_for(plan, wanted, "m")) == ["guest:tsm:freeze", "guest:tsm:races@model-N"]


@pytest.mark.parametrize(
    ("role", "cell", "runs"),
    [
        (Role.HOST, "model-A", True),
        (Role.HOST, "model-B+pair", False),
        (Role.GUEST, "model-A", False),
    ],
)
def test_beside_a_lab_machine(role: Role, cell: str, runs: bool) -> None:
    machine = LabSpec("metal", role, LabSsh("metal", "ssh-x", Path("/key")))
    reason = cannot_have(machine, all_cells(plan_of(MIXED))[cell])
    assert (reason == "") is runs
    assert runs or "metal cannot have" in reason
    assert cannot_have(None, all_cells(plan_of(MIXED))[cell]) == ""
