# SPDX-License-Identifier: GPL-2.0-only
"""Which machines stand at the same time, in a run with guests of the pair and guests alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness import cli, commands
from harness.core.plan import choose_tests
from harness.errors import KernelError
from harness.model.kernel import KernelBuild, Role
from harness.model.plan import TestId, TestSelection
from harness.model.platform import PlatformCell
from harness.model.progress import SilentProgress
from harness.stages.fleet import AnyMachine, _Slot
from harness.stages.run import MainJob
from tests.integration.bare_fleet import BareFleet

PLAN = """
title = "t"
topology = "pair"
[platform]
append = "x"
[[tests]]
role = "host"
collection = "tsm"
[[tests]]
role = "guest"
collection = "tsm"
tests = ["freeze"]
[[tests]]
role = "guest"
collection = "tsm"
tests = ["races"]
topology = "solo"
"""


class StandIn:
    """What a fleet asks of a machine. kind: "qemu" is a VM of the controller."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.boot_s = 1.0


class Places(BareFleet):
    """A fleet whose machines are names; `up` tells which of them stand, in order of boot."""

    up: str = ""
    fails = ""

    def _boot(self, role: Role, cell: str) -> _Slot:
        name = self.name(role, cell)
        if role is Role.GUEST and not self.alone(role, cell):
            self.get(Role.HOST, cell)
        if name == self.fails:
            raise KernelError(f"{name}: does not boot")
        kind = "qemu" if role is Role.HOST or self.alone(role, cell) else "nested"
        slot = _Slot(cast(AnyMachine, StandIn(name, kind)), cell=cell)
        self._slots[role] = slot
        self.up = f"{self.up} {name}".strip()
        return slot

    def _end(self, role: Role, slot: _Slot) -> None:
        del role
        self.up = " ".join(n for n in self.up.split() if n != slot.machine.name)


@pytest.fixture
def job(tmp_path: Path) -> MainJob:
    path = tmp_path / "p.toml"
    path.write_text(PLAN)
    arguments = cli.parse(["run", str(path), "--runs-dir", str(tmp_path / "runs")])
    options = commands.run_options(arguments, ["run"])
    return MainJob(replace(options, cache=tmp_path / "cache"), SilentProgress())


@pytest.fixture
def places(job: MainJob, tmp_path: Path) -> Iterator[Places]:
    (tmp_path / "kselftest-list.txt").write_text("tsm:x\ntsm:freeze\ntsm:races\n")
    build = KernelBuild(Role.GUEST, "k", tmp_path, "7", "ab", "gcc", (), True, 0.0, "c")
    made = Places.of(job, build, tmp_path / "cache")
    yield made
    made.close()


def test_a_guest_alone_and_the_pair_never_stand_together(places: Places) -> None:
    places.get(Role.HOST)
    places.get(Role.GUEST)
    assert places.up == "host guest"
    places.get(Role.GUEST, "model-B")
    assert places.up == "guest-solo"
    places.get(Role.HOST)
    assert places.up == "host"
    places.get(Role.GUEST, "model-B")
    places.get(Role.GUEST)
    assert places.up == "host guest"


def test_a_lab_machine_stays(places: Places) -> None:
    places.get(Role.HOST)
    cast(StandIn, places._slots[Role.HOST].machine).kind = "lab"
    places.get(Role.GUEST, "model-B")
    assert places.up == "host guest-solo"


def test_a_guest_with_a_platform_waits_for_the_hosts_tests(job: MainJob, places: Places) -> None:
    host, freeze, races = chosen_of(job)
    nested = replace(races[0], cell="model-A+pair"), races[1]
    places._cells = {"model-A+pair": PlatformCell("A", nested=True)}
    job.tests.boot_first(places, places._builds, (host, nested))
    assert places.up == "host", "without a platform"
    places.discard(Role.HOST)
    job.tests.boot_first(places, places._builds, (nested,))
    assert places.up == "host guest"
    assert places._slots[Role.HOST].cell == "model-A+pair", "booted once, with the platform"
    places.discard(Role.HOST)
    job.tests.boot_first(places, places._builds, (host, freeze, nested))
    assert places.up == "host guest"
    assert places._slots[Role.HOST].cell == ""


def test_a_host_machine_that_binds_has_tests(places: Places) -> None:
    cells = PlatformCell(nested=True), PlatformCell(nested=True, binds="host")
    places._cells = {cell.name: cell for cell in cells}
    told = [places.has_tests(Role.HOST, name) for name in ("", *places._cells)]
    assert told == [True, False, True]
    assert all(places.has_tests(Role.GUEST, name) for name in ("", *places._cells))


@pytest.mark.parametrize(
    ("config", "runs"),
    [("CONFIG_TDISP_EMU_LINK=y\n", True), ("# CONFIG_TDISP_EMU_LINK is not set\n", False)],
)
def test_a_host_kernel_that_cannot_bind_is_a_skip(
    job: MainJob, places: Places, tmp_path: Path, config: str, runs: bool
) -> None:
    (tmp_path / "config").write_text(config)
    by_host = replace(chosen_of(job)[1][1], on_platform=True, axes=(("binds", ("host",)),))
    plan = replace(job._options.plan, selections=(by_host,))
    job.tests._options = replace(job._options, plan=plan)
    test = TestId(Role.GUEST, "tsm", "freeze", "model-B+host-binds+pair")
    job.tests._builds = places._builds
    reason = job.tests._left_out(test, by_host)
    assert ("CONFIG_TDISP_EMU_LINK" not in reason) == runs
    assert job.tests._left_out(replace(test, cell=""), by_host) == ""


def test_the_pair_boots_first(job: MainJob, places: Places) -> None:
    chosen = chosen_of(job)
    job.tests.boot_first(places, places._builds, chosen)
    assert places.up == "host guest"
    places.discard(Role.HOST)
    alone = tuple(item for item in chosen if item[0].cell)
    job.tests.boot_first(places, places._builds, alone)
    assert places.up == "guest-solo"
    host = tuple(item for item in chosen if item[0].role is Role.HOST)
    job.tests.boot_first(places, places._builds, (*host, *alone))
    assert places.up == "host", "the guest that stands alone has to wait"


def test_what_does_not_boot_stops_only_the_tests_that_need_it(job: MainJob, places: Places) -> None:
    chosen = chosen_of(job)
    places.fails = "guest"
    job.tests.boot_first(places, places._builds, chosen)
    assert [failure.message for failure in job.recorder.result.failures] == ["guest: does not boot"]
    places.get(Role.GUEST, "model-B")
    assert places.up == "guest-solo"
    pair = tuple(item for item in chosen if not item[0].cell)
    places._broken.clear()
    job.tests.boot_first(places, places._builds, pair)
    assert places.up == "host", "the host's tests need no guest"
    places.discard(Role.HOST)
    places.fails = "host"
    with pytest.raises(KernelError):
        job.tests.boot_first(places, places._builds, pair)


def test_tests_that_were_not_built_need_no_machine(job: MainJob, places: Places) -> None:
    host, freeze, races = chosen_of(job)
    gone = replace(freeze[0], test="gone"), freeze[1]
    for chosen, up in (((gone,), ""), ((host, gone), "host"), ((gone, races), "guest-solo")):
        job.tests.boot_first(places, places._builds, chosen)
        assert places.up == up


def chosen_of(job: MainJob) -> tuple[tuple[TestId, TestSelection], ...]:
    built = {Role.HOST: ["tsm:x"], Role.GUEST: ["tsm:freeze", "tsm:races"]}
    return choose_tests(job._options.plan, built, None)
