# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness run` as a user starts it: a process, its output, its files, its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.adapters.history import HistoryStore
from harness.layout import REPOSITORY, cache_directory
from harness.report import json_report
from tests.vm.conftest import Assets

RUN = [sys.executable, "-m", "harness", "run"]


def harness(
    *arguments: str, runs: Path, check: int | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*RUN, *arguments, "--runs-dir", str(runs)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


def result_of(runs: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((runs / "latest" / "result.json").read_text())
    json_report.validate(data)
    return data


def left_behind() -> list[str]:
    """Processes of QEMU that this harness started, and live records."""
    own = str(cache_directory())
    found = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
        and own in " ".join(process.info["cmdline"])
        and "qemu-system" in " ".join(process.info["cmdline"])
    ]
    return found + [str(path) for path in (cache_directory() / "live").glob("*.json")]


@pytest.fixture(scope="module")
def pair(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair's part of the default plan: the tsm collection in both roles."""
    del assets  # made first, so that the time of this run is its own
    runs = tmp_path_factory.mktemp("pair")
    pair_run(runs)
    return runs


def pair_run(runs: Path) -> None:
    """A pair run that passes. QEMU's emulated SVM may lose a machine: then it is tried again.

    What is forgiven is a machine that went silent or reset itself, never a test that failed.
    """
    for attempt in range(3):
        done = harness("default", "-k", "tsm and not model", runs=runs)
        if done.returncode == 0:
            return
        result = result_of(runs)
        lost = [f for f in result["failures"] if f["kind"] in ("boot", "crash", "infra")]
        lost += [t for t in result["tests"] for a in t["attempts"] if a["outcome"] == "crash"]
        bad = [t for t in result["tests"] if t["outcome"] in ("fail", "timeout", "missing")]
        assert lost, done.stdout + done.stderr
        assert not bad, done.stdout + done.stderr
        assert attempt < 2, done.stdout + done.stderr


def test_both_roles_ran_on_the_kernels_that_were_built(pair: Path) -> None:
    result = result_of(pair)
    kernels = {kernel["role"]: kernel for kernel in result["kernels"]}
    machines = {machine["role"]: machine for machine in result["machines"]}
    assert kernels["host"]["build_id"] != kernels["guest"]["build_id"]
    for role in ("host", "guest"):
        assert machines[role]["build_id"] == kernels[role]["build_id"]
        assert kernels[role]["series"], "the built-in series was not applied"
    assert machines["guest"]["kind"] == "nested"
    assert machines["guest"]["accel"] == "kvm", "the guest must run under the host machine's KVM"
    assert result["verdict"] == "pass"


def test_guests_alone_come_after_the_pair(assets: Assets, tmp_path: Path) -> None:
    """Beside the host machine's kernel, the same guest kernel in a VM of its own, with TDIs."""
    del assets
    expression = "host and tsm_class or tsm_uapi and model-N and not vtom"
    done = harness("default", "-k", expression, runs=tmp_path, check=0)
    result = result_of(tmp_path)
    kinds = {m["name"]: (m["role"], m["kind"], m["boots"]) for m in result["machines"]}
    assert kinds == {"host": ("host", "qemu", 1), "guest-solo": ("guest", "qemu", 1)}
    assert [(t["machine"], t["test"], t["cell"]) for t in result["tests"]] == [
        ("host", "tsm_class", ""),
        ("guest-solo", "tsm_uapi", "model-N"),
    ]
    assert result["tests"][1]["platform"]["transitions"], "the platform saw what the test did"
    ended = done.stderr.index("host: ends, the next guest is a VM of this machine")
    assert done.stderr.index("platform: model-N, pid") > ended
    assert (tmp_path / "latest" / "console-guest-solo.log").exists()


def test_each_series_is_seen_by_a_test_of_its_role(pair: Path) -> None:
    outcomes = {(test["role"], test["test"]): test["outcome"] for test in result_of(pair)["tests"]}
    assert outcomes["guest", "dma_freeze"] == "pass"
    assert outcomes["host", "tsm_class"] == "pass"
    # each skips, with a reason, on the kernel that lacks its series
    assert outcomes["host", "dma_freeze"] == "skip"
    assert outcomes["guest", "tsm_class"] == "skip"


def test_reports_stand_beside_the_result(pair: Path) -> None:
    run = (pair / "latest").resolve()
    page = (run / "report.html").read_text()
    assert page.count("<script") == 1, "our own, which the policy names"
    assert "dma_freeze" in page
    suites = ET.parse(run / "junit.xml").getroot()
    assert {suite.get("name") for suite in suites} >= {"guest:tsm", "host:tsm"}
    for role in ("host", "guest"):
        console = (run / f"console-{role}.log").read_text(errors="replace")
        assert "Linux version" in console
        # the host machine is up during all tests, the guest at least during its own
        for tested in {"host": ("host", "guest"), "guest": ("guest",)}[role]:
            assert f"tdisp-harness: begin {tested}:tsm:dma_freeze" in console
            assert f"tdisp-harness: end {tested}:tsm:dma_freeze" in console
        assert "CONFIG_PCI_TSM" in (run / f"config-proof-{role}.txt").read_text()
    assert os.access(run / "reproduce.sh", os.X_OK)
    assert not (run / "id_ed25519").exists(), "the run's private key must not stay"


def test_nothing_is_left_behind(pair: Path) -> None:
    del pair
    assert left_behind() == []


def test_reproduce_runs_the_same_thing_again(assets: Assets, tmp_path: Path) -> None:
    del assets
    first, second = tmp_path / "first", tmp_path / "second"
    harness("--topology", "solo", "-k", "dma_freeze", runs=first, check=0)
    script = (first / "latest").resolve() / "reproduce.sh"
    for pin in ("series", "configuration", "root file system", "QEMU line"):
        assert f'"{pin} of the guest": ' in script.read_text()
    environment = {
        **os.environ,
        "TDISP_HARNESS": str(Path(sys.executable).with_name("tdisp-harness")),
        "REPRODUCE_RUNS": str(second),
    }
    done = subprocess.run(
        [str(script)], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = result_of(first), result_of(second)
    assert [k["build_id"] for k in before["kernels"]] == [k["build_id"] for k in after["kernels"]]
    assert [t["test"] for t in before["tests"]] == [t["test"] for t in after["tests"]]


REPEATED = """
title = "one test, which is announced to fail and does not"
topology = "solo"
[[tests]]
role = "guest"
collection = "tsm"
tests = ["dma_freeze"]
timeout_s = 120
"""


def test_a_failure_is_repeated_on_a_fresh_machine_and_then_fixed(
    assets: Assets, tmp_path: Path
) -> None:
    del assets
    plan, runs = tmp_path / "repeated.toml", tmp_path / "runs"
    plan.write_text(
        f'{REPEATED}known = {{ "dma_freeze:*" = {{ reason = "r", until = 2999-01-31 }} }}'
    )
    harness(str(plan), "--repeat", "1", runs=runs, check=1)
    first = result_of(runs)
    (test,) = first["tests"]
    assert [attempt["outcome"] for attempt in test["attempts"]] == ["xpass", "xpass"]
    for attempt in test["attempts"]:
        assert (runs / "latest" / attempt["log"]).read_text().startswith("TAP version 13")
    assert first["machines"][0]["boots"] == 2
    assert first["baseline"] is None
    plan.write_text(REPEATED)
    harness(str(plan), runs=runs, check=0)
    baseline = result_of(runs)["baseline"]
    assert baseline["run_id"] == first["run_id"]
    assert "fixed" in {case["change"] for case in baseline["cases"]}
    assert "new failure" not in baseline["counts"]
    assert [len(one["points"]) for one in result_of(runs)["history"]] == [2]


def test_solo_runs_one_test_on_the_guest_alone(assets: Assets, tmp_path: Path) -> None:
    del assets
    harness("--topology", "solo", "-k", "guest and dma_freeze", runs=tmp_path, check=0)
    result = result_of(tmp_path)
    assert [machine["kind"] for machine in result["machines"]] == ["qemu"]
    assert [test["test"] for test in result["tests"]] == ["dma_freeze"]
    assert all(kernel["cached"] for kernel in result["kernels"])


def test_an_expression_without_a_match_names_what_there_is(assets: Assets, tmp_path: Path) -> None:
    del assets
    done = harness("--topology", "solo", "-k", "no_such_test", runs=tmp_path, check=64)
    assert "guest:tsm:dma_freeze" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("topology", "expression", "line"),
    [
        ("solo", "dma_freeze", r"\] boot$"),
        ("solo", "dma_freeze", r"\] kselftests$"),
        ("pair", "host and tsm_class", r"host: deploying .* over SSH and kexec$"),
        ("pair", "guest and tsm_class and not model", r"guest: starting on the host machine"),
    ],
    ids=["boot", "kselftests", "deploy", "boot of the nested guest"],
)
def test_a_signal_ends_everything_and_keeps_what_was_recorded(  # noqa: PLR0917
    assets: Assets,
    tmp_path: Path,
    signum: signal.Signals,
    topology: str,
    expression: str,
    line: str,
) -> None:
    del assets
    options = ["--topology", topology, "-k", expression, "--runs-dir", str(tmp_path)]
    arguments = [*RUN, *options]
    process = subprocess.Popen(arguments, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any(re.search(line, said.rstrip()) for said in process.stderr)
    time.sleep(1.0)
    process.send_signal(signum)
    rest = process.stderr.read()
    assert process.wait(60) == 2, rest
    process.stderr.close()
    result = result_of(tmp_path)
    assert result["failures"][0]["kind"] == "interrupted"
    assert result["kernels"], "what was recorded before the signal is kept"
    assert (tmp_path / "latest" / "report.html").exists()
    assert left_behind() == []


def test_a_killed_run_is_cleared_up_by_the_next(assets: Assets, tmp_path: Path) -> None:
    del assets
    arguments = [*RUN, "--topology", "solo", "-k", "dma_freeze", "--runs-dir", str(tmp_path)]
    process = subprocess.Popen(arguments, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith("kselftests"):
            break
    process.kill()
    process.wait()
    process.stderr.close()
    assert left_behind(), "QEMU outlives a SIGKILL of the harness"
    done = harness("--topology", "solo", "-k", "dma_freeze", runs=tmp_path, check=0)
    assert "cleared up after" in done.stderr
    assert left_behind() == []


def test_two_runs_at_the_same_time(assets: Assets, tmp_path: Path) -> None:
    del assets
    arguments = [*RUN, "--topology", "solo", "-k", "dma_freeze", "--runs-dir", str(tmp_path)]
    null = subprocess.DEVNULL
    both = [subprocess.Popen(arguments, cwd=REPOSITORY, stdout=null, stderr=null) for _ in range(2)]
    assert [process.wait(900) for process in both] == [0, 0]
    runs = [path.name for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(runs) == 2
    assert {run.run_id for run in HistoryStore(tmp_path, print).recent(9)} == set(runs)


def test_without_a_network_a_cached_run_works(assets: Assets, tmp_path: Path) -> None:
    del assets
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    prefix = ["unshare", *user, "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network namespaces here, or no ip")
    arguments = ["--topology", "solo", "-k", "guest and dma_freeze", "--runs-dir", str(tmp_path)]
    done = subprocess.run(
        [*prefix, *RUN, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result_of(tmp_path)["verdict"] == "pass"
