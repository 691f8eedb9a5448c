# SPDX-License-Identifier: GPL-2.0-only
"""A TDI in a pair: the host machine assigns the platform's functions to its guest with vfio-pci."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.emulator import oracle
from harness.model.kernel import Role
from harness.model.progress import SilentProgress
from harness.model.results import Outcome, RunResult, Verdict
from tests.vm.conftest import Assets
from tests.vm.poke import PokeJob, with_poke

PLAN = """
title = "the platform, from user space of a guest in a pair"
topology = "pair"
repeat = 1
infra_retries = 2
[platform]
model = "A"
[[tests]]
role = "guest"
collection = "poke"
tests = ["judged", "unannounced"]
platform = {}
"""


@pytest.fixture(scope="module")
def ran(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """One run: a test that passes, and one that fails and is repeated on a second guest.

    QEMU's emulated SVM may lose a machine: then the whole run is made again.
    """
    poke = with_poke(assets.build, tmp_path_factory.mktemp("poke"))
    for _ in range(3):
        path = tmp_path_factory.mktemp("assigned") / "p.toml"
        path.write_text(PLAN)
        job = PokeJob(path, path.parent / "runs", SilentProgress())
        result = job.execute(poke, assets.provisions, host=assets.builds[Role.HOST])
        lost = any(f.kind in ("boot", "crash", "infra") for f in result.failures)
        outcomes = [a.outcome for test in result.tests for a in test.attempts] + [
            test.outcome for test in result.tests
        ]
        if not lost and not {Outcome.CRASH, Outcome.TIMEOUT, Outcome.INFRA} & set(outcomes):
            break
    return result, job.run_dir


Ran = tuple[RunResult, Path]


def test_dma_of_the_inner_guest_is_judged(ran: Ran) -> None:
    result, _ = ran
    tests = {test.program: test for test in result.tests}
    good = tests["judged@model-A+pair"]
    assert (good.outcome, good.reason, good.machine) == (Outcome.PASS, "", "guest")
    assert good.platform is not None
    assert (good.platform.tlps_ok, good.platform.tlps_blocked) == (1, 1)
    assert [fault.reason for fault in good.platform.faults] == ["private-page"]
    bad = tests["unannounced@model-A+pair"]
    assert bad.outcome is Outcome.FAIL
    assert bad.reason.startswith("platform: a fault that nobody announced: private-page: T=0")
    assert result.verdict is Verdict.FAIL
    assert not result.failures, "nobody is blamed for what came outside of the tests"


def test_the_platform_outlives_a_guest_and_forgets_it(ran: Ran) -> None:
    result, run_dir = ran
    assert [a.outcome for a in result.tests[1].attempts] == [Outcome.FAIL, Outcome.FAIL]
    boots = {machine.name: (machine.kind, machine.boots) for machine in result.machines}
    assert boots == {"host": ("qemu", 1), "guest": ("nested", 2)}
    records = oracle.read(run_dir / "platform.jsonl")
    assert [r["event"] for r in records].count("start") == 1
    ends = [n for n, r in enumerate(records) if str(r.get("label", "")).startswith("end guest:")]
    resets = [r["event"] == "flr" and r["function"] == "tsm-guest" for r in records]
    assert any(resets[ends[1] : ends[2]]), "vfio-pci resets it between two guests"


def test_the_guest_has_the_functions_and_the_memory_for_them(ran: Ran) -> None:
    result, _ = ran
    argv = {machine.name: " ".join(machine.qemu_argv) for machine in result.machines}
    assert argv["guest"].count("vfio-pci,host=0000:") == 3
    assert "hugetlb=on" in argv["guest"]
    assert "intel-iommu" in argv["host"]
    assert argv["host"].count("vfio-user-pci") == 3
