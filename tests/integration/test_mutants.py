# SPDX-License-Identifier: GPL-2.0-only
"""Mutants of a kernel in small: real git am, real make, and a test that looks at the result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, commands
from harness.adapters import process
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.results import Outcome, RunResult, SubtestResult, TestResult
from harness.stages.mutants import SUMMARY, MutantJob, load
from harness.stages.run import MainJob
from tests.integration.fake_kernel import Site
from tests.integration.kernel_trees import RecordedProgress, commit, edit, format_patch, git

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("git", "make", "gcc", "awk")),
    reason="no git, make, gcc or awk",
)
MAIN = '#include "sort.c"\nint main(void)\n{\n\treturn sort(1) == 2 ? 0 : 1;\n}\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("TDISP_HARNESS_CACHE", str(made.cache))
    return made


def mutate(site: Site, name: str, old: str, new: str, caught_by: str = "demo:test.sorts") -> None:
    """A mutant of lib/sort.c in mutants/NAME.patch, its tree left as it was."""
    edit(site.tree, "lib/sort.c", old, new)
    git(site.tree, "commit", "--quiet", "-a", "-m", f"{name}\n\nBecause.\n\nCaught-by: {caught_by}")
    made = format_patch(site.tree, site.root / "out", "HEAD~1")
    directory = site.root / "mutants"
    directory.mkdir(exist_ok=True)
    made[0].rename(directory / f"{name}.patch")
    git(site.tree, "reset", "--quiet", "--hard", "HEAD~1")


def options(site: Site) -> RunOptions:
    argv = ["mutants", str(site.plan), "--tree", str(site.tree), "--no-builtin-series", "guest"]
    arguments = cli.parse([*argv, "--runs-dir", str(site.runs), "-j", "2"])
    return commands.run_options(arguments, argv)


def runner(site: Site, progress: RecordedProgress) -> Callable[[RunOptions], RunResult]:
    """A run of the main job up to the build, and a test on the controller instead of in a VM."""

    def work(job: MainJob) -> None:
        job.kernels()
        tree = site.cache / "work" / "guest" / "linux"
        (site.root / "main.c").write_text(MAIN)
        program = site.root / "program"
        source, include = str(site.root / "main.c"), str(tree / "lib")
        process.run(["gcc", "-I", include, "-o", str(program), source])
        good = process.run([str(program)], check=False).returncode == 0
        outcome = Outcome.PASS if good else Outcome.FAIL
        case = SubtestResult(("sorts",), outcome, "")
        job.recorder.test(
            TestResult(
                "guest", "guest", "demo", "test", outcome, "", 0.1, 0.0, "", subtests=(case,)
            )
        )

    return lambda one: MainJob(one, progress).execute(work)


def job(site: Site, expression: str = "") -> tuple[MutantJob, RecordedProgress]:
    progress = RecordedProgress()
    mutants = load(site.root / "mutants", expression)
    return MutantJob(options(site), mutants, progress, runner(site, progress)), progress


def states(made: MutantJob) -> dict[str, str]:
    record = json.loads((made.directory / SUMMARY).read_text())
    return {one["name"]: one["state"] for one in record["mutants"]}


def test_a_mutant_is_built_and_killed_and_the_tree_comes_back(site: Site) -> None:
    mutate(site, "no-increment", "return n + 1;", "return n;")
    made, _ = job(site)
    assert made.execute() == 0
    assert states(made) == {"no-increment": "killed"}
    assert "KILLED    no-increment: no-increment" in made.render()
    assert "1 of 1 mutants killed" in made.render()
    assert made.execute() == 0, "the baseline is the unmutated kernel again"
    assert "return n + 1;" in (site.tree / "lib/sort.c").read_text(), "a user's tree is only read"


def test_survivors_and_what_does_not_build_fail_the_verb(site: Site) -> None:
    mutate(site, "a-survivor", "return n + 1;", "return 1 + n;")
    mutate(site, "b-syntax", "return n + 1;", "return n +;")
    mutate(site, "c-killed", "return n + 1;", "return n;")
    # made for a tree that has changed since
    mutate(site, "d-stale", "return n + 1;", "return n - 1;")
    stale = site.root / "mutants" / "d-stale.patch"
    stale.write_text(stale.read_text().replace("-\treturn n + 1;", "-\treturn n + 7;"))
    made, _ = job(site)
    assert made.execute() == 1
    assert states(made) == {
        "a-survivor": "survived",
        "b-syntax": "broken",
        "c-killed": "killed",
        "d-stale": "broken",
    }
    assert "does not apply" in made.render()


def test_an_expression_chooses_by_name_and_by_test(site: Site) -> None:
    mutate(site, "one", "return n + 1;", "return n;")
    mutate(site, "two", "return n + 1;", "return 0;", "demo:other")
    directory = site.root / "mutants"
    assert [m.name for m in load(directory, "")] == ["one", "two"]
    assert [m.name for m in load(directory, "two")] == ["two"]
    assert [m.name for m in load(directory, "demo:test")] == ["one"]
    with pytest.raises(UserError, match="selects no mutant"):
        load(directory, "three")
    with pytest.raises(UserError, match=r"no \*\.patch"):
        load(site.root, "")


def test_tests_that_fail_anyway_judge_nothing(site: Site) -> None:
    mutate(site, "one", "return n + 1;", "return n;")
    edit(site.tree, "lib/sort.c", "return n + 1;", "return n + 2;")
    commit(site.tree, "broken from the start")
    made, _ = job(site)
    assert made.execute() == 1
    assert "no test of a mutant: demo:test.sorts: fail" in made.render()
    assert "0 of 1 mutants killed" in made.render()
    assert states(made) == {}


def test_a_program_that_the_plan_lacks_is_told_before_anything_runs(site: Site) -> None:
    mutate(site, "one", "return n + 1;", "return n;", "tsm:races")
    made, progress = job(site)
    with pytest.raises(UserError, match="no such test"):
        made.execute()
    assert progress.said == []


def test_the_verb_uses_solo_and_the_guest_series(site: Site) -> None:
    mutate(site, "one", "return n + 1;", "return n;")
    seen: list[RunOptions] = []
    real = runner(site, RecordedProgress())

    def watch(one: RunOptions) -> RunResult:
        seen.append(one)
        return real(one)

    mutants = load(site.root / "mutants", "")
    wanted = replace(options(site), expression="ignored", keep=True)
    MutantJob(wanted, mutants, RecordedProgress(), watch).execute()
    assert [(one.keep, one.expression) for one in seen] == [(False, "")] * 2
    assert seen[0].extra_series == ()
    assert seen[1].extra_series == ((Role.GUEST, site.root / "mutants" / "one.patch"),)
