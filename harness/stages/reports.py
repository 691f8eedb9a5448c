# SPDX-License-Identifier: GPL-2.0-only
"""Writing all reports of a run, and copies of what the reproducer needs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from harness import layout
from harness.adapters.git import GitTree
from harness.errors import HarnessError
from harness.model.options import RunOptions
from harness.model.progress import Progress
from harness.model.results import RunResult
from harness.report import atomic, html, json_report, junit, kcidb, markdown, reproduce
from harness.stages import history
from harness.stages.recorder import Recorder
from harness.stages.run_directory import no_such_run, run_directory

FILES = {"report": "report.html", "JUnit": "junit.xml", "reproduce": "reproduce.sh"}
SUMMARY, KCIDB = "summary.md", "kcidb.json"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # names the file that a job's summary is made of


def prepare() -> None:
    """What writing takes and no result is needed for."""
    json_report.prepare()
    html.prepare()


def write_all(recorder: Recorder, options: RunOptions, progress: Progress) -> None:
    """result.json, then every other report; one that cannot be written does not stop the rest.

    StorageError when result.json cannot be written: the one on the disk then tells of less.
    """
    run_dir = recorder.run_dir
    history.compare(recorder, options.runs_dir, options.baseline, progress.say)
    try:
        recorder.save()
    finally:
        _try(lambda: write_views(run_dir, recorder.result), progress)
        _try(lambda: _write_reproducer(recorder, options), progress)
        _try(lambda: add_step_summary(recorder.result, os.environ), progress)
        history.record(recorder.result, options.runs_dir, progress.say)


def write_views(run_dir: Path, result: RunResult) -> None:
    """The reports that are made from result.json and the logs alone."""
    junit.write(run_dir / "junit.xml", result)
    atomic.write_text(run_dir / SUMMARY, markdown.render(result))
    html.write(run_dir / "report.html", result, run_dir)


def write_kcidb(run_dir: Path, result: RunResult, origin: str) -> Path:
    """kcidb.json in the run directory. UserError for an origin that KCIDB does not take."""
    path = run_dir / KCIDB
    kcidb.write(path, result, run_dir, origin=origin)
    return path


def add_step_summary(result: RunResult, environment: Mapping[str, str]) -> bool:
    """Append the run's summary to the file of a GitHub step, once per step; whether it was done.

    OSError when that file cannot be written.
    """
    name = environment.get(STEP_SUMMARY, "")
    if not name:
        return False
    mark = f"<!-- tdisp-harness {re.sub(r'[^0-9A-Za-z_.]+', '-', result.run_id)} -->\n"
    with Path(name).open("a+", encoding="utf-8") as stream:
        stream.seek(0)
        if mark in stream.read():
            return False
        stream.write(f"{markdown.render(result)}\n{mark}")
    return True


def _try(write: Callable[[], object], progress: Progress) -> None:
    try:
        write()
    except (OSError, HarnessError) as exc:
        progress.say(f"warning: a report could not be written: {exc}")


def _write_reproducer(recorder: Recorder, options: RunOptions) -> None:
    """reproduce.sh beside copies of the plan and of the user's series."""
    run_dir, result = recorder.run_dir, recorder.result
    files: dict[str, str] = {}
    plan = run_dir / f"{options.plan.name}.toml"
    plan.write_text(options.plan_text)
    for role, path in options.extra_series:
        copy = Path("series") / role.value / path.name
        (run_dir / copy).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, run_dir / copy, dirs_exist_ok=True)
        elif path.exists():
            shutil.copy(path, run_dir / copy)
        files[str(path)] = str(copy)
    text = reproduce.render(
        result,
        options.command,
        harness_commit=_harness_commit(),
        files=files,
        pins=recorder.pins.found,
        plan=plan.name,
        cwd=str(Path.cwd()),
    )
    atomic.write_text(run_dir / "reproduce.sh", text, executable=True)


def find_run(name: str, runs_dir: Path) -> Path:
    """A run directory by name below `runs_dir` or by path; UserError lists what is there."""
    found = run_directory(name, runs_dir)
    if found is None:
        raise no_such_run(name, runs_dir)
    return found


def load_run(name: str, runs_dir: Path) -> tuple[Path, RunResult]:
    run_dir = find_run(name, runs_dir)
    return run_dir, json_report.load(run_dir / "result.json")


def _harness_commit() -> str:
    """The harness's own commit, "-dirty" when it has local changes; "" outside a checkout."""
    try:
        repository = GitTree(layout.REPOSITORY)
        commit = repository.commit("HEAD")
    except HarnessError:
        return ""
    return f"{commit}-dirty" if repository.has_uncommitted() else commit
