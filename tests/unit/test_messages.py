# SPDX-License-Identifier: GPL-2.0-only
"""What the command line answers to a mistake: the thing, what was expected, what there is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from harness import cli, layout
from harness.core.plan import parse_plan
from harness.core.select import parse_expression
from harness.errors import UserError
from harness.model.kernel import Role
from harness.report import json_report
from harness.stages.run import names_nothing_at_all, no_test
from tests.unit import report_samples


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run, a round of mutants and a patchcheck."""
    runs = tmp_path / "runs"
    for name in ("day1", "day2-mutants/races/day2-mutant-races"):
        (runs / name).mkdir(parents=True)
        json_report.write(runs / name / "result.json", report_samples.passing())
    (runs / "day2-mutants/mutants.json").write_text("{}")
    (runs / "day3-patchcheck").mkdir()
    (runs / "day3-patchcheck/patchcheck.json").write_text("{}")
    return runs


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a usage error says."""
    assert cli.main(words) == 64
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [["report"], ["compare", "day1"]])
def test_what_is_no_run_says_what_it_is(
    runs: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    in_runs = ("--runs-dir", str(runs))
    text = said(capsys, *words, "day2-mutants", *in_runs)
    assert f"{runs}/day2-mutants: no run, but mutants.json" in text
    assert f"{runs}/day2-mutants/races/day2-mutant-races" in text
    text = said(capsys, *words, str(runs / "day3-patchcheck"), *in_runs)
    assert f"{runs}/day3-patchcheck: no run, but patchcheck.json" in text
    assert "there are: day1" in said(capsys, *words, "day9", *in_runs)
    nowhere = str(runs / "nowhere")
    assert f"{nowhere}: no such directory\nhint: " in said(
        capsys, *words, "day1", "--runs-dir", nowhere
    )


def test_a_shell_names_the_machines_that_are_up(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "latest").symlink_to("day1")
    (runs / "day1/ssh-guest.json").write_text("[]")
    text = said(capsys, "shell", "--runs-dir", str(runs), "host")
    assert "host: not up" in text
    assert "hint: up in" in text and "guest" in text


def test_a_series_that_is_not_there_is_told_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    words = ("run", "--runs-dir", str(runs), "--series", f"guest={tmp_path}/gone")
    assert "gone: no such file or directory" in said(capsys, *words)
    assert not runs.exists()


def test_a_patch_that_is_not_there_leaves_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("patchcheck", "host", "--from", "nosuch", "--runs-dir", str(tmp_path / "runs"))
    assert cli.main(words) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert "hint: there are: tsm-class, tsm-link, iommufd-selftest" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--lab", "gone.toml", "--machine", "x"),
        ("mutants", "--resume", "gone", "-k", "races"),
    ],
)
def test_a_file_that_is_not_there_is_named_once(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, *words, "--runs-dir", str(tmp_path))
    assert "No such file or directory" in text
    assert "Errno" not in text


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [("nosuch", "selects no test"), ("dma and", "cannot be read"), ("races", "")],
)
def test_a_bad_k_is_told_before_anything_is_built(expression: str, complaint: str) -> None:
    text = 'title = "t"\ntopology = "solo"\n'
    text += '[[tests]]\nrole = "guest"\ncollection = "tsm"\ntests = ["{}"]\n'
    plan = parse_plan(text.format("races"), "p.toml", "p")
    expected = pytest.raises(UserError, match=complaint) if complaint else nullcontext()
    with expected:
        names_nothing_at_all(plan, expression, parse_expression(expression))
    pattern = parse_plan(text.format("r*"), "p.toml", "p")
    names_nothing_at_all(pattern, "nosuch", parse_expression("nosuch"))  # known when it is built


def test_no_test_is_chosen_names_those_of_the_plan() -> None:
    text = (layout.PLANS / "default.toml").read_text()
    built = {
        Role.HOST: ["tsm:dma_api", "tsm:tsm_class"],
        Role.GUEST: ["tsm:dma_api", "tsm:explosion"],
    }
    error = no_test(parse_plan(text, "default.toml", "default"), built, "nosuch")
    assert isinstance(error, UserError)
    assert error.message == "-k 'nosuch': selects no test"
    assert "host:tsm:tsm_class" in error.hint
    assert error.hint.count("guest:tsm:dma_api") == 1
    assert "in model-B+host-binds+pair, model-A, " in error.hint
    assert "guest:tsm:explosion" not in error.hint  # the plan leaves it out
