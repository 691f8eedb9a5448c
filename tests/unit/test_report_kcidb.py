# SPDX-License-Identifier: GPL-2.0-only
"""KCIDB data, checked against the published schema when kcidb-io is installed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.model.results import Outcome, RunResult
from harness.report import kcidb
from tests.unit import report_eventful, report_samples

SAMPLES = report_samples.everything() | {
    "eventful": report_eventful.result(),
    "celled": report_eventful.celled(),
}


def data(result: RunResult, directory: Path) -> dict[str, Any]:
    report_samples.fill_run_dir(result, directory)
    return kcidb.to_dict(result, directory, origin="tdisp")


@pytest.mark.parametrize("name", SAMPLES)
def test_valid_by_the_published_schema(name: str, tmp_path: Path) -> None:
    schema = pytest.importorskip("kcidb_io.schema", reason="kcidb-io is not installed")
    schema.V5_3.validate_exactly(data(SAMPLES[name], tmp_path))


def test_statuses(tmp_path: Path) -> None:
    found = data(SAMPLES["failing"], tmp_path)
    by_path = {test["path"]: test["status"] for test in found["tests"]}
    assert by_path["boot"] == "PASS"
    assert by_path["kselftest.tsm.uapi"] == "PASS"
    assert by_path["kselftest.tsm.dma_freeze"] == "FAIL"
    assert by_path["kselftest.tsm.dma_freeze.freeze.refuses_lock"] == "PASS"
    assert by_path["kselftest.tsm.dma_freeze.freeze.race_map"] == "ERROR"
    assert by_path["kselftest.tsm.race_lock"] == "FAIL"
    assert by_path["kselftest.tsm.p2p"] == "DONE"
    assert by_path["kselftest.tsm.fault_inject"] == "ERROR"
    assert by_path["kselftest.tsm.lab_ide"] == "SKIP"
    assert found["builds"][0]["status"] == "PASS"
    assert found["checkouts"][0]["valid"] is True


def test_every_outcome_has_a_status_and_only_pass_is_pass() -> None:
    assert set(kcidb.STATUS) == set(Outcome)
    assert [o for o, status in kcidb.STATUS.items() if status == "PASS"] == [Outcome.PASS]


@pytest.mark.parametrize("name", SAMPLES)
def test_ids_are_unique_and_refer(name: str, tmp_path: Path) -> None:
    found = data(SAMPLES[name], tmp_path)
    ids = [entry["id"] for key in ("checkouts", "builds", "tests") for entry in found[key]]
    assert len(ids) == len(set(ids))
    assert all(build["checkout_id"] in ids for build in found["builds"])
    assert all(test["build_id"] in ids for test in found["tests"])


def test_a_failed_test_carries_its_splat(tmp_path: Path) -> None:
    tests = data(SAMPLES["failing"], tmp_path)["tests"]
    freeze = next(test for test in tests if test["path"] == "kselftest.tsm.dma_freeze")
    assert "dma_trust_unmap+0x8c" in freeze["log_excerpt"]
    timeout = next(test for test in tests if test["path"] == "kselftest.tsm.race_lock")
    assert "race_lock says hello" in timeout["log_excerpt"]


def test_patch_failure_is_an_invalid_checkout(tmp_path: Path) -> None:
    found = data(SAMPLES["patch_failure"], tmp_path)
    assert found["checkouts"][0]["valid"] is False
    assert "does not apply" in found["checkouts"][0]["log_excerpt"]
    assert found["builds"][0]["status"] == "MISS"


def test_boot_and_config_failures(tmp_path: Path) -> None:
    boot = data(SAMPLES["boot_failure"], tmp_path)["tests"][0]
    assert (boot["path"], boot["status"]) == ("boot", "FAIL")
    assert boot["log_excerpt"].endswith("console line 199\n")
    assert data(SAMPLES["config_failure"], tmp_path)["builds"][0]["status"] == "FAIL"


def test_a_git_commit_is_named(tmp_path: Path) -> None:
    kernel = replace(report_samples.kernel(), source_kind="git", source_id="ab" * 20)
    found = data(replace(SAMPLES["passing"], kernels=(kernel,)), tmp_path)
    assert found["checkouts"][0]["git_commit_hash"] == "ab" * 20


def test_tests_on_a_machines_own_kernel_have_a_build(tmp_path: Path) -> None:
    found = data(replace(SAMPLES["passing"], kernels=()), tmp_path)
    assert "own kernel" in found["builds"][0]["comment"]
    assert "status" not in found["builds"][0]


@pytest.mark.parametrize("origin", ["", "Lab", "a b", "x:y"])
def test_bad_origin(origin: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="KCIDB origin"):
        kcidb.to_dict(SAMPLES["passing"], tmp_path, origin=origin)


def test_write(tmp_path: Path) -> None:
    kcidb.write(tmp_path / "kcidb.json", SAMPLES["hostile"], tmp_path, origin="tdisp")
    assert json.loads((tmp_path / "kcidb.json").read_text())["version"] == {"major": 5, "minor": 3}
