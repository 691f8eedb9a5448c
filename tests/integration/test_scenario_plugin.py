# SPDX-License-Identifier: GPL-2.0-only
"""pytest's own verdict on scenarios: nothing that the run found ends in green."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.model.results import RunResult, Verdict
from harness.report import json_report
from harness.stages.run import MainJob
from tests.integration.test_scenario import SPLAT, PlayedFleet

pytest_plugins = ["pytester"]

HEAD = f"""
import pytest
from harness.model.kernel import Role
from harness.model.results import Failure

pytestmark = pytest.mark.tdisp(plan="default", topology="pair")
SPLAT = {SPLAT!r}
FAILURE = Failure("oracle", "guest", "platform: a fault")

def test_good(scenario):
    pass
"""
# what the guest's end or the platform still says after the last test
LATE = """
@pytest.fixture(scope="module", autouse=True)
def late(scenario_run):
    yield
    {}
"""


@contextlib.contextmanager
def played_fleet(job: MainJob, *_: object) -> Iterator[PlayedFleet]:
    fleet = PlayedFleet(job)
    yield fleet
    fleet.close()


class Scenarios:
    """Modules of scenarios on machines that play a script."""

    def __init__(self, pytester: pytest.Pytester, runs: Path) -> None:
        self._pytester, self._runs = pytester, runs

    def run(self, text: str) -> tuple[pytest.RunResult, RunResult]:
        self._pytester.makepyfile(HEAD + text)
        options = ("-q", "-p", "no:cacheprovider", "--tdisp-runs-dir", str(self._runs))
        said = self._pytester.runpytest_inprocess(*options)
        return said, json_report.load(self._runs / "latest" / "result.json")


@pytest.fixture
def scenarios(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scenarios:
    monkeypatch.setattr(MainJob, "kernels_and_provisions", lambda _: ({}, None))
    monkeypatch.setattr(MainJob, "fleet", played_fleet)
    return Scenarios(pytester, tmp_path / "runs")


def test_all_is_well(scenarios: Scenarios) -> None:
    said, result = scenarios.run("")
    said.assert_outcomes(passed=1)
    assert (said.ret, result.verdict) == (0, Verdict.PASS)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("scenario.host.say(SPLAT)", "host: KASAN"),
        ("scenario.host.say(SPLAT); pytest.skip('not here')", "host: KASAN"),
        ("scenario.recorder.failure(FAILURE)", "platform: a fault"),
        ("scenario.recorder.failure(FAILURE); pytest.skip('not here')", "platform: a fault"),
    ],
)
def test_what_comes_with_a_test_fails_it(scenarios: Scenarios, act: str, told: str) -> None:
    said, result = scenarios.run(f"def test_bad(scenario):\n    {act}\n")
    said.assert_outcomes(passed=1, failed=1)
    said.stdout.fnmatch_lines([f"*{told}*"])
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("scenario_run.fleet.up[Role.HOST].say(SPLAT)", "host: KASAN"),
        ("scenario_run.job.recorder.failure(FAILURE)", "platform: a fault"),
    ],
)
def test_what_comes_after_the_last_test_fails_the_module(
    scenarios: Scenarios, act: str, told: str
) -> None:
    said, result = scenarios.run(LATE.format(act))
    said.assert_outcomes(passed=1, errors=1)
    said.stdout.fnmatch_lines([f"*{told}*"])
    assert said.ret != 0
    assert result.verdict is Verdict.FAIL


def test_what_failed_a_test_is_told_once(scenarios: Scenarios) -> None:
    said, _ = scenarios.run(
        "def test_bad(scenario):\n"
        "    scenario.host.say(SPLAT)\n"
        "    scenario.recorder.failure(FAILURE)\n"
    )
    said.assert_outcomes(passed=1, failed=1, errors=0)
