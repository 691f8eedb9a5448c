# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that do not come up, or end before the first test, through `tdisp-harness run`.

The kernel is that of the default plan, led astray by its command line (a plan with a platform may
add to it); one is patched, because a kernel that dies before its console has not read that line.
All runs go on at the same time: what costs minutes is the waiting for kernels that say nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.layout import REPOSITORY
from harness.report import json_report
from tests.vm.conftest import Assets

PATCH = Path(__file__).with_name("data") / "panic-before-console.patch"
# the collections are those of the default plan, so that the kernel is the same
PLAN = """
title = "a kernel that goes astray"
topology = "solo"
[machines.guest]
memory_mib = 512
cpus = 1
[platform]
append = {append}
[[tests]]
role = "guest"
collection = "tsm"
tests = ["dma_freeze"]
[[tests]]
role = "guest"
collection = "iommu"
tests = ["*", "!*"]
"""


@dataclass(frozen=True)
class Fault:
    """append: to the kernel's command line. series: one more patch. message: of the failure."""

    message: str
    append: str = ""
    series: Path | None = None


FAULTS = {
    "panics before the console": Fault("the console stayed empty", series=PATCH),
    "panics at boot": Fault(
        r"kernel panic.*Requested init /nonexistent failed", "init=/nonexistent"
    ),
    "hangs silently": Fault(
        r"fell silent; the console said last: ",
        "root=/dev/nosuch rootwait",
    ),
    "sshd never answers": Fault(
        r"did not come up", 'init=/bin/sh -- -c "echo tdisp-harness: sshd ready; exec sleep 1000"'
    ),
    # when the kselftests are being installed: SSH was proved to work before
    "panics after sshd": Fault(
        r"sysrq triggered crash",
        'init=/bin/sh -- -c "(until [ -e /opt/kselftest ]; do sleep 0.02; done;'
        ' echo c > /proc/sysrq-trigger) & exec /sbin/tdisp-init"',
    ),
}


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    exit_code: int
    said: str
    result: dict[str, Any]
    run_dir: Path


@pytest.fixture(scope="module")
def runs(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All runs, by name of the fault."""
    del assets  # the kernel comes from the cache
    started = {}
    for name, fault in FAULTS.items():
        directory = tmp_path_factory.mktemp("run")
        plan = directory / "astray.toml"
        plan.write_text(PLAN.format(append=json.dumps(fault.append)))
        argv = [sys.executable, "-m", "harness", "run", str(plan), "--runs-dir", str(directory)]
        if fault.series is not None:
            argv += ["--series", f"guest={fault.series}"]
        process = subprocess.Popen(
            argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started[name] = process, directory / "latest"
    found = {}
    for name, (process, run_dir) in started.items():
        said = process.communicate(timeout=3000)[0]
        result = json.loads((run_dir / "result.json").read_text())
        json_report.validate(result)
        found[name] = Ended(process.returncode, said, result, run_dir)
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_kernel_that_does_not_come_up_fails_the_run(runs: dict[str, Ended], name: str) -> None:
    ended = runs[name]
    assert ended.exit_code == 1, ended.said
    messages = "\n".join(failure["message"] for failure in ended.result["failures"])
    messages += "\n".join(record["splat"]["title"] for record in ended.result["splats"])
    assert re.search(FAULTS[name].message, messages), messages
    # what was known before is on disk, and in every report
    assert [kernel["role"] for kernel in ended.result["kernels"]] == ["guest"]
    assert ended.result["verdict"] == "fail"
    assert not [test for test in ended.result["tests"] if test["outcome"] == "pass"]
    assert (ended.run_dir / "console-guest.log").exists()
    assert re.search(r"^FAIL", ended.said, re.MULTILINE), ended.said


def test_only_the_patched_kernel_is_not_that_of_the_default_plan(runs: dict[str, Ended]) -> None:
    ids = {name: ended.result["kernels"][0]["build_id"] for name, ended in runs.items()}
    patched = ids.pop("panics before the console")
    assert len(set(ids.values())) == 1
    assert patched not in ids.values()
    assert not (runs["panics before the console"].run_dir / "console-guest.log").read_bytes()
