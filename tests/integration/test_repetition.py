# SPDX-License-Identifier: GPL-2.0-only
"""Repetition within a run: a machine that plays a script takes the place of the VM."""

from __future__ import annotations

import datetime
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness import cli, commands
from harness.adapters.process import TABLE
from harness.core.attribution import attribute
from harness.core.machine_end import EndReport
from harness.core.splat import find_splats, load_rules
from harness.errors import KernelError, MachineError, StorageError
from harness.layout import CONFIGS
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import ExecResult, MachineEnd
from harness.model.plan import KnownFailure, TestId, TestSelection
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, RunResult, TestResult, Verdict
from harness.report import json_report
from harness.stages.fleet import Fleet
from harness.stages.run import MainJob

RULES = load_rules((CONFIGS / "splat_rules.toml").read_text())
TEST = TestId(Role.GUEST, "tsm", "abi")
SELECTION = TestSelection(Role.GUEST, "tsm", ("*",), (), 60.0)
PASS = "TAP version 13\n1..1\n# selftests: tsm: abi\n# 1..1\n# ok 1 a\nok 1 selftests: tsm: abi\n"
FAIL = PASS.replace("ok 1", "not ok 1")
SPLAT = "[    1.000000] BUG: KASAN: use-after-free in tdi_lock+0x1/0x2\n"
_NONCE = re.compile(r'echo "([0-9a-f]{16}) status')


class PlayedConsole:
    """A console file that the played machine writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def size(self) -> int:
        return self.path.stat().st_size

    def wait_for(self, needle: bytes, timeout_s: float, start: int = 0) -> bool:
        del needle, timeout_s, start
        return True


class PlayedMachine:
    """Each command gets the next answer: KTAP text, an error, or what became of it.

    That is "panic", "qemu" (it dies), "lost" (the connection) or "no tree" (of kselftests).
    """

    name = "guest"
    role = Role.GUEST

    def __init__(self, console: PlayedConsole, answer: str | Exception, boot: int) -> None:
        self.console = console
        self.boot = boot
        self._answer = answer

    def run(self, command: str, *, timeout_s: float, stdin: bytes) -> ExecResult:
        del timeout_s
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer in ("panic", "qemu", "lost"):
            return ExecResult(command, None, b"", b"", 1.0, lost=True)
        if self._answer == "no tree":
            return ExecResult(command, 0, b"sh: 1: cd: can't cd to /opt\n\n", b"", 1.0)
        text, _, said = self._answer.partition("|")
        with self.console.path.open("a") as file:
            file.write(said)
        nonce = _NONCE.findall(stdin.decode())[0]
        status = 1 if "not ok" in text else 0
        output = f"{text}\n{nonce} status={status} taint=0,0\n".encode()
        return ExecResult(command, 0, output, b"", 1.0)

    def report(self) -> EndReport:
        if self._answer == "qemu":
            return EndReport(MachineEnd.QEMU_DIED, "QEMU died", ())
        if self._answer in ("no tree", "lost"):
            return EndReport(MachineEnd.ALIVE, "alive", ())
        return EndReport(MachineEnd.PANIC, "kernel panic in tdi_lock", ("last words",))


class PlayedHost:
    """The machine beside it: markers show on its console, and after a begin its kernel warns."""

    name = "host"

    def __init__(self, run_dir: Path) -> None:
        self.console = run_dir / "console-host.log"

    def mark(self, text: str) -> None:
        with self.console.open("a") as file:
            file.write(f"[    1.000000] {text}\n")
            if " begin " in text:
                file.write(SPLAT)


class PlayedFleet:
    """One machine per boot; `answers` are given one per attempt."""

    token = "0123456789abcdef"
    platform = None

    def __init__(self, run_dir: Path, answers: Sequence[str | Exception]) -> None:
        self._console = PlayedConsole(run_dir / "console-guest.log")
        self._answers = list(answers)
        self._up = False
        self.boots = 0
        self.host: PlayedHost | None = None
        self.trouble: list[Exception] = []  # of looking at the machine after a test

    def beside(self, role: Role) -> tuple[PlayedHost, ...]:
        del role
        return (self.host,) if self.host else ()

    def get(self, role: Role, cell: str = "") -> PlayedMachine:
        del role, cell
        if not self._up:
            self.boots += 1
            self._up = True
        answer = self._answers.pop(0)
        if isinstance(answer, KernelError):
            raise answer
        return PlayedMachine(self._console, answer, self.boots)

    def name(self, role: Role, cell: str = "") -> str:
        del cell
        return role.value

    def broken(self, role: Role, cell: str = "") -> bool:
        del role, cell
        return False

    def speed(self, role: Role) -> float:
        del role
        return 1.0

    def after_test(self, role: Role, result: TestResult) -> None:
        del role
        if self.trouble:
            raise self.trouble.pop()
        self._up = self._up and result.outcome not in (Outcome.CRASH, Outcome.INFRA)

    def discard(self, role: Role) -> None:
        del role
        self._up = False


class Played:
    """A run of one test on a played fleet."""

    def __init__(self, tmp_path: Path, *arguments: str, **plan: Any) -> None:
        words = ("run", "default", "--runs-dir", str(tmp_path / "runs"), *arguments)
        options = commands.run_options(cli.parse(words), words)
        options = replace(options, cache=tmp_path / "cache", plan=replace(options.plan, **plan))
        self.job = MainJob(options, SilentProgress())
        self.run_dir = self.job.recorder.run_dir
        artifact = tmp_path / "artifact"
        artifact.mkdir()
        (artifact / "kselftest-list.txt").write_text("tsm:abi\n")
        self._build = KernelBuild(Role.GUEST, "k", artifact, "7", "ab", "gcc", (), True, 0.0, "c")

    def play(
        self,
        *answers: str | Exception,
        selection: TestSelection = SELECTION,
        host: PlayedHost | None = None,
        trouble: Sequence[Exception] = (),
    ) -> PlayedFleet:
        fleet = PlayedFleet(self.run_dir, answers)
        fleet.host = host
        fleet.trouble = list(trouble)
        self.job.tests.one(cast(Fleet, fleet), self._build, TEST, selection)
        return fleet

    def result(self) -> TestResult:
        (found,) = json_report.load(self.run_dir / "result.json").tests
        return found

    @property
    def verdict(self) -> Verdict:
        return self.job.recorder.result.verdict


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_ends_its_processes(tmp_path: Path, signum: int) -> None:
    """All of them end, the reports are written, no record stays; then it is an interrupt."""
    job = Played(tmp_path).job
    stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    with (
        pytest.raises(KeyboardInterrupt),
        cli._termination_as_interrupt(),
        job.opened(),
    ):
        children = [TABLE.start(stubborn) for _ in range(2)]
        TABLE.stopping.set()  # as after a signal while disks are made
        time.sleep(0.3)
        threading.Timer(0.5, os.kill, (os.getpid(), signum)).start()
    assert not any(child.alive() for child in children)
    assert TABLE.alive() == ()
    assert not TABLE.stopping.is_set()
    assert (job.recorder.run_dir / "report.html").exists()
    assert not list((tmp_path / "cache" / "live").iterdir())


def test_a_pass_is_run_once(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.play(PASS).boots == 1
    assert (played.result().outcome, played.result().attempts) == (Outcome.PASS, ())
    assert played.verdict is Verdict.PASS


def test_what_another_machine_says_meanwhile_belongs_to_the_test(tmp_path: Path) -> None:
    played = Played(tmp_path)
    host = PlayedHost(played.run_dir)
    fleet = played.play(f"{FAIL}|console of the first attempt\n", PASS, host=host)
    text = host.console.read_bytes()
    host.console.write_bytes(text + SPLAT.encode())
    found = find_splats(host.console.read_bytes(), RULES)
    tests = [test for _, test in attribute(host.console.read_bytes(), found, fleet.token)]
    assert tests == ["guest:tsm:abi", "guest:tsm:abi", ""], "one per attempt; the last is after it"


def test_fail_then_pass_is_flaky_on_two_machines_with_two_logs(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.play(FAIL, PASS).boots == 2
    found = played.result()
    assert (found.outcome, played.verdict) == (Outcome.FLAKY, Verdict.FAIL)
    logs = [(played.run_dir / attempt.log).read_text() for attempt in found.attempts]
    assert logs == [FAIL, PASS]
    assert [s.outcome for s in found.subtests] == [Outcome.FLAKY]
    assert (played.run_dir / found.log).read_text() == FAIL


def test_flaky_passes_when_the_plan_says_so_but_a_splat_does_not(tmp_path: Path) -> None:
    played = Played(tmp_path, flaky_passes=True)
    played.play(FAIL, PASS)
    assert (played.result().outcome, played.verdict) == (Outcome.FLAKY, Verdict.PASS)
    (tmp_path / "second").mkdir()
    played = Played(tmp_path / "second", flaky_passes=True)
    played.play(f"{PASS}|{SPLAT}", PASS)
    assert (played.result().outcome, played.verdict) == (Outcome.FLAKY, Verdict.FAIL)


def test_fail_twice_fails(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.play(FAIL, FAIL).boots == 2
    assert played.result().outcome is Outcome.FAIL
    assert "on a fresh machine: fail" in played.result().reason


def test_a_crash_is_repeated_and_keeps_its_last_lines(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.play("panic", PASS).boots == 2
    found = played.result()
    assert found.outcome is Outcome.FLAKY
    assert found.reason == "attempt 1: crash: kernel panic in tdi_lock; attempt 2 passed"
    assert found.last_lines == ("last words",)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("lost", "it ended the SSH connection that it ran under; the machine lives"),
        (
            "no tree",
            "the runner gave no status; the last line of output: sh: 1: cd: can't cd to /opt",
        ),
    ],
)
def test_why_there_is_no_status(tmp_path: Path, answer: str, reason: str) -> None:
    played = Played(tmp_path, "--repeat", "0")
    played.play(answer)
    assert (played.result().outcome, played.result().reason) == (Outcome.FAIL, reason)


@pytest.mark.parametrize(("option", "boots"), [("0", 1), ("3", 4)])
def test_the_option_decides_how_often(tmp_path: Path, option: str, boots: int) -> None:
    played = Played(tmp_path, "--repeat", option)
    assert played.play(*[FAIL] * boots).boots == boots
    assert len(played.result().attempts) == (boots if boots > 1 else 0)


def test_infrastructure_is_retried_apart_and_noted(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play(MachineError("guest: SSH gone"), FAIL, PASS)
    found = played.result()
    assert [a.outcome.value for a in found.attempts] == ["infra", "fail", "pass"]
    assert found.outcome is Outcome.FLAKY
    result = played.job.recorder.result
    assert result.failures == ()
    assert result.notes == ("guest:tsm:abi: tried again after: guest: SSH gone",)


def test_trouble_after_a_verdict_does_not_take_its_place(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play("panic", PASS, trouble=[MachineError("guest: another key")])
    found = played.result()
    assert [a.outcome for a in found.attempts] == [Outcome.CRASH, Outcome.PASS]
    assert (found.outcome, played.verdict) == (Outcome.FLAKY, Verdict.FAIL)
    assert [f.message for f in played.job.recorder.result.failures] == ["guest: another key"]


def test_a_crash_that_the_disk_had_no_room_for_is_not_tried_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(tmp_path)
    draft = played.job.recorder._draft

    def full(path: Path, result: RunResult) -> None:
        if result.tests:
            raise OSError(28, "No space left on device")
        draft(path, result)

    monkeypatch.setattr(played.job.recorder, "_draft", full)
    with pytest.raises(StorageError):
        played.play("panic", PASS)
    assert [t.outcome for t in played.job.recorder.result.tests] == [Outcome.CRASH]
    assert played.verdict is Verdict.FAIL


def test_a_crash_of_a_flaky_test_is_never_excused(tmp_path: Path) -> None:
    played = Played(tmp_path, flaky_passes=True)
    played.play("panic", PASS)
    assert (played.result().outcome, played.verdict) == (Outcome.FLAKY, Verdict.FAIL)


def test_a_lost_qemu_is_noted(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play("qemu", PASS)
    assert (played.result().outcome, played.verdict) == (Outcome.PASS, Verdict.PASS)
    (note,) = played.job.recorder.result.notes
    assert note == "guest:tsm:abi: tried again after: QEMU died"


def test_infrastructure_that_fails_twice_is_infra(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play(MachineError("guest: SSH gone"), MachineError("guest: SSH gone again"))
    assert (played.result().outcome, played.verdict) == (Outcome.INFRA, Verdict.INFRA)
    messages = [failure.message for failure in played.job.recorder.result.failures]
    assert messages == ["guest: SSH gone", "guest: SSH gone again"]


def test_a_kernel_that_does_not_come_up_again_keeps_what_was_found(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.play(FAIL, KernelError("guest: the kernel panics at boot"))
    assert (played.result().outcome, played.verdict) == (Outcome.FAIL, Verdict.FAIL)
    assert "panics at boot" in played.job.recorder.result.failures[0].message


def test_a_known_failure_is_not_repeated_until_it_expires(tmp_path: Path) -> None:
    played = Played(tmp_path)
    known = replace(SELECTION, known=(KnownFailure("abi:a", "bug 7"),))
    assert played.play(FAIL, selection=known).boots == 1
    assert played.result().outcome is Outcome.XFAIL


def test_an_expired_one_is_repeated_and_said(tmp_path: Path) -> None:
    known = (KnownFailure("abi:a", "bug 7", datetime.date(2020, 1, 31)),)
    selection = replace(SELECTION, known=known)
    played = Played(tmp_path, selections=(selection,))
    assert played.play(FAIL, FAIL, selection=selection).boots == 2
    said = "no longer excused: the known failure expired on 2020-01-31 (bug 7)"
    assert said in played.result().reason
    assert played.job.recorder.result.notes == (f"guest:tsm:abi:a: {said}",)


def test_what_is_skipped_or_not_built_needs_no_machine(tmp_path: Path) -> None:
    played = Played(tmp_path)
    assert played.play(selection=replace(SELECTION, skip=(("abi", "no"),))).boots == 0
    assert played.result().outcome is Outcome.SKIP


def test_a_defect_of_the_harness_is_no_statement_about_the_kernel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(tmp_path)

    def broken(*_: object) -> int:
        played.play(PASS)
        raise KeyError("model-Z")

    with pytest.raises(KeyError), played.job.opened():
        broken()
    result = json_report.load(played.run_dir / "result.json")
    assert (result.verdict, result.exit_code) == (Verdict.INFRA, 2)
    assert result.failures[0].message == "a defect of the harness: KeyError: 'model-Z'"
    assert "in broken" in result.failures[0].excerpt
    assert (played.run_dir / "report.html").exists()

    monkeypatch.setattr(cli, "_verbs", lambda: {"doctor": broken})
    assert cli.main(["doctor"]) == 2
    assert "a defect of the harness" in capsys.readouterr().err
