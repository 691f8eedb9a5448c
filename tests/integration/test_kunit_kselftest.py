# SPDX-License-Identifier: GPL-2.0-only
"""kselftests/tsm/kunit.sh, over results as debugfs has them, and through our KTAP parser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import layout
from harness.core.ktap import parse
from harness.model.results import Outcome

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
SCRIPT = layout.KSELFTESTS / "tsm" / "kunit.sh"


def suite(directory: Path, name: str, *cases: str, end: str = "ok") -> None:
    lines = ["KTAP version 1", "1..1", "    KTAP version 1", f"    # Subtest: {name}"]
    lines += [f"    1..{len(cases)}", *(f"    {case}" for case in cases), f"{end} 1 {name}"]
    (directory / name).mkdir()
    (directory / name / "results").write_text("\n".join(lines) + "\n")


def run(directory: Path) -> tuple[int, dict[str, Outcome]]:
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        env={**os.environ, "KUNIT_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    parsed = parse(done.stdout)
    assert not parsed.problems, parsed.problems
    return done.returncode, {"/".join(case.id): case.outcome for case in parsed.cases}


def test_suites_are_subtests(tmp_path: Path) -> None:
    suite(tmp_path, "dma_vtom", "ok 1 vtom_none", "ok 2 vtom_edges")
    code, cases = run(tmp_path)
    assert code == 0
    assert cases["dma_vtom/vtom_none"] is Outcome.PASS
    assert cases["dma_vtom/vtom_edges"] is Outcome.PASS
    assert cases["device-trust"] is Outcome.SKIP, "not built in"


def test_a_failed_case_fails_the_program(tmp_path: Path) -> None:
    suite(tmp_path, "dma_vtom", "ok 1 vtom_none", "not ok 2 vtom_edges", end="not ok")
    code, cases = run(tmp_path)
    assert code == 1
    assert cases["dma_vtom/vtom_edges"] is Outcome.FAIL


def test_a_suite_that_was_cut_off_is_no_pass(tmp_path: Path) -> None:
    suite(tmp_path, "dma_vtom", "ok 1 vtom_none", end="#")
    code, _ = run(tmp_path)
    assert code == 1


def test_a_kernel_without_suites_skips(tmp_path: Path) -> None:
    code, cases = run(tmp_path)
    assert code == 4
    assert set(cases.values()) <= {Outcome.SKIP}
