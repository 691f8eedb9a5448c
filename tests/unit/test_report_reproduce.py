# SPDX-License-Identifier: GPL-2.0-only
"""reproduce.sh: what it pins, that shellcheck likes it, and that it runs."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.model.results import RunResult, Verdict
from harness.report import atomic, reproduce
from tests.unit import report_samples

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAMPLES = report_samples.everything()
ARGS = ("run", "plans/smoke.toml", "--series", "guest=/home/me/v 2", "-k", "tsm and not race")
FILES = {"/home/me/v 2": "series/guest/v 2"}

PINS = {"source": "git commit 01 (Linux 7.3.4)", "plan": "it's $(id) `id` \\ PINS\nPINS\n\ud800"}

# Writes its arguments, one per line.
FAKE_HARNESS = """\
#!/bin/sh
printf '%s\\n' "$@" >"${0%/*}/args"
exit 7
"""


def render(
    result: RunResult, args: tuple[str, ...] = ARGS, commit: str = COMMIT, plan: str = ""
) -> str:
    return reproduce.render(result, args, harness_commit=commit, files=FILES, pins=PINS, plan=plan)


def run_script(
    script: str, directory: Path, **environment: str
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run it with a harness that records its arguments."""
    run_dir = directory / "run dir"
    run_dir.mkdir(exist_ok=True)
    atomic.write_text(run_dir / "reproduce.sh", script, executable=True)
    fake = directory / "harness"
    atomic.write_text(fake, FAKE_HARNESS, executable=True)
    done = subprocess.run(
        [run_dir / "reproduce.sh"],
        env={"PATH": "/usr/bin:/bin", "TDISP_HARNESS": str(fake), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    recorded = directory / "args"
    return (recorded.read_text().splitlines() if recorded.exists() else []), done


@pytest.mark.parametrize("name", ["failing", "hostile"])
@pytest.mark.parametrize("commit", [COMMIT, "", f"{COMMIT}-dirty", "$(id)\nid"])
def test_shellcheck_clean(name: str, commit: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    args = (*ARGS, report_samples.HOSTILE.replace("\0", "").replace("\ud800", ""))
    script = render(SAMPLES[name], args, commit)
    done = subprocess.run(
        ["shellcheck", "--severity=style", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_same_arguments_with_copies(tmp_path: Path) -> None:
    args, done = run_script(render(SAMPLES["failing"], plan="plan.toml"), tmp_path)
    here = tmp_path / "run dir"
    assert args == [
        "run",
        f"{here}/plan.toml",
        "--series",
        f"guest={here}/series/guest/v 2",
        "-k",
        "tsm and not race",
        "--runs-dir",
        f"{here}/reproduced",
        "--pins",
        f"{here}/reproduced/pins.json",
    ]
    assert done.returncode == 7
    assert json.loads((here / "reproduced" / "pins.json").read_text()) == PINS


def test_differences_can_be_allowed(tmp_path: Path) -> None:
    args, _ = run_script(render(SAMPLES["failing"]), tmp_path, REPRODUCE_ANYWAY="1")
    assert args[-1] == "--allow-differences"


def test_a_plan_that_was_not_named_is_the_copy(tmp_path: Path) -> None:
    script = reproduce.render(
        SAMPLES["failing"],
        ("run", "-k", "x"),
        harness_commit="",
        files={},
        pins={},
        plan="p q.toml",
    )
    args, _ = run_script(script, tmp_path)
    here = tmp_path / "run dir"
    assert args == ["run", f"{here}/p q.toml", "-k", "x", "--runs-dir", f"{here}/reproduced"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("trust", "-k", "trust"), ["PLAN", "-k", "trust"]),
        (("-k", "trust", "trust"), ["-k", "trust", "PLAN"]),
        (("-k", "trust"), ["PLAN", "-k", "trust"]),
        (("-ktrust", "trust"), ["-ktrust", "PLAN"]),
        (("--keep", "trust", "--baseline=trust"), ["--keep", "PLAN", "--baseline=trust"]),
        (("--machine", "trust", "-j", "2"), ["PLAN", "--machine", "trust", "-j", "2"]),
        (("/home/me/v 2", "-k", "/home/me/v 2"), ["PLAN", "-k", "/home/me/v 2"]),
        ((), ["PLAN"]),
    ],
)
def test_only_the_plan_is_the_copy_of_the_plan(
    given: tuple[str, ...], wanted: list[str], tmp_path: Path
) -> None:
    script = render(SAMPLES["failing"], ("run", *given), plan="plan.toml")
    args, _ = run_script(script, tmp_path)
    plan = f"{tmp_path}/run dir/plan.toml"
    assert args[1:-4] == [plan if word == "PLAN" else word for word in wanted]


@pytest.mark.parametrize("verb", ["run", "build", "boot"])
def test_the_options_without_a_value_are_known(verb: str) -> None:
    parser = cli._parser()
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    options = [a for a in verbs.choices[verb]._actions if a.option_strings and a.dest != "help"]
    flags = {name for action in options if action.nargs == 0 for name in action.option_strings}
    assert flags <= set(reproduce.FLAGS)
    assert all(action.nargs in (None, 0) for action in options)


def test_old_runs_dir_is_not_kept(tmp_path: Path) -> None:
    old = ("--runs-dir", "/old", "--runs-dir=/older", "--pins", "p", "--allow-differences")
    args, _ = run_script(render(SAMPLES["failing"], ("run", *old)), tmp_path)
    runs = f"{tmp_path}/run dir/reproduced"
    assert args == ["run", "--runs-dir", runs, "--pins", f"{runs}/pins.json"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("--tree", "../linux"), ["--tree", "/home/me/src/../linux"]),
        (("--tarball=x.tar",), ["--tarball=/home/me/src/x.tar"]),
        (("--tarball", "/x.tar"), ["--tarball", "/x.tar"]),
    ],
)
def test_relative_paths_hold_from_anywhere(
    given: tuple[str, ...], wanted: list[str], tmp_path: Path
) -> None:
    script = reproduce.render(
        SAMPLES["failing"],
        ("run", *given),
        harness_commit="",
        files={},
        pins={},
        cwd="/home/me/src",
    )
    assert run_script(script, tmp_path)[0][1:-2] == wanted


def test_hostile_arguments_stay_arguments(tmp_path: Path) -> None:
    odd = ("$(touch pwned)", "`id`", "it's", '"', "a\\b", "; exit 0", "*")
    args, done = run_script(render(SAMPLES["hostile"], ("run", *odd)), tmp_path)
    assert args[1:-4] == list(odd)
    assert done.returncode == 7


def test_says_how_to_get_the_harness() -> None:
    script = render(SAMPLES["passing"])
    assert f"git worktree add ../tdisp-harness-0123456789ab {COMMIT}" in script
    assert "local changes" in render(SAMPLES["passing"], commit=f"{COMMIT}-dirty")
    assert "not known" in render(SAMPLES["passing"], commit="")


def test_without_a_harness_it_says_so(tmp_path: Path) -> None:
    script = tmp_path / "reproduce.sh"
    atomic.write_text(script, render(SAMPLES["passing"]), executable=True)
    done = subprocess.run(
        [script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "set TDISP_HARNESS" in done.stderr


def git_run(tree: str, commit: str) -> RunResult:
    kernel = replace(report_samples.kernel(), source_kind="git", source_id=commit)
    return replace(report_samples.run(Verdict.PASS), kernels=(kernel,), command=("run", tree))


def test_a_git_tree_is_pinned_at_its_commit(tmp_path: Path) -> None:
    tree = tmp_path / "linux tree"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tree)]
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    for message in ("tested", "later"):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
    tested = subprocess.run(
        [*git, "rev-parse", "HEAD~"], capture_output=True, text=True, check=True
    ).stdout.strip()
    given = ("run", "--tree", str(tree), "--ref", "main")
    args, done = run_script(render(git_run(str(tree), tested), given), tmp_path)
    pinned = f"{tmp_path}/run dir/reproduced/tree-{tested}"
    assert args[:6] == ["run", "--tree", pinned, "--ref", tested, "--runs-dir"], done.stderr
    subject = subprocess.run(
        ["git", "-C", pinned, "log", "-1", "--format=%s"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert subject == "tested\n"


def test_a_tree_without_the_commit_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    args, done = run_script(render(git_run(str(tree), COMMIT), ("run", f"--tree={tree}")), tmp_path)
    assert args == []
    assert done.returncode == 2
    assert f"does not hold commit {COMMIT}" in done.stderr
