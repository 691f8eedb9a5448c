# SPDX-License-Identifier: GPL-2.0-only
"""The history file: real SQLite files, several processes, damaged ones."""

from __future__ import annotations

import multiprocessing
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.adapters.history import NAME, HistoryStore
from harness.core.baseline import beside
from harness.errors import StorageError, UserError
from harness.model.results import Failure, Outcome, RunResult, SubtestResult
from harness.report import json_report
from harness.stages import history
from harness.stages.recorder import Recorder
from tests.unit.test_baseline import case, run

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


def store(directory: Path, notes: list[str] | None = None) -> HistoryStore:
    return HistoryStore(directory, (notes if notes is not None else []).append, lambda: NOW)


def names(found: HistoryStore) -> list[str]:
    return [one.run_id for one in found.recent(100)]


def test_what_is_read_back_is_what_comparisons_need(tmp_path: Path) -> None:
    first = run(1, case("fail", a="fail", b="pass"), case("pass", "race", seconds=2.5))
    store(tmp_path).record(first)
    (found,) = store(tmp_path).recent(10)
    assert [(t.key, t.outcome, t.reason, t.duration_s, t.subtests) for t in found.tests] == [
        (t.key, t.outcome, t.reason, t.duration_s, t.subtests) for t in first.tests
    ]
    kernel = found.kernels[0]
    assert (kernel.role, kernel.build_id, kernel.config_hash) == ("guest", "ab", "cfg")
    assert found.controller == first.controller
    now = run(2, case("fail", a="fail"))
    assert beside(now, [found]) == beside(now, [first])


def test_odd_names_survive(tmp_path: Path) -> None:
    odd = ("a/b", 'quote"', "line\nbreak", "\u00e9\U0001f600")
    sub = SubtestResult(odd, Outcome.FAIL, "x" * 1000)
    lone = SubtestResult(("\ud800",), Outcome.PASS, "\udfff")
    test = replace(case("fail", "it's; DROP TABLE runs"), subtests=(sub, lone))
    store(tmp_path).record(run(1, test))
    (found,) = store(tmp_path).recent(1)
    assert found.tests[0].test == "it's; DROP TABLE runs"
    assert [s.name for s in found.tests[0].subtests] == [odd, ("\ud800",)]
    assert found.tests[0].subtests[0].reason == "x" * 400


def test_a_run_recorded_twice_is_there_once(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.record(run(1, case("fail"), case("pass", "race")))
    one.record(run(1, case("pass")))
    (found,) = one.recent(10)
    assert [(t.test, t.outcome.value) for t in found.tests] == [("abi", "pass")]
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (1,)


def test_the_last_runs_of_a_plan_oldest_first(tmp_path: Path) -> None:
    one = store(tmp_path)
    for day in (5, 1, 3, 2, 4):
        one.record(run(day, case("pass")))
    one.record(run(6, case("pass"), plan="other"))
    found = one.recent(3, plan="default", topology="solo", before="2026-11-04T23")
    assert [r.run_id for r in found] == ["day2", "day3", "day4"]
    assert [r.run_id for r in one.recent(1)] == ["day6"]
    assert one.recent(3, plan="default", topology="pair") == ()
    assert one.find("day3") is not None
    assert one.find("day99") is None


def test_an_interrupted_run_stays_one(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.record(replace(run(1, case("pass")), failures=(Failure("interrupted", "", "m"),)))
    assert [failure.kind for failure in one.recent(1)[0].failures] == ["interrupted"]


def _record_many(directory: str, first: int) -> None:
    for day in range(first, first + 10):
        store(Path(directory)).record(replace(run(1, case("pass")), run_id=f"run{day}"))


def test_several_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_record_many, args=(str(tmp_path), start)) for start in (0, 10, 20)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(names(store(tmp_path))) == sorted(f"run{n}" for n in range(30))


@pytest.mark.parametrize("where", ["head", "middle", "all", "text"])
def test_a_broken_file_is_moved_aside_and_said(tmp_path: Path, where: str) -> None:
    one = store(tmp_path)
    for day in range(1, 20):
        one.record(run(day, *(case("pass", f"t{n}") for n in range(40))))
    path = tmp_path / NAME
    data = bytearray(path.read_bytes())
    assert len(data) > 40_000, "the log was written back"
    match where:
        case "head":
            data[:100] = b"\xff" * 100
        case "middle":
            data[8192:24576] = b"\x5a" * 16384
        case "all":
            data[:] = b"\0" * 512 + b"x" * 5000
        case _:
            data[:] = b"this is no database\n" * 100
    path.write_bytes(data)
    notes: list[str] = []
    again = store(tmp_path, notes)
    assert again.new
    assert again.recent(10) == ()
    (note,) = notes
    assert "broken (" in note
    assert f"kept as {NAME}.broken-20261122T200000Z" in note
    assert (tmp_path / f"{NAME}.broken-20261122T200000Z").read_bytes() == data
    again.record(run(1, case("pass")))
    assert names(store(tmp_path, notes)) == ["day1"]
    assert len(notes) == 1


def test_two_broken_files_within_a_second_are_both_kept(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / NAME).write_text(f"{text} is no database\n" * 100)
        store(tmp_path)
    kept = sorted(p.read_text()[:3] for p in tmp_path.glob(f"{NAME}.broken-*"))
    assert kept == ["one", "two"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(StorageError, match="not of this harness"):
        store(tmp_path)
    assert list(tmp_path.glob("*.broken*")) == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    store(tmp_path)
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="newer harness"):
        store(tmp_path)


def test_a_directory_in_the_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(StorageError):
        store(tmp_path)


def written(runs: Path, one: RunResult) -> None:
    directory = runs / one.run_id
    directory.mkdir(parents=True)
    json_report.write(directory / "result.json", one)


def test_a_new_history_is_filled_from_the_runs_that_are_there(tmp_path: Path) -> None:
    for day in (1, 2):
        written(tmp_path, run(day, case("pass")))
    (tmp_path / "latest").symlink_to("day2")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text("{")
    said: list[str] = []
    assert names(history.open_history(tmp_path, said.append, leave_out="day2")) == ["day1"]
    assert len(said) == 1
    assert "not JSON" in said[0]
    (tmp_path / NAME).write_text("no database at all\n" * 100)
    assert names(history.open_history(tmp_path, said.append)) == ["day1", "day2"]


def recorder(runs: Path, one: RunResult) -> Recorder:
    written(runs, one)
    return Recorder(one, runs / one.run_id, lambda: 1.0, json_report.write)


def test_runs_are_compared_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []
    for day, outcome in ((1, "pass"), (2, "fail"), (3, "fail")):
        record = recorder(tmp_path, run(day, case(outcome)))
        history.compare(record, tmp_path, "", said.append)
        record.save()
        history.record(record.result, tmp_path, said.append)
    found = json_report.load(tmp_path / "day3" / "result.json")
    assert found.baseline is not None
    assert found.baseline.run_id == "day2"
    assert [(c.change.value, c.since) for c in found.baseline.cases] == [("still failing", "day2")]
    assert [p.run_id for p in found.history[0].points] == ["day1", "day2", "day3"]
    assert said == []


def test_a_build_leaves_no_trace_and_a_failed_one_does(tmp_path: Path) -> None:
    history.record(run(1), tmp_path, print)
    assert not (tmp_path / NAME).exists()
    history.record(replace(run(1), failures=(Failure("build", "", "m"),)), tmp_path, print)
    assert names(store(tmp_path)) == ["day1"]


def test_the_named_baseline_may_live_in_the_history_alone(tmp_path: Path) -> None:
    store(tmp_path).record(run(1, case("pass")))
    store(tmp_path).record(run(2, case("fail")))
    record = recorder(tmp_path, run(3, case("fail")))
    history.compare(record, tmp_path, "day1", print)
    baseline = record.result.baseline
    assert baseline is not None
    assert (baseline.run_id, baseline.cases[0].change.value) == ("day1", "new failure")
    with pytest.raises(UserError, match="day9: no such run"):
        history.find("day9", tmp_path)


def test_a_history_that_cannot_be_used_is_said_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    record = recorder(tmp_path, run(1, case("pass")))
    said: list[str] = []
    history.compare(record, tmp_path, "", said.append)
    history.record(record.result, tmp_path, said.append)
    assert record.result.exit_code == 0
    assert [line.split(":")[1] for line in said] == [
        " no comparison with earlier runs",
        " the run is not in the history",
    ]
