# SPDX-License-Identifier: GPL-2.0-only
"""Whole runs with the emulated platform: its verdict, and what is left when something is killed."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.emulator import oracle
from harness.machines.platform_process import PlatformProcess
from harness.model.kernel import KernelBuild
from harness.model.machine import VmSpec
from harness.model.platform import PlatformCell
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, RunResult, TestResult, Verdict
from harness.report import json_report
from tests.vm.children import children_with
from tests.vm.conftest import Assets, MakeVm
from tests.vm.poke import PokeJob, with_poke

HEAD = """
title = "the platform, from user space"
topology = "solo"
repeat = 0
infra_retries = 0
[machines.guest]
memory_mib = 512
[platform]
model = "A"
"""
TESTS = """
[[tests]]
role = "guest"
collection = "poke"
tests = [{names}]
{more}
"""


def plan(path: Path, names: str, more: str = "", head: str = HEAD) -> Path:
    quoted = ", ".join(f'"{name}"' for name in names.split())
    path.write_text(head + TESTS.format(names=quoted, more=more))
    return path


@pytest.fixture(scope="module")
def poke(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> KernelBuild:
    return with_poke(assets.build, tmp_path_factory.mktemp("poke"))


@pytest.fixture
def run(
    assets: Assets, poke: KernelBuild, tmp_path: Path
) -> Callable[[Path, Callable[[Path], None] | None], tuple[RunResult, Path]]:
    """run(plan, meanwhile): `meanwhile` is called in a thread, with the run directory."""

    def execute(path: Path, meanwhile: Callable[[Path], None] | None) -> tuple[RunResult, Path]:
        before = leftovers()
        job = PokeJob(path, tmp_path / "runs", SilentProgress())
        thread = threading.Thread(target=meanwhile or (lambda _: None), args=(job.run_dir,))

        def start() -> None:
            thread.start()

        result = job.execute(poke, assets.provisions, start)
        thread.join(10)
        assert leftovers() == before
        assert json_report.load(job.run_dir / "result.json") == result
        return result, job.run_dir

    return execute


Run = Callable[[Path, Callable[[Path], None] | None], tuple[RunResult, Path]]


def leftovers() -> set[str]:
    """Processes below this one, and socket directories of platforms."""
    children = psutil.Process().children(recursive=True)
    found = {f"{child.pid}" for child in children if child.status() != psutil.STATUS_ZOMBIE}
    return found | {str(p) for p in Path(tempfile.gettempdir()).glob("tdisp-platform-*")}


def wait_for_test(run_dir: Path, name: str, limit_s: float = 300.0) -> None:
    """Until the platform's log says that a test has begun."""
    log, needle = run_dir / "platform.jsonl", f'"label":"begin guest:poke:{name}@'.encode()
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if log.exists() and needle in log.read_bytes():
            time.sleep(1.0)
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} did not begin")


def platform_pid(run_dir: Path) -> int:
    records = oracle.read(run_dir / "platform.jsonl")
    return next(int(r["pid"]) for r in reversed(records) if r["event"] == "start")


def qemu_pid() -> int:
    found = children_with("process=tdisp-guest")
    assert found, "no QEMU runs"
    return int(found[0].pid)


def by_name(result: RunResult) -> dict[str, TestResult]:
    return {test.program: test for test in result.tests}


def test_dma_is_judged_in_every_cell(run: Run, tmp_path: Path) -> None:
    head = HEAD + 'axes = { model = ["A", "N"] }\n'
    result, run_dir = run(plan(tmp_path / "p.toml", "judged unannounced missing", head=head), None)
    tests = by_name(result)
    assert list(tests) == [
        f"{name}@model-{model}" for model in "AN" for name in ("judged", "unannounced", "missing")
    ]
    for model in "AN":
        good = tests[f"judged@model-{model}"]
        assert (good.outcome, good.reason) == (Outcome.PASS, "")
        assert good.platform is not None
        assert (good.platform.tlps_ok, good.platform.tlps_blocked) == (1, 1)
        assert [fault.reason for fault in good.platform.faults] == ["private-page"]
        # the test itself said that all was well
        bad = tests[f"unannounced@model-{model}"]
        assert bad.outcome is Outcome.FAIL
        assert [sub.outcome for sub in bad.subtests] == [Outcome.PASS]
        assert bad.reason.startswith("platform: a fault that nobody announced: private-page: T=0")
        short = tests[f"missing@model-{model}"]
        assert short.outcome is Outcome.FAIL
        assert "an announced fault did not happen: private-page of TDI" in short.reason
    assert result.verdict is Verdict.FAIL
    assert [(cell.name, cell.boots) for cell in result.cells] == [("model-A", 1), ("model-N", 1)]
    assert all(0 < cell.test_s < cell.end_s - cell.start_s for cell in result.cells)
    starts = [r for r in oracle.read(run_dir / "platform.jsonl") if r["event"] == "start"]
    assert [start["model"] for start in starts] == ["A", "N"]


def test_a_platform_that_is_killed_is_no_verdict_on_the_kernel(run: Run, tmp_path: Path) -> None:
    def kill(run_dir: Path) -> None:
        wait_for_test(run_dir, "stream")
        kill_while_streaming(platform_pid(run_dir), run_dir)

    result, _ = run(plan(tmp_path / "p.toml", "stream judged"), kill)
    tests = by_name(result)
    lost = tests["stream@model-A"]
    assert lost.outcome is Outcome.INFRA
    assert lost.reason == "the platform was killed by signal 9 while the test ran"
    assert tests["judged@model-A"].outcome is Outcome.PASS, "the rest goes on, on a fresh machine"
    assert result.verdict is Verdict.INFRA
    assert result.cells[0].boots == 2


def test_a_qemu_that_is_killed_takes_the_platform_along(run: Run, tmp_path: Path) -> None:
    ended: list[bool] = []

    def kill(run_dir: Path) -> None:
        wait_for_test(run_dir, "wait")
        platform = psutil.Process(platform_pid(run_dir))
        os.kill(qemu_pid(), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not ended:
            if not platform.is_running() or platform.status() == psutil.STATUS_ZOMBIE:
                ended.append(True)
            time.sleep(0.05)

    result, run_dir = run(plan(tmp_path / "p.toml", "wait judged"), kill)
    assert ended
    tests = by_name(result)
    assert tests["wait@model-A"].outcome is Outcome.INFRA
    assert "QEMU" in tests["wait@model-A"].reason
    assert tests["judged@model-A"].outcome is Outcome.PASS
    ends = [r["event"] for r in oracle.read(run_dir / "platform.jsonl") if r["event"] == "stop"]
    assert len(ends) == 2, "both platforms ended by themselves"


def test_an_interrupt_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    def interrupt(run_dir: Path) -> None:
        wait_for_test(run_dir, "wait")
        os.kill(os.getpid(), signal.SIGINT)

    result, run_dir = run(plan(tmp_path / "p.toml", "judged wait"), interrupt)
    assert [failure.kind for failure in result.failures] == ["interrupted"]
    assert by_name(result)["judged@model-A"].outcome is Outcome.PASS, "what was found is kept"
    assert (run_dir / "platform.jsonl").exists()


def test_a_platform_that_does_not_start_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a directory whose sockets would have names that are too long
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    result, _ = run(plan(tmp_path / "p.toml", "judged"), None)
    assert result.verdict is Verdict.INFRA
    assert "platform: did not start" in result.failures[0].message
    assert "too long for a socket path" in result.failures[0].message


def test_a_guest_survives_the_loss_of_its_platform(
    assets: Assets, make_vm: MakeVm, spec: VmSpec, tmp_path: Path
) -> None:
    """It must not hang for ever, whatever its drivers make of dead devices."""
    process = PlatformProcess(PlatformCell("A"), tmp_path, lambda _: None)
    try:
        process.start()
        wired = replace(spec, append="cc_emulated=on", extra_args=process.qemu_arguments)
        machine = make_vm(wired, assets.build)
        machine.start()
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(1.0)
        devices = "/sys/bus/pci/devices"
        looked = machine.run(f"cat {devices}/*/config > /dev/null; echo still here", timeout_s=60)
        assert b"still here" in looked.stdout
        written = machine.run("dd if=/dev/zero of=/root/x bs=64k count=16 && sync", timeout_s=60)
        assert written.exit_status == 0, "the other devices' DMA goes on"
    finally:
        process.close()


def kill_while_streaming(pid: int, directory: Path) -> None:
    """SIGKILL once a hundred transfers are in the platform's log."""
    deadline = time.monotonic() + 60
    log = directory / "platform.jsonl"
    while time.monotonic() < deadline:
        if log.exists() and log.read_bytes().count(b'"event":"tlp"') > 100:
            break
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
