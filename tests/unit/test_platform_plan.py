# SPDX-License-Identifier: GPL-2.0-only
"""The platform's part of a plan: keys, cells, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from harness import cli, commands
from harness.core.plan import all_cells, choose_tests, parse_plan
from harness.core.platform_argv import platform_argv, qemu_platform, sockets
from harness.core.select import parse_expression
from harness.emulator.arguments import add_arguments
from harness.emulator.serve import options_from
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.plan import Plan
from harness.model.platform import ALL_ONES, PlatformCell

HEAD = 'title = "t"\ntopology = "solo"\n'
TESTS = '[[tests]]\nrole = "guest"\ncollection = "tsm"\n'
BUILT = {Role.GUEST: ["tsm:dma_matrix", "tsm:races"], Role.HOST: ["tsm:x"]}


def plan_of(platform: str, tests: str = TESTS) -> Plan:
    return parse_plan(f"{HEAD}{platform}\n{tests}", "p.toml", "p")


def refused(platform: str, tests: str = TESTS) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(platform, tests)
    return caught.value.message


def chosen(plan: Plan, expression: str = "") -> list[str]:
    found = choose_tests(plan, BUILT, parse_expression(expression) if expression else None)
    return [str(test) for test, _ in found]


def test_a_plan_without_a_platform_has_no_cells() -> None:
    plan = plan_of("")
    assert plan.platform is None
    assert all_cells(plan) == {}
    assert chosen(plan) == ["guest:tsm:dma_matrix", "guest:tsm:races"]


def test_defaults_are_those_of_the_platform() -> None:
    cell = all_cells(plan_of("[platform]"))["model-B"]
    assert cell == PlatformCell()
    assert (cell.vtom, cell.locked_t0, cell.bme_clear, cell.c_bit) == (
        ALL_ONES,
        "allow",
        "error",
        51,
    )


def test_a_plan_whose_tests_are_all_the_hosts_has_a_cell_to_boot() -> None:
    plan = plan_of("[platform]", TESTS.replace("guest", "host"))
    assert list(all_cells(plan)) == ["model-B"]
    assert chosen(plan) == ["host:tsm:x"]


def test_tests_run_cell_by_cell() -> None:
    plan = plan_of('[platform]\nappend = "cc_emulated=on"\naxes = { model = ["A", "B", "N"] }')
    assert chosen(plan) == [
        f"guest:tsm:{name}@model-{model}" for model in "ABN" for name in ("dma_matrix", "races")
    ]
    assert {cell.append for cell in all_cells(plan).values()} == {"cc_emulated=on"}


def test_settings_that_cannot_matter_make_no_cell_of_their_own() -> None:
    axes = '{ model = ["A", "N"], vtom = ["all-ones", 0x8000_0000], c_bit = [51, 47] }'
    assert list(all_cells(plan_of(f"[platform]\naxes = {axes}"))) == [
        "model-A",
        "model-A+cbit-47",
        "model-N",
        "model-N+vtom-0x80000000",
    ]


def test_the_axes_of_a_test_replace_those_of_the_plan() -> None:
    tests = TESTS + 'tests = ["races"]\nplatform = { model = "B", bme_clear = ["error", "ignore"] }'
    plan = plan_of('[platform]\naxes = { model = ["A", "N"] }', tests)
    assert chosen(plan) == ["guest:tsm:races@model-B", "guest:tsm:races@model-B+bme-ignore"]


def test_a_test_in_the_same_cell_twice_runs_once() -> None:
    plan = plan_of("[platform]", TESTS + TESTS)
    assert chosen(plan) == ["guest:tsm:dma_matrix@model-B", "guest:tsm:races@model-B"]


def test_cells_can_be_chosen_by_expression() -> None:
    plan = plan_of('[platform]\naxes = { model = ["A", "B", "N"] }')
    assert chosen(plan, "races and model-N") == ["guest:tsm:races@model-N"]
    assert chosen(plan, "races and not model-N") == [
        "guest:tsm:races@model-A",
        "guest:tsm:races@model-B",
    ]


def test_an_address_beyond_63_bits_is_given_as_text() -> None:
    plan = plan_of('[platform]\nmodel = "N"\nvtom = "0x8000000000000000"')
    assert plan.platform is not None
    assert plan.platform.base.vtom == 1 << 63


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ('[platform]\nmodel = "C"', "p.toml: platform.model: expected A, B or N, got 'C'"),
        ("[platform]\nmodel = 3", "p.toml: platform.model: expected A, B or N, got 3"),
        ("[platform]\nvtom = 4097", "p.toml: platform.vtom: expected"),
        ("[platform]\nvtom = 0", "p.toml: platform.vtom: expected"),
        ("[platform]\nvtom = -4096", "p.toml: platform.vtom: expected"),
        ('[platform]\nvtom = "0x10000000000000000"', "p.toml: platform.vtom: expected"),
        ("[platform]\nc_bit = 52", "p.toml: platform.c_bit: expected a bit from 32 to 51"),
        ("[platform]\nc_bit = true", "p.toml: platform.c_bit: expected"),
        ("[platform]\ntdis = 9", "p.toml: platform.tdis: expected"),
        ('[platform]\nlocked_t0 = "maybe"', "p.toml: platform.locked_t0: expected"),
        ("[platform]\nappend = 1", "p.toml: platform.append: expected"),
        ("[platform]\nmodell = 1", "p.toml: platform.modell: unknown key"),
        ("[platform]\naxes = { model = [] }", "p.toml: platform.axes.model: an empty list"),
        ('[platform]\naxes = { append = "x" }', "p.toml: platform.axes.append: unknown key"),
        ("platform = 3", "p.toml: platform: expected a table"),
    ],
)
def test_bad_platforms_name_file_and_key(platform: str, message: str) -> None:
    assert refused(platform).startswith(message)


def test_a_plan_for_solo_with_a_platform_cannot_be_run_in_pair() -> None:
    arguments = cli.parse(["run", "trust", "--topology", "pair"])
    with pytest.raises(UserError, match=r"plan trust has a \[platform\] for solo"):
        commands.run_options(arguments, ["run"])


def test_axes_and_expected_faults_need_a_platform() -> None:
    assert "[platform] table" in refused("", TESTS + 'platform = { model = "A" }')
    assert "[platform] table" in refused("", TESTS + 'expect = { faults = ["not-present"] }')


def test_a_matrix_without_end_is_refused() -> None:
    many = ", ".join(str(bit) for bit in range(32, 52))
    axes = (
        f'{{ c_bit = [{many}], locked_t0 = ["allow", "block"], bme_clear = ["error", "ignore"] }}'
    )
    assert "80 cells" in refused(f"[platform]\naxes = {axes}")


def test_expectations_are_words() -> None:
    plan = plan_of("[platform]", TESTS + 'expect = { splats = ["warn"], faults = ["not-present"] }')
    assert plan.selections[0].expect.splats == ("warn",)
    assert plan.selections[0].expect.faults == ("not-present",)
    assert "expect.faults: expected" in refused("[platform]", TESTS + "expect = { faults = [1] }")


def test_notes_are_sentences_on_one_line() -> None:
    plan = plan_of('notes = ["""one\n  sentence""", "another"]')
    assert plan.notes == ("one sentence", "another")
    assert "notes: expected texts" in refused('notes = "one"')


def test_kernel_options_belong_to_a_role() -> None:
    plan = plan_of('[kernel.options]\nguest = { DMA_TRUST_UNGUARDED = "y" }')
    assert plan.options == ((Role.GUEST, "DMA_TRUST_UNGUARDED", "y"),)
    assert "without CONFIG_: X" in refused('[kernel.options]\nguest = { CONFIG_X = "y" }')
    assert "kernel.options.guest.X: expected text" in refused("[kernel.options]\nguest = { X = 1 }")
    assert "kernel.options.gast: unknown key" in refused('[kernel.options]\ngast = { X = "y" }')


def test_the_platform_understands_its_options() -> None:
    cell = PlatformCell("N", 1 << 63, "block", "ignore", 47, 3)
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    argv = platform_argv(cell, PurePosixPath("/s"), PurePosixPath("/run/platform.jsonl"))
    options = options_from(parser.parse_args(argv))
    assert options.knobs.model == "N"
    assert (options.knobs.vtom, options.knobs.locked_t0) == (1 << 63, "block")
    assert (options.knobs.bme_clear, options.knobs.c_bit) == ("ignore", 47)
    assert len(options.bdfs) == 3
    assert not options.stay, "it has to end with its VM"
    assert options.autobind
    argv = platform_argv(replace(cell, binds="host"), PurePosixPath("/s"), PurePosixPath("/log"))
    assert not options_from(parser.parse_args(argv)).autobind


def test_the_security_processor_comes_first_and_tdis_are_one_device() -> None:
    cell = PlatformCell(tdis=2)
    assert sockets(cell) == ("tsm-guest", "tdi0", "tdi1")
    argv = qemu_platform(cell, PurePosixPath("/s"))
    devices = [json.loads(word) for word in argv if word.startswith("{")]
    assert [device["socket"]["path"] for device in devices] == [
        "/s/tsm-guest.sock",
        "/s/tdi0.sock",
        "/s/tdi1.sock",
    ]
    assert devices[0]["bus"] != devices[1]["bus"] == devices[2]["bus"]
    assert [device["addr"] for device in devices] == ["0.0", "0.0", "0.1"]
    assert "multifunction" not in devices[0]
    assert devices[1]["multifunction"]
