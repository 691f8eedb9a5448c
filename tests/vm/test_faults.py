# SPDX-License-Identifier: GPL-2.0-only
"""Programs that misbehave, run as kselftests on a real machine: each has its own outcome."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import layout
from harness.core.splat_rules import load_rules
from harness.machines.qemu import QemuMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import Role
from harness.model.machine import VmSpec
from harness.model.plan import TestId, TestSelection
from harness.model.results import Outcome, RunResult, TestResult, Verdict
from harness.report import json_report
from harness.stages import selftest
from harness.stages.recorder import Recorder
from tests.vm.children import children_with
from tests.vm.conftest import Assets

# name -> (script, outcome, part of the reason). run_kselftest.sh takes in lines a character at a
# time: 4 MB come through, 100 MB end by the timeout. 100 MB straight over SSH: test_ssh.py.
FAULTS = {
    "passes": ("echo 1..1; echo ok 1 fine", Outcome.PASS, ""),
    "fails": ("echo 1..2; echo ok 1 a; echo not ok 2 b; exit 1", Outcome.FAIL, "b"),
    "skips": ("echo '1..0 # SKIP no such device'; exit 4", Outcome.SKIP, ""),
    "hangs": ("sleep 1000", Outcome.TIMEOUT, ""),
    "signal": ("kill -SEGV $$", Outcome.FAIL, "exit=139"),
    "flood": (
        "echo 1..1; i=0; while [ $i -lt 64 ]; do head -c 65536 /dev/zero | tr '\\0' 'x'; echo;"
        " i=$((i + 1)); done; echo ok 1 flood",
        Outcome.PASS,
        "",
    ),
    "flood_100_mb": ("echo 1..1; head -c 100000000 /dev/zero", Outcome.TIMEOUT, ""),
    "kills_sshd": ("pkill -9 dropbear; sleep 60", Outcome.FAIL, "SSH"),
    "panics": ("echo c > /proc/sysrq-trigger; sleep 60", Outcome.CRASH, "panic"),
    "reboots": ("echo b > /proc/sysrq-trigger; sleep 60", Outcome.CRASH, "reset"),
    "powers_off": ("echo o > /proc/sysrq-trigger; sleep 60", Outcome.CRASH, ""),
}
# deadly ones last: each of them costs a machine
LIVES = ["passes", "fails", "skips", "hangs", "signal", "flood", "flood_100_mb"]
DIES = ["panics", "reboots", "powers_off"]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    start = RunResult(
        1, "faults", "p", "solo", "2026-01-01T00:00:00+00:00", 0.0, Verdict.INFRA, 2, "0", {}, ()
    )
    return Recorder(start, tmp_path, lambda: 0.0, json_report.write)


@pytest.fixture
def machine(assets: Assets, setup: QemuSetup, spec: VmSpec) -> Iterator[QemuMachine]:
    with ExitStack() as stack:
        found = QemuMachine(spec, setup, assets.build)
        stack.callback(found.close)
        found.start()
        selftest.install(found, selftest.kit(assets.build))
        for name, (script, _, _) in FAULTS.items():
            remote = f"/opt/kselftest/faults/{name}"
            found.run(["mkdir", "-p", "/opt/kselftest/faults"], timeout_s=30, check=True)
            found.write(remote, f"#!/bin/sh\n{script}\n".encode())
            found.run(
                f"chmod 755 {remote}; echo faults:{name} >> /opt/kselftest/kselftest-list.txt",
                timeout_s=30,
                check=True,
            )
        yield found


def run(machine: QemuMachine, recorder: Recorder, name: str) -> TestResult:
    rules = load_rules((layout.CONFIGS / "splat_rules.toml").read_text())
    timeout_s = 5.0 if name in ("hangs", "flood_100_mb") else 120.0
    selection = TestSelection(Role.GUEST, "faults", ("*",), (), timeout_s)
    settings = selftest.SelftestSettings("0123456789abcdef", 1.0, rules, datetime.date.today())
    test = TestId(Role.GUEST, "faults", name)
    return selftest.run_test(machine, test, selection, recorder, settings)


def check(result: TestResult, name: str, recorder: Recorder) -> None:
    _, outcome, reason = FAULTS[name]
    assert result.outcome is outcome, (name, result)
    assert reason.lower() in result.reason.lower(), (name, result)
    written = json.loads((recorder.run_dir / "result.json").read_text())
    assert written["tests"][-1]["test"] == name, "recorded on disk before the call returns"


def test_faults_that_a_machine_survives(machine: QemuMachine, recorder: Recorder) -> None:
    for name in LIVES:
        check(run(machine, recorder, name), name, recorder)
    for name in ("flood", "flood_100_mb"):
        flood = recorder.run_dir / "ktap" / "guest" / f"faults.{name}.ktap"
        assert flood.stat().st_size < 20 << 20, "a flood is cut, its head and tail are kept"
    # sshd is started again by init: the machine lives, and the next test runs on it
    check(run(machine, recorder, "kills_sshd"), "kills_sshd", recorder)
    check(run(machine, recorder, "passes"), "passes", recorder)


@pytest.mark.parametrize("name", DIES)
def test_faults_that_end_a_machine(machine: QemuMachine, recorder: Recorder, name: str) -> None:
    check(run(machine, recorder, name), name, recorder)
    machine.restart()
    assert machine.answers(), "the rest of the plan must be able to run"


def test_qemu_killed_is_infrastructure(machine: QemuMachine, recorder: Recorder) -> None:
    machine.run("(sleep 1000 &) ; true", timeout_s=30)
    children = children_with("qemu-system")
    assert children
    for child in children:
        child.kill()
    result = run(machine, recorder, "passes")
    assert result.outcome is Outcome.INFRA
    assert "qemu" in result.reason.lower()
