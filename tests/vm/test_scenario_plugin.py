# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on scenarios, and the one of docs/writing-a-test.md, as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.layout import CACHE_VARIABLE, REPOSITORY, cache_directory
from harness.report import json_report
from tests.vm.conftest import Assets

pytest_plugins = ["pytester"]

# before pytester moves $HOME, and with it the cache that holds the kernels
CACHE = cache_directory()

BAD = """
import pytest
pytestmark = pytest.mark.tdisp(plan="trust", cell="model-A")

def test_good(tdi):
    tdi.trusted()
    slot = tdi.must("map dma_map_phys 4096")["slot"]
    tdi.must(f"roundtrip {slot}")

def test_fault_that_nobody_announced(tdi):
    tdi.must("bind")
    tdi.must("dma-at write 0x1000 8 1")

def test_announced_fault_that_does_not_come(scenario, tdi):
    scenario.announce("private-page")

def test_splat(guest, tdi):
    guest.run("echo '<4>WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2' > /dev/kmsg; "
              "echo '<4>RIP: 0010:f+0x1/0x2' > /dev/kmsg; "
              "echo '<4>---[ end trace 0000000000000000 ]---' > /dev/kmsg", timeout_s=30)

def test_own_assertion(tdi):
    assert tdi.state() == "run"

def test_no_such_command(tdi):
    tdi.must("fly")

def test_skips(host):
    pass
"""


@pytest.fixture(autouse=True)
def kernels(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The subprocess finds them where they are."""
    del pytester
    monkeypatch.setenv(CACHE_VARIABLE, str(CACHE))


def run(pytester: pytest.Pytester, text: str, runs: Path) -> dict[str, tuple[str, str]]:
    """name -> (outcome, reason) of result.json."""
    pytester.makepyfile(text)
    pytester.runpytest_subprocess("-q", "--tdisp-runs-dir", str(runs), "-p", "no:cacheprovider")
    result = json_report.load(runs / "latest" / "result.json")
    assert (runs / "latest" / "report.html").exists()
    return {test.test: (test.outcome.value, test.reason) for test in result.tests}


def test_what_fails_a_scenario(assets: Assets, pytester: pytest.Pytester, tmp_path: Path) -> None:
    del assets
    found = run(pytester, BAD, tmp_path)
    assert {name: outcome for name, (outcome, _) in found.items()} == {
        "good": "pass",
        "fault_that_nobody_announced": "fail",
        "announced_fault_that_does_not_come": "fail",
        "splat": "fail",
        "own_assertion": "fail",
        "no_such_command": "fail",
        "skips": "skip",
    }
    assert "nobody announced: tdi-state" in found["fault_that_nobody_announced"][1]
    assert "did not happen: private-page" in found["announced_fault_that_does_not_come"][1]
    assert "guest: WARNING in f" in found["splat"][1]
    assert "`fly`: -EINVAL" in found["no_such_command"][1]


def test_the_scenario_of_the_documentation(
    assets: Assets, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    del assets
    page = (REPOSITORY / "docs" / "writing-a-test.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scenarios = [block for block in blocks if "pytest.mark.tdisp" in block]
    assert len(scenarios) == 1
    found = run(pytester, scenarios[0], tmp_path)
    assert found
    assert {outcome for outcome, _ in found.values()} == {"pass"}, found
