# SPDX-License-Identifier: GPL-2.0-only
"""How machines that ended by themselves get into the verdict; stand-ins take the place of VMs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness import cli, commands
from harness.core.machine_end import EndReport
from harness.errors import HarnessError, InfraError, KernelError, MachineError
from harness.model.kernel import Role
from harness.model.machine import Accel, BootFailure, MachineEnd
from harness.model.platform import PlatformCell
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, TestResult, Verdict
from harness.stages import failures
from harness.stages.fleet import AnyMachine, _Slot
from harness.stages.run import MainJob
from harness.stages.vms import VmMaker
from tests.integration.bare_fleet import BareFleet
from tests.integration.test_repetition import PlayedConsole

SPLAT = "[    1.000000] BUG: KASAN: use-after-free in tdi_lock+0x1/0x2\n"


class Console(PlayedConsole):
    def read(self) -> bytes:
        return self.path.read_bytes()

    def tail(self) -> str:
        return self.path.read_text()[-200:]


class StandIn:
    """A machine that says how it ended. slow: it answers only to a patient question."""

    kind, accel, boot_s, argv = "qemu", Accel("tcg", ""), 1.0, ()

    def __init__(self, role: Role, run_dir: Path) -> None:
        self.name, self.role, self.boots = role.value, role, 1
        self.console = Console(run_dir / f"console-{role.value}.log")
        self.end: MachineEnd | Exception = MachineEnd.ALIVE
        self.slow = self.closed = False

    def report(self, timeout_s: float = 8.0) -> EndReport:
        if isinstance(self.end, Exception):
            raise self.end
        if self.slow:
            end = MachineEnd.ALIVE if timeout_s > 20 else MachineEnd.SSH_LOST
            return EndReport(end, "SSH lost", ())
        return EndReport(self.end, f"ended: {self.end.value}", ())

    def close(self) -> None:
        self.closed = True


class Standing(BareFleet):
    """Both machines of a pair are up."""

    def stand(self, run_dir: Path) -> None:
        for role in Role:
            machine = StandIn(role, run_dir)
            self._boots[role.value] = 1
            self._slots[role] = _Slot(cast(AnyMachine, machine))

    def machine(self, role: Role) -> StandIn:
        return cast(StandIn, self._slots[role].machine)


class _Build:
    release, build_id = "7.3", "ab"


@pytest.fixture
def job(tmp_path: Path) -> MainJob:
    arguments = cli.parse(["run", "default", "--runs-dir", str(tmp_path / "runs")])
    options = commands.run_options(arguments, ["run"])
    return MainJob(replace(options, cache=tmp_path / "cache"), SilentProgress())


@pytest.fixture
def fleet(job: MainJob, tmp_path: Path) -> Standing:
    made = Standing.of(job, _Build(), tmp_path / "cache")
    made.stand(job.recorder.run_dir)
    return made


def test_result(outcome: Outcome, status: int | None = 0) -> TestResult:
    return TestResult("guest", "guest", "tsm", "a", outcome, "", 1.0, 0.0, "", exit_status=status)


test_result.__test__ = False  # type: ignore[attr-defined]


def ends(job: MainJob) -> list[tuple[str, str, str]]:
    return [(f.kind, f.role, f.message) for f in job.recorder.result.failures]


def test_the_accelerator_and_why_it_was_chosen_are_recorded(job: MainJob, fleet: Standing) -> None:
    del fleet
    controller = job.recorder.result.controller
    assert (controller["accel"], controller["accel_reason"]) == ("tcg", "nothing is booted here")


def test_machines_that_are_alive_at_the_end_are_nobodys_failure(
    job: MainJob, fleet: Standing
) -> None:
    machines = [fleet.machine(role) for role in Role]
    job.recorder.test(test_result(Outcome.PASS))
    fleet.close()
    assert ends(job) == []
    assert job.recorder.result.verdict is Verdict.PASS
    assert all(machine.closed for machine in machines)


@pytest.mark.parametrize(
    "end", [MachineEnd.REBOOT, MachineEnd.SILENT_HANG, MachineEnd.POWER_OFF, MachineEnd.PANIC]
)
@pytest.mark.parametrize("role", list(Role))
def test_a_machine_that_ends_after_its_last_test_fails_the_run(
    job: MainJob, fleet: Standing, role: Role, end: MachineEnd
) -> None:
    job.recorder.test(test_result(Outcome.PASS))
    fleet.machine(role).end = end
    fleet.close()
    assert ends(job) == [
        ("crash", role.value, f"{role.value}: ended: {end.value}, when no test ran")
    ]
    assert job.recorder.result.verdict is Verdict.FAIL


def test_a_machine_that_is_only_slow_is_asked_again(job: MainJob, fleet: Standing) -> None:
    fleet.machine(Role.GUEST).slow = True
    fleet.close()
    assert ends(job) == []


def test_a_qemu_that_died_between_tests_is_noted(job: MainJob, fleet: Standing) -> None:
    fleet.machine(Role.GUEST).end = MachineEnd.QEMU_DIED
    fleet.close()
    assert ends(job) == []
    assert job.recorder.result.notes[-1] == "guest: ended: qemu-died, when no test ran"


def test_a_crash_that_a_test_is_blamed_for_is_recorded_once(job: MainJob, fleet: Standing) -> None:
    fleet.machine(Role.GUEST).end = MachineEnd.REBOOT
    fleet.after_test(Role.GUEST, test_result(Outcome.CRASH, None))
    assert ends(job) == []
    assert Role.GUEST not in fleet._slots
    assert Role.HOST in fleet._slots, "it is well"


def test_a_crash_behind_an_infrastructure_failure_is_not_lost(
    job: MainJob, fleet: Standing
) -> None:
    fleet.machine(Role.GUEST).end = MachineEnd.REBOOT
    fleet.after_test(Role.GUEST, test_result(Outcome.INFRA, None))
    assert [kind for kind, _, _ in ends(job)] == ["crash"]


def test_a_host_that_hangs_is_to_blame_for_its_guest_and_replaced(
    job: MainJob, fleet: Standing
) -> None:
    fleet.machine(Role.HOST).end = MachineEnd.SILENT_HANG
    fleet.machine(Role.GUEST).end = MachineEnd.SSH_LOST
    fleet.after_test(Role.GUEST, test_result(Outcome.CRASH, None))
    assert ends(job) == [
        ("crash", "host", "host: ended: silent-hang, while guest:tsm:a ran on the guest")
    ]
    assert not fleet._slots


def test_a_host_machine_is_not_to_blame_for_a_guest_that_stands_alone(
    job: MainJob, fleet: Standing
) -> None:
    """Beside a host machine of the lab, which stays, the guest is a VM of the controller."""
    fleet._cells = {"model-B": PlatformCell()}
    fleet.machine(Role.HOST).end = MachineEnd.POWER_OFF
    fleet.machine(Role.GUEST).end = MachineEnd.PANIC
    fleet.after_test(Role.GUEST, replace(test_result(Outcome.CRASH, None), cell="model-B"))
    assert ends(job) == []
    assert list(fleet._slots) == [Role.HOST]


def test_a_machine_that_cannot_be_asked_is_closed_and_its_console_searched(
    job: MainJob, fleet: Standing
) -> None:
    guest, host = fleet.machine(Role.GUEST), fleet.machine(Role.HOST)
    guest.end = MachineError("guest: wrong SSH host key")
    guest.console.path.write_text(SPLAT)
    with pytest.raises(MachineError, match="wrong SSH host key"):
        fleet.close()
    assert guest.closed
    assert host.closed, "one that cannot be asked does not keep the others up"
    assert [record.splat.kind for record in job.recorder.result.splats] == ["kasan"]


def test_a_guest_that_the_emulation_lost_at_boot_is_noted_and_counted(
    job: MainJob, fleet: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.stages.fleet.NestedMachine", StandIn)
    guest = fleet.machine(Role.GUEST)
    failure = BootFailure("guest", MachineEnd.SILENT_HANG, 60.0, "")

    def lost() -> None:
        raise KernelError("guest: kernel 7.3 did not come up\n  | tail", detail=failure)

    monkeypatch.setattr(guest, "start", lost, raising=False)
    monkeypatch.setattr(guest, "restart", lambda: None, raising=False)
    fleet._start(cast(AnyMachine, guest))
    assert fleet._boots["guest"] == 2
    assert job.recorder.result.notes[-1] == (
        "guest: kernel 7.3 did not come up: started again, as the emulation may have lost it"
    )


class HostMaker:
    """In the place of VmMaker: host machines whose deploy ends in an error."""

    def __init__(self, run_dir: Path, error: HarnessError) -> None:
        self.run_dir, self.error = run_dir, error
        self.made: list[StandIn] = []

    def host(self, *_: object) -> StandIn:
        machine = StandIn(Role.HOST, self.run_dir)
        machine.console.path.write_text("login: ")

        def deploy(_: object) -> None:
            raise self.error

        machine.start, machine.deploy = lambda: None, deploy  # type: ignore[attr-defined]
        self.made.append(machine)
        return machine


def deployed(fleet: Standing, run_dir: Path, error: HarnessError) -> HostMaker:
    fleet.discard(Role.HOST)
    maker = HostMaker(run_dir, error)
    fleet._vms = cast(VmMaker, maker)
    with pytest.raises(type(error)):
        fleet.get(Role.HOST)
    (machine,) = maker.made
    assert machine.closed
    assert not fleet._slots
    return maker


def test_a_deployed_kernel_that_does_not_come_up_ends_its_machine_and_is_not_tried_again(
    job: MainJob, fleet: Standing
) -> None:
    failure = BootFailure("host", MachineEnd.PANIC, 9.0, "Kernel panic - not syncing: x")
    error = KernelError("host: kernel 7.3 did not come up: panic\n  | tail", detail=failure)
    maker = deployed(fleet, job.recorder.run_dir, error)
    record = failures.from_error(error)
    assert (record.kind, record.excerpt) == ("boot", failure.console_tail)
    assert fleet.broken(Role.HOST)
    with pytest.raises(InfraError, match=r"host: no machine: host: kernel 7\.3 did not come up"):
        fleet.get(Role.HOST)
    assert len(maker.made) == 1


def test_a_machine_that_fails_while_a_kernel_is_deployed_is_no_fault_of_the_kernel(
    job: MainJob, fleet: Standing
) -> None:
    error = MachineError("host: the connection was lost")
    maker = deployed(fleet, job.recorder.run_dir, error)
    assert failures.from_error(error).kind == "infra"
    assert not fleet.broken(Role.HOST)
    with pytest.raises(MachineError):
        fleet.get(Role.HOST)
    assert len(maker.made) == 2, "a further attempt gets a fresh machine"
