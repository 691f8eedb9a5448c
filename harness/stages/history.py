# SPDX-License-Identifier: GPL-2.0-only
"""A run beside earlier ones, and its place among them. Never changes a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.adapters.history import NAME, HistoryStore
from harness.core.baseline import WINDOW, beside
from harness.errors import HarnessError
from harness.model.results import RunResult
from harness.report import json_report
from harness.stages.recorder import Recorder
from harness.stages.run_directory import no_such_run, run_directory

Say = Callable[[str], None]


def open_history(runs_dir: Path, say: Say, leave_out: str = "") -> HistoryStore:
    """The history of a runs directory; a new one is filled from the result.json files there.

    leave_out: the run that is under way. StorageError when the file cannot be used.
    """
    store = HistoryStore(runs_dir, say)
    if store.new:
        for path in sorted(runs_dir.glob("*/result.json")):
            if path.parent.is_symlink() or path.parent.name == leave_out:
                continue
            try:
                store.record(json_report.load(path))
            except HarnessError as exc:
                say(f"history: left out: {exc.message}")
    return store


def compare(recorder: Recorder, runs_dir: Path, baseline: str, say: Say) -> None:
    """Put the run beside those of the history. baseline: a run's name or directory, "" to choose.

    What goes wrong is said, not raised.
    """
    run = recorder.result
    if not run.tests:
        return
    try:
        store = open_history(runs_dir, say, run.run_id)
        earlier = store.recent(WINDOW, plan=run.plan, topology=run.topology, before=run.started)
        named = find(baseline, runs_dir, store) if baseline else None
        found = beside(run, earlier, named)
        recorder.comparison(found.baseline, found.slower, found.history)
    except HarnessError as exc:
        say(f"warning: no comparison with earlier runs: {exc.message}")


def record(run: RunResult, runs_dir: Path, say: Say) -> None:
    """Add the finished run to the history. What goes wrong is said, not raised.

    A verb that tests nothing and that went well (build, boot) leaves no trace.
    """
    if not run.tests and not run.failures:
        return
    try:
        open_history(runs_dir, say, run.run_id).record(run)
    except HarnessError as exc:
        say(f"warning: the run is not in the history: {exc.message}")


def locate(name: str, runs_dir: Path) -> str:
    """A run's directory as an absolute path, or its name when only the history knows it."""
    directory = run_directory(name, runs_dir)
    if directory is None:
        find(name, runs_dir)
        return name
    return str(directory)


def find(name: str, runs_dir: Path, store: HistoryStore | None = None) -> RunResult:
    """A run by its directory, or by its name when only the history still knows it; UserError."""
    directory = run_directory(name, runs_dir)
    if directory is not None:
        return json_report.load(directory / "result.json")
    if store is None and (runs_dir / NAME).is_file():
        store = HistoryStore(runs_dir, print)
    found = store.find(name) if store is not None else None
    if found is None:
        raise no_such_run(name, runs_dir)
    return found
