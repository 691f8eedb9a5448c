# SPDX-License-Identifier: GPL-2.0-only
"""reproduce.sh of a real run of the command line, run again: the same, or refused with the reason.

The kernel is the fake one and the verb is `build`: all stages but the machines, in seconds. With
machines: tests/vm/test_main_job.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import layout
from harness.adapters import system_packages
from tests.integration.fake_kernel import Site
from tests.integration.kernel_trees import commit, edit, format_patch, git

_MISSING = [
    one.name
    for one in system_packages.load(layout.CONFIGS / "requirements.toml")
    if not one.found()
]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")


class Original:
    """A run with a series of the user's, and its reproduce.sh."""

    def __init__(self, root: Path) -> None:
        self.site = Site(root)
        self.base = git(self.site.tree, "rev-parse", "HEAD").strip()
        edit(self.site.tree, "lib/Kconfig", "config ", "# of a patch\nconfig ")
        commit(self.site.tree, "a comment")
        series = root / "my series"
        series.mkdir(parents=True)
        format_patch(self.site.tree, series, self.base)
        git(self.site.tree, "reset", "--quiet", "--hard", self.base)
        done = self.site.run("--series", f"guest={series}")
        assert done.returncode == 0, done.stdout + done.stderr
        self.run_dir = (self.site.runs / "latest").resolve()
        self.program = root / "tdisp-harness"
        self.program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
        self.program.chmod(0o755)

    def again(self, **environment: str) -> subprocess.CompletedProcess[str]:
        paths = f"{layout.REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"
        return subprocess.run(
            [str(self.run_dir / "reproduce.sh")],
            env=self.site.environment(
                TDISP_HARNESS=str(self.program), PYTHONPATH=paths, **environment
            ),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def pins(self) -> dict[str, str]:
        script = (self.run_dir / "reproduce.sh").read_text()
        found = re.search(r"<<'PINS'[^\n]*\n(.*?)\nPINS\n", script, re.DOTALL)
        assert found is not None
        pins: dict[str, str] = json.loads(found[1])
        return pins

    def result(self, where: Path) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((where / "result.json").read_text())
        return data


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("reproduce"))


def test_it_pins_what_the_run_was_made_of(original: Original) -> None:
    pins = original.pins()
    assert pins["source"].startswith(f"git commit {original.base}")
    assert re.fullmatch(r"plan, sha256 [0-9a-f]{64}", pins["plan"])
    assert re.fullmatch(r"1 patches, sha256 [0-9a-f]{64}", pins["series of the guest"])
    assert re.fullmatch(r"hash [0-9a-f]+", pins["configuration of the guest"])
    assert pins["tests"] == "topology solo, -k (all)"


def test_the_same_again(original: Original) -> None:
    # the tree has moved on meanwhile, and the user's series is gone
    edit(original.site.tree, "lib/Kconfig", "config ", "# later\nconfig ")
    commit(original.site.tree, "later")
    try:
        done = original.again()
    finally:
        git(original.site.tree, "reset", "--quiet", "--hard", original.base)
    assert done.returncode == 0, done.stdout + done.stderr
    before = original.result(original.run_dir)
    after = original.result(original.run_dir / "reproduced" / "latest")
    for key in ("source_id", "series", "config_hash", "build_id"):
        assert [k[key] for k in before["kernels"]] == [k[key] for k in after["kernels"]]


def plan_changes(original: Original) -> None:
    edit(original.run_dir, "plan.toml", "timeout_s = 10", "timeout_s = 11")


def series_changes(original: Original) -> None:
    (patch,) = original.run_dir.glob("series/guest/*/*.patch")
    edit(patch.parent, patch.name, "+# of a patch", "+# of another")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (plan_changes, "reproduce: plan differs: the original run had plan, sha256 "),
        (series_changes, "reproduce: series of the guest differs: the original run had 1 patches"),
    ],
)
def test_what_is_changed_is_refused(
    original: Original, change: Callable[[Original], None], message: str
) -> None:
    files = {p: p.read_bytes() for p in original.run_dir.rglob("*.patch")}
    files[original.run_dir / "plan.toml"] = (original.run_dir / "plan.toml").read_bytes()
    change(original)
    try:
        done = original.again()
        assert done.returncode == 64, done.stdout + done.stderr
        assert message in done.stderr
        assert "hint: " in done.stderr
        allowed = original.again(REPRODUCE_ANYWAY="1")
        assert allowed.returncode == 0, allowed.stdout + allowed.stderr
        assert f"note: {message}" in allowed.stderr
    finally:
        for path, data in files.items():
            path.write_bytes(data)


def test_another_configuration_is_refused(original: Original) -> None:
    pins = original.run_dir / "reproduce.sh"
    text = pins.read_text()
    config = original.pins()["configuration of the guest"]
    pins.write_text(text.replace(config, "hash 0123456789ab"))
    try:
        done = original.again()
    finally:
        pins.write_text(text)
    assert done.returncode == 64
    assert "configuration of the guest differs" in done.stderr
    assert "compiler" in done.stderr


def test_a_commit_that_is_gone_is_told(original: Original, tmp_path: Path) -> None:
    script = original.run_dir / "reproduce.sh"
    text = script.read_text()
    git(tmp_path, "init", "--quiet", "other")
    script.write_text(text.replace(str(original.site.tree), str(tmp_path / "other")))
    try:
        done = original.again(REPRODUCE_RUNS=str(tmp_path / "runs"))
    finally:
        script.write_text(text)
    assert done.returncode == 2
    assert f"does not hold commit {original.base}" in done.stderr


def test_pins_that_are_no_pins(original: Original, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    done = original.site.run("--pins", str(bad))
    assert done.returncode == 64
    assert "bad.json: not JSON" in done.stderr
    done = original.site.run("--pins", str(tmp_path / "none"))
    assert done.returncode == 64
    assert "No such file" in done.stderr


def test_the_run_itself_writes_the_step_summary(original: Original, tmp_path: Path) -> None:
    step = tmp_path / "step.md"
    done = original.site.run(GITHUB_STEP_SUMMARY=str(step))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (original.site.runs / "latest" / "summary.md").read_text()
    assert summary.startswith("## ")
    assert summary in step.read_text()
