# SPDX-License-Identifier: GPL-2.0-only
"""`mutants --resume`: what is not run again, and when an earlier round is no good."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, commands
from harness.core import mutants_record
from harness.core.mutants import CaughtBy, Finding, Mutant, State
from harness.core.mutants_record import Record
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.results import (
    KernelRecord,
    Outcome,
    RunResult,
    SubtestResult,
    TestResult,
    Verdict,
)
from harness.stages.mutants import MutantJob, load
from harness.stages.mutants_code import code_digest
from tests.integration.kernel_trees import RecordedProgress

PATCH = """From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: A Person <a@example.org>
Date: Sun, 22 Nov 2026 00:00:00 +0000
Subject: [PATCH] mutant: {name}

Because.

Caught-by: tsm:{program}.case
---
diff --git a/a b/a
--- a/a
+++ b/a
@@ -1 +1 @@
-old
+{name}
"""


class Runs:
    """Runs of the main job that only say what they would run, and fail where they are told to."""

    def __init__(self, missed_by: str = "", source: str = "tree-1") -> None:
        self.plans: list[str] = []
        self.programs: list[list[str]] = []
        self.missed_by = missed_by
        self.source = source

    def __call__(self, options: RunOptions) -> RunResult:
        self.plans.append(options.plan.name)
        names = [name for selection in options.plan.selections for name in selection.tests]
        self.programs.append(names)
        mutated = options.plan.name != "mutants-baseline"
        tests = tuple(self._test(name, bad=mutated and name != self.missed_by) for name in names)
        kernel = KernelRecord(
            "guest", "package", "7.3.4", self.source, (), "", "", "", "", (), True, 0.0, ""
        )
        return RunResult(
            1, "r", "p", "solo", "", 0.0, Verdict.PASS, 0, "0", {}, (), (kernel,), tests=tests
        )

    @staticmethod
    def _test(name: str, *, bad: bool) -> TestResult:
        outcome = Outcome.FAIL if bad else Outcome.PASS
        return TestResult(
            *("guest", "guest", "tsm", name, outcome, "", 0.1, 0.0, ""),
            subtests=(SubtestResult(("case",), outcome, ""),),
        )


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    directory = tmp_path / "mutants"
    directory.mkdir()
    for name, program in (("one", "races"), ("two", "faults"), ("three", "races")):
        (directory / f"{name}.patch").write_text(PATCH.format(name=name, program=program))
    return directory


def options(tmp_path: Path) -> RunOptions:
    argv = ["mutants", "--runs-dir", str(tmp_path / "runs")]
    return commands.run_options(cli.parse(argv), argv)


def job(tmp_path: Path, runs: Runs, expression: str = "", resume: Path | None = None) -> MutantJob:
    mutants = load(tmp_path / "mutants", expression)
    return MutantJob(options(tmp_path), mutants, RecordedProgress(), runs, resume)


@pytest.mark.usefixtures("patches")
def test_a_round_in_parts_gives_one_figure(tmp_path: Path) -> None:
    first = job(tmp_path, Runs(), "one")
    assert first.execute() == 0
    assert "1 of 1 mutants killed" in first.render()

    runs = Runs()
    rest = job(tmp_path, runs, resume=first.directory)
    assert rest.execute() == 0
    assert runs.plans == ["mutants-baseline", "mutant-three", "mutant-two"]
    assert runs.programs[0] == ["faults"], "races has passed without a mutant"
    assert "3 of 3 mutants killed" in rest.render()

    again = Runs()
    whole = job(tmp_path, again, resume=first.directory)
    assert (whole.execute(), again.plans) == (0, [])
    assert "3 of 3 mutants killed" in whole.render()


def test_survivors_and_changed_mutants_run_again(tmp_path: Path, patches: Path) -> None:
    first = job(tmp_path, Runs(missed_by="faults"))
    assert first.execute() == 1
    changed = patches / "one.patch"
    changed.write_text(changed.read_text().replace("Because.", "Why not."))
    runs = Runs()
    assert job(tmp_path, runs, resume=first.directory).execute() == 0
    assert runs.plans == ["mutant-one", "mutant-two"]


@pytest.mark.usefixtures("patches")
def test_other_code_is_refused(tmp_path: Path) -> None:
    first = job(tmp_path, Runs())
    first.execute()
    mutants = load(tmp_path / "mutants", "")
    other = replace(options(tmp_path), plan_text="another plan")
    with pytest.raises(UserError, match="have changed since"):
        MutantJob(other, mutants, RecordedProgress(), Runs(), first.directory)


@pytest.mark.usefixtures("patches")
def test_another_kernel_source_is_refused(tmp_path: Path) -> None:
    first = job(tmp_path, Runs(), "one")
    first.execute()
    with pytest.raises(UserError, match="the kernel's source has changed since"):
        job(tmp_path, Runs(source="tree-2"), resume=first.directory).execute()


@pytest.mark.usefixtures("patches")
def test_no_earlier_round(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        job(tmp_path, Runs(), resume=tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', '{"format": 2, "code": "", "mutants": []}', "[" * 9999],
)
def test_records_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=r"m\.json: cannot be read"):
        mutants_record.from_text(text, "m.json")


def test_a_record_survives_its_file() -> None:
    finding = Finding(State.SURVIVED, ("missed by it",))
    record = Record("code", "source", {"tsm:races"}, (), {"one": ("digest", finding)})
    text = mutants_record.to_text(record)
    assert mutants_record.from_text(text, "m.json") == record
    assert record.killed("one", "digest") is None, "survivors are no reason to rest"
    assert json.loads(text)["mutants"][0]["state"] == "survived"


def test_a_job_is_about_one_kernel(tmp_path: Path) -> None:
    mutants = [
        Mutant(role.value, "s", str(tmp_path), (CaughtBy("tsm", "races", role=role),))
        for role in Role
    ]
    with pytest.raises(UserError, match="mutants of the host and of the guest"):
        MutantJob(options(tmp_path), mutants, RecordedProgress(), None)


def test_code_is_series_kselftests_and_what_the_user_added(tmp_path: Path) -> None:
    plain = options(tmp_path)
    extra = tmp_path / "mine.patch"
    extra.write_text("one")
    argv = ["mutants", "--series", f"guest={extra}"]
    with_extra = commands.run_options(cli.parse(argv), argv)
    before = code_digest(with_extra, Role.GUEST)
    assert code_digest(plain, Role.GUEST) == code_digest(options(tmp_path), Role.GUEST) != before
    extra.write_text("two")
    assert code_digest(with_extra, Role.GUEST) != before
