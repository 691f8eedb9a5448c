# SPDX-License-Identifier: GPL-2.0-only
"""The verbs history and compare, and the options of run that are about repetition and baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, commands
from harness.core.case_history import matching, render_cases, render_runs
from harness.errors import UserError
from harness.model.options import RunOptions
from harness.model.plan import RepeatPolicy
from harness.model.results import Verdict
from harness.report import json_report
from tests.unit.test_baseline import case, run

RUNS = (
    run(1, case("pass", a="pass"), case("pass", "race", seconds=2.0)),
    run(2, case("fail", a="fail")),
    run(3, case("pass", a="pass"), expression="abi"),
)


def test_runs_as_a_table() -> None:
    lines = render_runs(RUNS)
    assert lines[0].split()[:4] == ["run", "plan", "verdict", "took"]
    assert lines[1] == "day1  default, solo            pass     1 s   2 pass  -, ab"
    assert "-k 'abi'" in lines[3]


def test_results_of_a_case_over_the_runs() -> None:
    assert render_cases(RUNS, "tsm:abi") == [
        "guest:tsm:abi: 3 runs: 2 pass, 1 fail",
        "  day1  pass  1.0 s  -, ab  because pass",
        "  day2  fail  1.0 s  -, ab  because fail",
        "  day3  pass  1.0 s  -, ab  because pass",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("abi", ["guest:tsm:abi"]),
        ("TSM", ["guest:tsm:abi", "guest:tsm:race"]),
        ("guest:*", ["guest:tsm:abi", "guest:tsm:race"]),
        ("abi / a", ["guest:tsm:abi / a"]),
        ("*/*", ["guest:tsm:abi / a"]),
        ("nothing", []),
        ("[", []),
    ],
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert [str(key) for key in matching(RUNS, pattern)] == found


def test_no_case_no_line() -> None:
    assert render_cases(RUNS, "nothing") == []
    assert render_cases((), "abi") == []


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    for one in RUNS:
        (tmp_path / one.run_id).mkdir()
        json_report.write(tmp_path / one.run_id / "result.json", one)
    return tmp_path


def harness(*arguments: str) -> int:
    return cli.main(arguments)


def test_the_verb_history(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--runs-dir", str(runs_dir))
    assert harness("history", *where) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert harness("history", "abi", "-n", "2", *where) == 0
    assert capsys.readouterr().out.splitlines()[0] == "guest:tsm:abi: 2 runs: 1 pass, 1 fail"
    assert harness("history", "--plan", "other", *where) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "nothing: matches no test of the last 3 runs"),
        (("-n", "0"), "--last 0: expected 1 or more"),
        (("--runs-dir", "/nonexistent"), "/nonexistent: no such directory"),
    ],
)
def test_bad_uses_of_history(
    runs_dir: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert harness("history", "--runs-dir", str(runs_dir), *arguments) == 64
    assert said in capsys.readouterr().err


def test_compare_reads_a_run_whose_directory_is_gone(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--runs-dir", str(runs_dir))
    assert harness("history", *where) == 0
    (runs_dir / "day1" / "result.json").unlink()
    assert harness("compare", "day1", "day2", *where) == 1
    out = capsys.readouterr().out
    assert "NEW FAILURE" in out
    assert "MISSING" in out
    assert harness("compare", "day2", "day3", *where) == 0
    assert harness("compare", "day2", "day9", *where) == 64


def test_compare_tells_a_failure_that_belongs_to_no_case(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = replace(RUNS[2], run_id="day4", verdict=Verdict.FAIL)
    (runs_dir / "day4").mkdir()
    json_report.write(runs_dir / "day4" / "result.json", worse)
    assert harness("compare", "day3", "day4", "--runs-dir", str(runs_dir)) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: pass -> fail"


def options(*arguments: str) -> RunOptions:
    return commands.run_options(cli.parse(["run", *arguments]), arguments)


def test_repetition_of_the_plan_and_of_the_command_line() -> None:
    assert options("default").plan.repeats == RepeatPolicy(1, 1)
    assert options("default", "--repeat", "0").plan.repeats == RepeatPolicy(0, 1)
    both = options("default", "--repeat", "5", "--infra-retries", "0")
    assert both.plan.repeats == RepeatPolicy(5, 0)


@pytest.mark.parametrize("number", ["-1", "101", "x"])
def test_bad_numbers_of_repetitions(number: str) -> None:
    for option in ("--repeat", "--infra-retries"):
        with pytest.raises(UserError, match=option):
            options("default", option, number)


def test_a_baseline_is_looked_up_at_once(runs_dir: Path) -> None:
    found = options("default", "--runs-dir", str(runs_dir), "--baseline", "day2")
    assert found.baseline == str(runs_dir / "day2")
    with pytest.raises(UserError, match="day9: no such run"):
        options("default", "--runs-dir", str(runs_dir), "--baseline", "day9")
