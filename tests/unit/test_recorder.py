# SPDX-License-Identifier: GPL-2.0-only
"""The recorder: everything on disk at once, whatever happens next."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import InfraError, KernelError, StorageError
from harness.model.machine import BootFailure, MachineEnd
from harness.model.progress import SilentProgress
from harness.model.results import Failure, Outcome, RunResult, TestResult, Verdict
from harness.report import json_report
from harness.report.summary import sentence
from harness.stages import failures
from harness.stages.recorder import Recorder

START = RunResult(
    1, "r", "p", "solo", "2026-01-01T00:00:00+00:00", 0.0, Verdict.INFRA, 2, "0", {}, ()
)


def recorder(path: Path) -> Recorder:
    return Recorder(START, path, lambda: 1.5, json_report.write)


def result(outcome: Outcome) -> TestResult:
    return TestResult("guest", "guest", "tsm", "a", outcome, "", 1.0, 0.0, "")


def test_each_test_is_on_disk_with_its_verdict(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.test(result(Outcome.PASS))
    assert json_report.load(tmp_path / "result.json").verdict is Verdict.PASS
    record.test(result(Outcome.CRASH))
    loaded = json_report.load(tmp_path / "result.json")
    assert (loaded.verdict, loaded.exit_code) == (Verdict.FAIL, 1)
    assert loaded.counts == {"pass": 1, "crash": 1}


def test_a_stage_that_fails_is_recorded_as_failed(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with pytest.raises(InfraError), record.stage(SilentProgress(), "source"):
        raise InfraError("no network")
    with pytest.raises(KeyboardInterrupt), record.stage(SilentProgress(), "build"):
        raise KeyboardInterrupt
    with record.stage(SilentProgress(), "boot") as note:
        note.cached = True
    states = [(s.name, s.state) for s in json_report.load(tmp_path / "result.json").stages]
    assert states == [("source", "failed"), ("build", "interrupted"), ("boot", "cached")]


def test_what_is_on_the_disk_while_the_run_goes_on_is_no_pass(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with record.growing():
        with record.stage(SilentProgress(), "kselftests"):
            record.test(result(Outcome.PASS))
            killed = json_report.load(tmp_path / "result.json")
            assert (killed.verdict, killed.exit_code) == (Verdict.INFRA, 2)
            assert sentence(killed).startswith("UNFINISHED: still in stage kselftests")
        between = json_report.load(tmp_path / "result.json")
        assert between.verdict is Verdict.INFRA
        assert [(s.name, s.state) for s in between.stages] == [("kselftests", "ok")]
    record.save()
    assert json_report.load(tmp_path / "result.json").verdict is Verdict.PASS


def test_a_failure_is_one_while_the_run_goes_on(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    with record.growing():
        record.test(result(Outcome.FAIL))
    assert record.result.verdict is Verdict.FAIL


def test_the_same_failure_is_recorded_once(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.failure(Failure("infra", "", "gone"))
    record.failure(Failure("infra", "", "gone"))
    assert len(record.result.failures) == 1


def test_the_log_of_a_failure_is_named_as_seen_from_the_run(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.failure(Failure("boot", "guest", "gone", log=str(tmp_path / "console-guest.log")))
    record.failure(Failure("build", "", "no compiler", log="/elsewhere/build.log"))
    logs = [failure.log for failure in json_report.load(tmp_path / "result.json").failures]
    assert logs == ["console-guest.log", "/elsewhere/build.log"]


def test_a_boot_that_failed_is_one_sentence() -> None:
    """The end of the console stands in the excerpt, and the machine's name is the role."""
    detail = BootFailure("guest", MachineEnd.REBOOT, 3.0, "one\ntwo\n")
    said = "guest: kernel 7 did not come up in 3.0 s: reset\n  | one\n  | two"
    failure = failures.from_error(KernelError(said, detail=detail))
    assert (failure.kind, failure.role) == ("boot", "guest")
    assert failure.message == "kernel 7 did not come up in 3.0 s: reset"
    assert failure.excerpt == "one\ntwo\n"


def test_a_full_disk_is_a_storage_error_and_the_old_file_stays(tmp_path: Path) -> None:
    full = False

    def write(path: Path, found: RunResult) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        json_report.write(path, found)

    record = Recorder(START, tmp_path, lambda: 0.0, write)
    record.test(result(Outcome.PASS))
    full = True
    with pytest.raises(StorageError, match="No space left"):
        record.test(result(Outcome.FAIL))
    assert json_report.load(tmp_path / "result.json").counts == {"pass": 1}
    assert record.result.counts == {"pass": 1, "fail": 1}, "kept in memory for the next attempt"


def test_changes_are_drafts_and_the_end_is_written_with_care(tmp_path: Path) -> None:
    written: list[str] = []

    def note(how: str) -> Callable[[Path, RunResult], None]:
        return lambda path, found: written.append(f"{how} {path.name} {len(found.tests)}")

    record = Recorder(START, tmp_path, lambda: 0.0, note("write"), note("draft"))
    record.test(result(Outcome.PASS))
    record.save()
    assert written == ["draft result.json 1", "write result.json 1"]


def test_a_draft_is_a_whole_result(tmp_path: Path) -> None:
    json_report.write(tmp_path / "written.json", START)
    json_report.write_draft(tmp_path / "draft.json", START)
    assert (tmp_path / "draft.json").read_text() == (tmp_path / "written.json").read_text()
