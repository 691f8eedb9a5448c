# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a scenario: machines that play a script take the place of the VMs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harness import cli, commands
from harness.core.machine_end import EndReport
from harness.errors import MachineError, UserError
from harness.model.kernel import Role
from harness.model.machine import MachineEnd
from harness.model.plan import TestId
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, Verdict
from harness.report import json_report
from harness.stages.fleet import Fleet
from harness.stages.platform import PlatformStage
from harness.stages.run import MainJob
from harness.stages.scenario import COLLECTION, Scenario
from tests.integration.test_repetition import PlayedConsole

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

    def discard(self, role: Role) -> None:
        for ended in (Role.GUEST, Role.HOST) if role is Role.HOST else (role,):
            machine = self.up.pop(ended, None)
            if machine is not None:
                self.ended(ended)
                Fleet._scan(cast(Fleet, self), ended, cast(Any, machine))

    def ended(self, role: Role) -> None:
        """What becomes of the platform."""

    def close(self) -> None:
        self.discard(Role.HOST)
        self.discard(Role.GUEST)


class Played:
    def __init__(self, job: MainJob, *, pair: bool) -> None:
        self.job = job
        self.fleet = PlayedFleet(job)
        test = TestId(Role.GUEST, COLLECTION, "played")
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
    assert result.verdict is Verdict.PASS


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


def test_a_run_that_cannot_begin_is_recorded(tmp_path: Path) -> None:
    arguments = cli.parse(["run", "default", "--runs-dir", str(tmp_path)])
    job = MainJob(commands.run_options(arguments, ["run"]), SilentProgress())
    with job.opened():
        raise OSError(28, "No space left on device", "x")
    result = json_report.load(job.recorder.run_dir / "result.json")
    assert "No space left" in result.failures[0].message
