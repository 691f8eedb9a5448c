# SPDX-License-Identifier: GPL-2.0-only
"""The platform of a run, without a VM: a real process, and clients in the place of QEMU."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.adapters import live
from harness.adapters.process import TABLE
from harness.emulator import tdi_function
from harness.emulator.dma_engine import Operation as Dma
from harness.emulator.words import Reason
from harness.errors import MachineError
from harness.layout import REPOSITORY
from harness.machines.platform_process import PlatformProcess
from harness.model.kernel import Role
from harness.model.plan import TestId, TestSelection
from harness.model.platform import Expectation, PlatformCell
from harness.model.results import Outcome, RunResult, TestResult, Verdict
from harness.report import json_report
from harness.stages.platform import PlatformStage
from harness.stages.recorder import Recorder
from tests.integration.emulator_client import BAR0, Client, wait_for
from tests.unit.emulator_rig import RAM_BYTES, sealed_ram

ODD = PlatformCell("N", 1 << 63, "block", "ignore", tdis=3)
CELLS = {cell.name: cell for cell in (PlatformCell("A"), ODD)}
TEST = TestId(Role.GUEST, "tsm", "races", "model-A")
SELECTION = TestSelection(Role.GUEST, "tsm", ("races",), (), 60.0)
START = RunResult(
    1, "r", "p", "solo", "2026-01-01T00:00:00+00:00", 0.0, Verdict.INFRA, 2, "0", {}, ()
)
PASSED = TestResult(
    "guest", "guest", "tsm", "races", Outcome.PASS, "", 1.5, 0.0, "", cell="model-A"
)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(START, tmp_path, lambda: 1.0, json_report.write)


@pytest.fixture
def told() -> list[Path]:
    return []


@pytest.fixture
def stage(recorder: Recorder, told: list[Path]) -> Iterator[PlatformStage]:
    made = PlatformStage(CELLS, recorder, told.append)
    yield made
    made.end()


@pytest.fixture
def ram() -> Iterator[int]:
    fd = sealed_ram()
    yield fd
    os.close(fd)


class Vm:
    """What QEMU does with the functions that it was given."""

    def __init__(self, stage: PlatformStage, cell: str, ram: int) -> None:
        arguments = stage.start(cell).qemu_arguments
        devices = [json.loads(word) for word in arguments if word.startswith("{")]
        self.sockets = [Path(device["socket"]["path"]) for device in devices]
        self.clients = [Client(path) for path in self.sockets]
        for client in self.clients:
            client.map(ram, 0, RAM_BYTES)
            client.power()

    def dma(self, tdi: int = 0) -> int:
        """A T=0 write to private memory; the reason of its failure."""
        client = self.clients[1 + tdi]
        client.write(BAR0, tdi_function.FLAGS, struct.pack("<I", Dma.WRITE << 4))
        client.write(BAR0, tdi_function.IOVA, struct.pack("<4Q", 0x4000, 0, 64, 0x41))
        client.write(BAR0, tdi_function.DOORBELL, struct.pack("<I", 1))
        return int.from_bytes(client.read(BAR0, tdi_function.REASON, 4), "little")

    def announce(self, reason: Reason, count: int, tdi: int = 0) -> None:
        word = struct.pack("<I", reason | count << 8)
        self.clients[1 + tdi].write(BAR0, tdi_function.ANNOUNCE, word)

    def close(self) -> None:
        for client in self.clients:
            client.close()


def test_a_test_is_judged_by_what_came_between_its_marks(stage: PlatformStage, ram: int) -> None:
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    vm.announce(Reason.PRIVATE_PAGE, 1)
    assert vm.dma() == Reason.PRIVATE_PAGE
    good = stage.judged(PASSED, SELECTION, ())
    assert (good.outcome, good.reason) == (Outcome.PASS, "")
    assert good.platform is not None
    assert [fault.announced for fault in good.platform.faults] == [True]
    stage.begin(TEST)
    vm.dma(tdi=1)
    bad = stage.judged(PASSED, SELECTION, ())
    assert bad.outcome is Outcome.FAIL
    assert "private-page: T=0 write of 64 bytes at IOVA 0x4000" in bad.reason
    assert "by TDI 1 (02:00.1)" in bad.reason
    stage.begin(TEST)
    vm.announce(Reason.TDI_STATE, 2)
    short = stage.judged(PASSED, SELECTION, ())
    assert "an announced fault did not happen: tdi-state of TDI 0, 2 times" in short.reason
    stage.begin(TEST)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS, "all is forgotten"
    vm.close()


def test_a_test_cannot_hide_its_faults_with_a_check_of_its_own(
    stage: PlatformStage, ram: int
) -> None:
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    vm.dma()
    vm.clients[1].write(BAR0, tdi_function.CHECK, struct.pack("<I", 1))
    assert vm.clients[1].read(BAR0, tdi_function.UNANNOUNCED, 4) == bytes(4)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.FAIL
    vm.close()


def test_a_fault_outside_of_any_test_fails_the_run(
    stage: PlatformStage, recorder: Recorder, ram: int
) -> None:
    vm = Vm(stage, "model-A", ram)
    vm.dma()
    stage.begin(TEST)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS
    recorder.test(PASSED)
    failure = recorder.result.failures[0]
    assert failure.kind == "oracle"
    assert failure.message.endswith("outside of any test (before guest:tsm:races@model-A)")
    assert recorder.result.verdict is Verdict.FAIL
    vm.dma()
    vm.close()
    stage.end()
    assert "at the end of model-A" in recorder.result.failures[1].message


def test_nobody_is_blamed_while_the_host_machine_boots(
    stage: PlatformStage, recorder: Recorder, ram: int
) -> None:
    """In a pair the platform outlives guests; what came between two of them is judged apart."""
    vm = Vm(stage, "model-A", ram)
    vm.dma()
    stage.forget()
    stage.begin(TEST)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS
    stage.guest_ended()
    assert not recorder.result.failures
    stage.begin(TEST)
    vm.dma()
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.FAIL, "a test is not excused"
    vm.dma()
    stage.guest_ended()
    (failure,) = recorder.result.failures
    assert failure.message.endswith("outside of any test (at the end of a guest in model-A)")
    assert stage.process is not None
    assert stage.process.alive(), "it serves the next guest"
    vm.close()


def test_a_negative_control_has_to_show_its_fault(stage: PlatformStage, ram: int) -> None:
    control = replace(SELECTION, expect=Expectation(faults=("private-page",)))
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    assert stage.judged(PASSED, control, ()).outcome is Outcome.FAIL
    stage.begin(TEST)
    vm.dma()
    shown = stage.judged(PASSED, control, ())
    assert shown.outcome is Outcome.PASS
    assert shown.reason == "as the plan expects: 1 platform faults private-page"
    vm.close()


def test_knobs_and_records_of_a_cell(
    stage: PlatformStage, recorder: Recorder, told: list[Path], ram: int
) -> None:
    vm = Vm(stage, ODD.name, ram)
    assert [path.name for path in vm.sockets] == [
        "tsm-guest.sock", "tdi0.sock", "tdi1.sock", "tdi2.sock",
    ]  # fmt: skip
    assert stage.process is not None
    state = stage.process.ask(op="state")
    assert (state["model"], len(state["tdis"])) == ("N", 3)
    stage.begin(TEST)
    stage.judged(PASSED, SELECTION, ())
    vm.close()
    stage.end()
    cell = recorder.result.cells[0]
    assert (cell.name, cell.vtom, cell.boots, cell.test_s) == (
        ODD.name,
        "0x8000000000000000",
        1,
        1.5,
    )
    assert told == [vm.sockets[0].parent]
    assert not told[0].exists()
    assert json_report.load(recorder.run_dir / "result.json").cells == recorder.result.cells


def test_a_fresh_platform_per_machine_and_one_log(
    stage: PlatformStage, recorder: Recorder, ram: int
) -> None:
    first = Vm(stage, "model-A", ram)
    pid = stage.process.pid if stage.process else 0
    second = Vm(stage, "model-A", ram)
    assert not psutil.pid_exists(pid)
    assert recorder.result.cells[0].boots == 2
    events = [json.loads(line)["event"] for line in stage_log(recorder)]
    assert (events.count("start"), events.count("stop")) == (2, 1)
    first.close()
    second.close()


def stage_log(recorder: Recorder) -> list[str]:
    return (recorder.run_dir / "platform.jsonl").read_text().splitlines()


def test_a_platform_that_is_killed(stage: PlatformStage, ram: int) -> None:
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    process = stage.process
    assert process is not None
    assert not process.lost()
    os.kill(process.pid, signal.SIGKILL)
    lost = stage.judged(PASSED, SELECTION, ())
    assert lost.outcome is Outcome.INFRA
    assert lost.reason == "the platform was killed by signal 9 while the test ran"
    assert stage.trouble() == "platform: was killed by signal 9"
    with pytest.raises(MachineError, match="platform: check"):
        stage.begin(TEST)
    vm.close()
    stage.end()
    assert TABLE.alive() == ()


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_lost_attempt_violated_fails_the_run(
    stage: PlatformStage, recorder: Recorder, ram: int, killed: bool
) -> None:
    """The attempt is no verdict and gives way to a better one; what the platform saw stays."""
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    vm.announce(Reason.TDI_STATE, 1)
    vm.dma()
    if killed:
        assert stage.process is not None
        os.kill(stage.process.pid, signal.SIGKILL)
    lost = replace(PASSED, outcome=Outcome.PASS if killed else Outcome.INFRA, reason="QEMU ended")
    assert stage.judged(lost, SELECTION, ()).outcome is Outcome.INFRA
    recorder.settle(PASSED)
    (failure,) = recorder.result.failures
    assert failure.kind == "oracle"
    assert "nobody announced: private-page" in failure.message
    assert failure.message.endswith("in an attempt at guest:tsm:races@model-A that was lost")
    assert recorder.result.verdict is Verdict.FAIL
    vm.close()


def test_a_lost_attempt_is_blamed_for_nothing_that_is_expected(
    stage: PlatformStage, recorder: Recorder, ram: int
) -> None:
    control = replace(SELECTION, expect=Expectation(faults=("private-page",)))
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    vm.dma()
    lost = stage.judged(replace(PASSED, outcome=Outcome.INFRA, reason="QEMU ended"), control, ())
    assert (lost.outcome, lost.reason) == (Outcome.INFRA, "QEMU ended")
    assert not recorder.result.failures
    vm.close()


def test_an_attempt_without_a_result_is_blamed_for_nothing_that_is_expected(
    stage: PlatformStage, recorder: Recorder, ram: int
) -> None:
    """An exception ended it: nobody asks for a judgement, and the machine is replaced."""
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST, Expectation(faults=("private-page",)))
    vm.dma()
    vm.close()
    stage.end()
    assert not recorder.result.failures
    vm = Vm(stage, "model-A", ram)
    vm.dma()
    vm.close()
    stage.end()
    assert [failure.kind for failure in recorder.result.failures] == ["oracle"], "of no attempt"


@pytest.mark.parametrize("after", [Outcome.PASS, Outcome.INFRA])
def test_what_a_test_expects_is_excused_until_it_is_over(
    stage: PlatformStage, recorder: Recorder, ram: int, after: Outcome
) -> None:
    """The program of an attempt that was lost may still run."""
    control = replace(SELECTION, expect=Expectation(faults=("private-page",)))
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST, control.expect)
    vm.dma()
    assert stage.judged(replace(PASSED, outcome=after), control, ()).outcome is after
    vm.dma()
    vm.close()
    stage.end()
    assert len(recorder.result.failures) == (after is Outcome.PASS)


@pytest.mark.parametrize("harm", ["cut", "replaced"])
def test_a_log_that_was_tampered_with_is_no_verdict(
    stage: PlatformStage, recorder: Recorder, ram: int, harm: str
) -> None:
    log = recorder.run_dir / "platform.jsonl"
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    if harm == "cut":
        os.truncate(log, 10)
    else:
        log.write_bytes(log.rename(log.with_suffix(".old")).read_bytes())
    vm.dma()
    lost = stage.judged(PASSED, SELECTION, ())
    assert lost.outcome is Outcome.INFRA
    what = (
        "was cut or replaced" if harm == "cut" else "lacks the check 'end guest:tsm:races@model-A'"
    )
    assert lost.reason == f"platform.jsonl {what}"
    assert not recorder.result.failures, "the next attempt decides"
    vm.close()
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS
    failed = replace(PASSED, outcome=Outcome.FAIL, reason="EBUSY")
    stage.begin(TEST)
    os.truncate(log, 10)
    assert stage.judged(failed, SELECTION, ()).outcome is Outcome.FAIL, "it failed by itself"
    os.truncate(log, 5)
    stage.begin(TEST)
    (failure,) = recorder.result.failures
    assert (failure.kind, failure.message) == (
        "infra",
        "platform.jsonl was cut or replaced, outside of any test (before guest:tsm:races@model-A)",
    )
    vm.close()


def fill_disk(process: PlatformProcess, log: Path) -> None:
    """There is room for a few more bytes of the log only."""
    limit = log.stat().st_size + 30
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.parametrize("during", ["the test", "no test"])
def test_a_record_that_a_full_disk_cut_short(
    stage: PlatformStage, recorder: Recorder, ram: int, during: str
) -> None:
    """The test it belongs to is no verdict, nor is the run if it is no test's; then all is well."""
    log = recorder.run_dir / "platform.jsonl"
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    if during == "no test":
        assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS
    process = stage.process
    assert process is not None
    fill_disk(process, log)
    with contextlib.suppress(OSError, EOFError):
        vm.dma()
    wait_for(lambda: not process.alive(), "the platform to end")
    assert not log.read_bytes().endswith(b"\n")
    if during == "the test":
        assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.INFRA
    vm.close()
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    assert stage.judged(PASSED, SELECTION, ()).outcome is Outcome.PASS
    vm.close()
    stage.end()
    said = [
        (failure.kind, failure.message.partition(": ")[2]) for failure in recorder.result.failures
    ]
    half = "half a record, outside of any test (at the end of model-A)"
    assert said == ([] if during == "the test" else [("infra", half)])
    lines = [line for line in stage_log(recorder) if not line.endswith("}")]
    assert len(lines) == 1, "half a record is all that cannot be read"


def test_a_platform_that_hangs_is_no_answer(
    stage: PlatformStage, ram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.platform_process._ASK_S", 0.5)
    monkeypatch.setattr("harness.machines.platform_process._SETTLE_S", 0.5)
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    assert stage.process is not None
    os.kill(stage.process.pid, signal.SIGSTOP)
    lost = stage.judged(PASSED, SELECTION, ())
    assert lost.outcome is Outcome.INFRA
    assert "timed out" in lost.reason
    stage.end()
    assert TABLE.alive() == (), "a stopped process is killed"
    vm.close()


@pytest.mark.parametrize("outcome", [Outcome.CRASH, Outcome.PASS])
def test_a_crashed_vm_takes_the_platform_along(
    stage: PlatformStage, ram: int, outcome: Outcome
) -> None:
    """The kernel's crash stays a crash; a test that passed without a platform did not."""
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    vm.dma()
    process = stage.process
    assert process is not None
    vm.close()
    wait_for(lambda: not process.alive(), "the platform to end")
    result = stage.judged(replace(PASSED, outcome=outcome, reason="panic"), SELECTION, ())
    if outcome is Outcome.CRASH:
        assert result.outcome is Outcome.CRASH
        assert result.reason.startswith("panic; platform: a fault that nobody announced")
    else:
        assert result.outcome is Outcome.INFRA


def test_a_platform_that_somebody_ends_is_no_crash_of_the_kernel(
    stage: PlatformStage, ram: int
) -> None:
    vm = Vm(stage, "model-A", ram)
    stage.begin(TEST)
    assert stage.process is not None
    os.kill(stage.process.pid, signal.SIGTERM)
    result = stage.judged(replace(PASSED, outcome=Outcome.CRASH), SELECTION, ())
    assert result.outcome is Outcome.INFRA
    vm.close()


RUN_THAT_IS_KILLED = """
import sys
from pathlib import Path

from harness.adapters import live
from harness.adapters.process import TABLE
from harness.machines.platform_process import PlatformProcess
from harness.model.platform import PlatformCell

record = live.LiveRecord(Path(sys.argv[1]), "killed")
TABLE.on_start, TABLE.on_end = record.add_process, record.remove_process
process = PlatformProcess(PlatformCell("A"), Path(sys.argv[2]), record.add_path)
process.start()
print(process.pid, process.qemu_arguments[-1], flush=True)
sys.stdin.read()
"""


def test_the_platform_of_a_killed_run_is_cleared_up_by_the_next(tmp_path: Path) -> None:
    cache, run_dir = tmp_path / "cache", tmp_path / "run"
    run_dir.mkdir()
    argv = [sys.executable, "-c", RUN_THAT_IS_KILLED, str(cache), str(run_dir)]
    with subprocess.Popen(
        argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdout is not None
        pid, _, device = harness.stdout.readline().partition(" ")
        sockets = Path(json.loads(device)["socket"]["path"]).parent
        harness.kill()
        harness.wait()
    assert psutil.pid_exists(int(pid)), "it waits for a QEMU that never comes"
    assert sockets.exists()
    found = [one.what for one in live.sweep(cache)]
    assert found == [f"process {pid}", str(sockets)]
    wait_for(lambda: not psutil.pid_exists(int(pid)), "the platform to end")
    assert not sockets.exists()
