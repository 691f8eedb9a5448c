# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a scenario: machines that play a script take the place of the VMs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harness import cli, commands
from harness.core.machine_end import EndReport
from harness.core.verdict import verdict
from harness.emulator.words import Reason
from harness.errors import MachineError, UserError
from harness.model.kernel import Role
from harness.model.machine import MachineEnd
from harness.model.plan import TestId
from harness.model.platform import PlatformCell
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, TestResult, Verdict
from harness.report import json_report
from harness.stages.fleet import Fleet
from harness.stages.platform import PlatformStage
from harness.stages.run import MainJob
from harness.stages.scenario import COLLECTION, Scenario
from tests.integration.emulator_client import wait_for
from tests.integration.test_platform_stage import Vm
from tests.integration.test_repetition import PlayedConsole
from tests.unit.emulator_rig import sealed_ram

CELL = "model-A"
SPLAT = "[    1.000000] BUG: KASAN: use-after-free in tdi_lock+0x1/0x2\n"


class Console(PlayedConsole):
    def read(self) -> bytes:
        return self.path.read_bytes()


class PlayedMachine:
    """Marks go to its console."""

    def __init__(self, role: Role, console: PlayedConsole) -> None:
        self.role, self.name, self.console = role, role.value, console
        self.end = MachineEnd.ALIVE

    def mark(self, text: str) -> None:
        if self.down():
            raise MachineError(f"{self.name}: does not answer")
        self.say(f"{text}\n")

    def say(self, text: str) -> None:
        with self.console.path.open("a") as file:
            file.write(text)

    def down(self) -> bool:
        return self.end is not MachineEnd.ALIVE

    def report(self) -> EndReport:
        return EndReport(self.end, f"ended: {self.end.value}", ("last words",))


class PlayedFleet:
    """Ends machines as the real one does: the guest before its host, then consoles are searched."""

    token = "0123456789abcdef"
    platform: PlatformStage | None = None

    def __init__(self, job: MainJob) -> None:
        self._recorder, self._rules = job.recorder, job.rules
        self.up: dict[Role, PlayedMachine] = {}
        self.boots: list[Role] = []
        self.closing = False

    def get(self, role: Role, cell: str = "") -> PlayedMachine:
        del cell
        if role not in self.up:
            self.boots.append(role)
            console = Console(self._recorder.run_dir / f"console-{role.value}.log")
            self.up[role] = PlayedMachine(role, console)
        return self.up[role]

    def alone(self, role: Role, cell: str = "") -> bool:
        del role, cell
        return False

    def discard(self, role: Role, *, blamed: bool = False) -> None:
        assert blamed or self.closing, "the scenario has judged how its machines ended"
        for ended in (Role.GUEST, Role.HOST) if role is Role.HOST else (role,):
            machine = self.up.pop(ended, None)
            if machine is not None:
                self.ended(ended)
                Fleet._scan(cast(Fleet, self), ended, cast(Any, machine))

    def ended(self, role: Role) -> None:
        """What becomes of the platform."""

    def close(self) -> None:
        self.closing = True
        self.discard(Role.HOST)
        self.discard(Role.GUEST)


class FleetWithPlatform(PlayedFleet):
    """The platform is real, and as in the fleet that of the host machine, in a pair."""

    def __init__(self, job: MainJob, ram: int, *, pair: bool) -> None:
        super().__init__(job)
        self.pair, self._ram, self._owner = pair, ram, Role.HOST if pair else Role.GUEST
        self.platform = PlatformStage({CELL: PlatformCell("A")}, job.recorder, lambda _: None)
        self.vm: Vm | None = None
        self.refuses = False  # to boot a further guest

    def get(self, role: Role, cell: str = "") -> PlayedMachine:
        assert self.platform is not None
        if self.refuses and role not in self.up:
            raise MachineError("guest: does not boot")
        if role not in self.up and role is self._owner:
            self.vm = Vm(self.platform, CELL, self._ram)
        return super().get(role, cell)

    def ended(self, role: Role) -> None:
        assert self.platform is not None
        assert self.vm is not None
        if role is self._owner:
            self.vm.close()
            self.platform.end()
        else:
            self.platform.guest_ended()


class Played:
    def __init__(self, job: MainJob, *, pair: bool, fleet: PlayedFleet | None = None) -> None:
        self.job = job
        self.fleet = fleet or PlayedFleet(job)
        test = TestId(Role.GUEST, COLLECTION, "played", CELL if fleet else "")
        self.scenario = Scenario(cast(Fleet, self.fleet), job.recorder, job.rules, test, pair)
        self.scenario.begin()

    def machine(self, role: Role) -> PlayedMachine:
        return self.fleet.up[role]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[MainJob]:
    arguments = cli.parse(["run", "default", "--runs-dir", str(tmp_path)])
    job = MainJob(commands.run_options(arguments, ["run"]), SilentProgress())
    with job.opened():
        yield job


@pytest.fixture
def played(job: MainJob) -> Played:
    return Played(job, pair=True)


def test_all_is_well(played: Played) -> None:
    assert played.fleet.boots == [Role.HOST, Role.GUEST]
    played.machine(Role.GUEST).say("[    1.0] nothing of interest\n")
    result = played.scenario.finish(Outcome.PASS)
    assert (result.outcome, result.reason, result.key) == (
        Outcome.PASS,
        "",
        "guest:scenario:played",
    )
    assert played.job.recorder.result.tests == (result,)
    assert played.fleet.up, "the machines are kept for the next test"
    text = (played.job.recorder.run_dir / "console-host.log").read_text()
    assert "begin guest:scenario:played" in text
    assert "end guest:scenario:played" in text


@pytest.mark.parametrize("role", list(Role))
def test_a_splat_on_any_console(played: Played, role: Role) -> None:
    played.machine(role).say(SPLAT)
    result = played.scenario.finish(Outcome.PASS)
    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith(f"{role.value}: KASAN")
    splat = played.job.recorder.result.splats[0]
    assert (splat.machine, splat.role, splat.test) == (role.value, role.value, "scenario:played")
    assert Role.GUEST not in played.fleet.up, "the next test gets a fresh guest"


def test_a_splat_before_it_is_not_its_own(job: MainJob) -> None:
    (job.recorder.run_dir / "console-guest.log").write_text(SPLAT)
    played = Played(job, pair=False)
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.PASS


def test_an_expected_splat_has_to_come(job: MainJob) -> None:
    seen = Played(job, pair=False)
    seen.scenario.expect_splats("kasan")
    seen.machine(Role.GUEST).say(SPLAT)
    assert seen.scenario.finish(Outcome.PASS).outcome is Outcome.PASS
    unseen = Played(job, pair=False)
    unseen.scenario.expect_splats("kasan")
    result = unseen.scenario.finish(Outcome.PASS)
    assert result.outcome is Outcome.FAIL
    assert "kasan" in result.reason


def test_a_machine_that_ended(played: Played) -> None:
    played.machine(Role.HOST).end = MachineEnd.PANIC
    result = played.scenario.finish(Outcome.PASS)
    assert (result.outcome, result.reason) == (Outcome.CRASH, "host: ended: panic")
    assert result.last_lines == ("last words",)


def test_an_end_that_was_meant(played: Played) -> None:
    played.scenario.expect_end(Role.GUEST)
    played.machine(Role.GUEST).end = MachineEnd.QEMU_DIED
    played.scenario.fresh(Role.GUEST)
    assert played.fleet.boots == [Role.HOST, Role.GUEST, Role.GUEST]
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.PASS


def test_an_end_that_was_meant_is_not_that_of_the_next_machine(played: Played) -> None:
    played.scenario.expect_end(Role.GUEST)
    played.machine(Role.GUEST).end = MachineEnd.QEMU_DIED
    played.scenario.fresh(Role.GUEST)
    played.machine(Role.GUEST).end = MachineEnd.PANIC
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.CRASH


@pytest.mark.parametrize("role", list(Role))
def test_a_machine_that_was_lost_is_not_left_to_the_next_test(played: Played, role: Role) -> None:
    played.machine(role).end = MachineEnd.PANIC
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.CRASH
    assert role not in played.fleet.up


@pytest.mark.parametrize("role", list(Role))
def test_an_end_that_was_meant_and_is_the_last_act(played: Played, role: Role) -> None:
    played.scenario.expect_end(role)
    for ended in (Role.GUEST, role):  # a guest ends with its host machine
        played.machine(ended).end = MachineEnd.QEMU_DIED
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.PASS
    assert role not in played.fleet.up, "the next test gets another one"


@pytest.mark.parametrize("replaced", list(Role))
@pytest.mark.parametrize("said_by", list(Role))
def test_a_splat_of_a_machine_that_was_replaced(
    played: Played, said_by: Role, replaced: Role
) -> None:
    played.machine(said_by).say(SPLAT)
    played.scenario.fresh(replaced)
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.FAIL
    assert len(played.job.recorder.result.splats) == 1


@pytest.mark.parametrize("replaced", list(Role))
@pytest.mark.parametrize("said_by", list(Role))
def test_an_expected_splat_of_a_machine_that_was_replaced(
    played: Played, said_by: Role, replaced: Role
) -> None:
    played.scenario.expect_splats("kasan")
    played.machine(said_by).say(SPLAT)
    played.scenario.fresh(replaced)
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.PASS
    result = played.job.recorder.result
    assert [record.expected for record in result.splats] == [True]
    assert verdict(result) is Verdict.PASS, "what it will be when the run is over"


def test_the_guest_of_a_host_machine_that_was_replaced_is_watched(played: Played) -> None:
    played.scenario.fresh(Role.HOST)
    assert played.fleet.boots == [Role.HOST, Role.GUEST] * 2
    played.machine(Role.GUEST).say(SPLAT)
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.FAIL


def test_a_failed_test_stays_one(played: Played) -> None:
    played.machine(Role.GUEST).say(SPLAT)
    result = played.scenario.finish(Outcome.FAIL, "assert 1 == 2")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "assert 1 == 2")
    assert len(played.job.recorder.result.splats) == 1


def test_solo_has_no_host(job: MainJob) -> None:
    played = Played(job, pair=False)
    assert played.fleet.boots == [Role.GUEST]
    with pytest.raises(UserError, match="topology solo has no host machine"):
        _ = played.scenario.host


def test_a_plan_without_a_platform(played: Played) -> None:
    with pytest.raises(UserError, match=r"the plan has no \[platform\]"):
        _ = played.scenario.platform


@pytest.fixture
def ram() -> Iterator[int]:
    fd = sealed_ram()
    yield fd
    os.close(fd)


@pytest.fixture(params=[False, True], ids=["solo", "pair"])
def fleet(request: pytest.FixtureRequest, job: MainJob, ram: int) -> Iterator[FleetWithPlatform]:
    made = FleetWithPlatform(job, ram, pair=request.param)
    yield made
    made.close()


def replaced(job: MainJob, fleet: FleetWithPlatform, *acts: str) -> TestResult:
    """A scenario that acts, then gets a fresh guest, and passes for its own part."""
    played = Played(job, pair=fleet.pair, fleet=fleet)
    for act in acts:
        if act == "dma":
            assert fleet.vm is not None
            assert fleet.vm.dma() == Reason.PRIVATE_PAGE
        else:
            played.scenario.announce(act)
    played.scenario.fresh(Role.GUEST)
    result = played.scenario.finish(Outcome.PASS)
    assert not job.recorder.result.failures, "the run is not blamed for what a test did"
    return result


def test_a_fault_before_a_machine_was_replaced(job: MainJob, fleet: FleetWithPlatform) -> None:
    result = replaced(job, fleet, "dma")
    assert result.outcome is Outcome.FAIL
    assert "nobody announced: private-page" in result.reason


def test_a_fault_that_did_not_come_before_a_machine_was_replaced(
    job: MainJob, fleet: FleetWithPlatform
) -> None:
    result = replaced(job, fleet, "private-page", "dma", "tdi-state")
    assert result.outcome is Outcome.FAIL
    assert result.reason == "platform: an announced fault did not happen: tdi-state of TDI 0, once"


def test_a_fault_that_came_before_a_machine_was_replaced(
    job: MainJob, fleet: FleetWithPlatform
) -> None:
    result = replaced(job, fleet, "private-page", "dma")
    assert (result.outcome, result.reason) == (Outcome.PASS, "")
    assert result.platform is not None
    assert len(result.platform.faults) == 1


def test_a_guest_that_cannot_be_replaced_keeps_its_own_reason(
    job: MainJob, fleet: FleetWithPlatform
) -> None:
    played = Played(job, pair=fleet.pair, fleet=fleet)
    fleet.refuses = True
    with pytest.raises(MachineError, match="does not boot"):
        played.scenario.fresh(Role.GUEST)
    result = played.scenario.finish(Outcome.FAIL, "guest: does not boot")
    assert (result.outcome, result.reason) == (Outcome.FAIL, "guest: does not boot")


def test_an_end_that_was_meant_may_take_the_platform_along(
    job: MainJob, fleet: FleetWithPlatform
) -> None:
    played = Played(job, pair=fleet.pair, fleet=fleet)
    assert fleet.vm is not None
    played.scenario.expect_end(Role.GUEST)
    played.machine(Role.GUEST).end = MachineEnd.QEMU_DIED
    if not fleet.pair:
        fleet.vm.close()
    result = played.scenario.finish(Outcome.PASS)
    assert (result.outcome, result.reason) == (Outcome.PASS, "")


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_a_platform_that_was_killed_before_a_machine_was_replaced(
    job: MainJob, fleet: FleetWithPlatform, outcome: Outcome
) -> None:
    played = Played(job, pair=fleet.pair, fleet=fleet)
    process = played.scenario.platform
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process.alive(), "the platform to end")
    played.scenario.fresh(Role.HOST if fleet.pair else Role.GUEST)
    result = played.scenario.finish(outcome, "it misses the device")
    assert result.outcome is Outcome.INFRA
    assert result.reason == "the platform was killed by signal 9 while the test ran"
    again = Played(job, pair=fleet.pair, fleet=fleet)
    assert again.scenario.finish(Outcome.PASS).outcome is Outcome.PASS


def test_a_platform_that_ended_with_its_vm_before_that_was_replaced(
    job: MainJob, fleet: FleetWithPlatform
) -> None:
    played = Played(job, pair=fleet.pair, fleet=fleet)
    process, role = played.scenario.platform, Role.HOST if fleet.pair else Role.GUEST
    assert fleet.vm is not None
    played.scenario.expect_end(role)
    for ended in (Role.GUEST, role):
        played.machine(ended).end = MachineEnd.QEMU_DIED
    fleet.vm.close()
    wait_for(lambda: not process.alive(), "the platform to end")
    played.scenario.fresh(role)
    assert played.scenario.finish(Outcome.PASS).outcome is Outcome.PASS


def test_a_run_that_cannot_begin_is_recorded(tmp_path: Path) -> None:
    arguments = cli.parse(["run", "default", "--runs-dir", str(tmp_path)])
    job = MainJob(commands.run_options(arguments, ["run"]), SilentProgress())
    with job.opened():
        raise OSError(28, "No space left on device", "x")
    result = json_report.load(job.recorder.run_dir / "result.json")
    assert "No space left" in result.failures[0].message
