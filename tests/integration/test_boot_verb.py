# SPDX-License-Identifier: GPL-2.0-only
"""The exit code of the verbs that only prepare (boot, build)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, commands
from harness.model.results import Failure, Splat, SplatRecord
from harness.stages.run import MainJob

WARNING = SplatRecord("guest", "guest", "", Splat("warn", "WARNING in f", "f", 1, 2), "text")


def ended(tmp_path: Path, *found: SplatRecord | Failure) -> int:
    """The exit code of a verb whose machines were up, and that found something."""

    def work(job: MainJob) -> None:
        for one in found:
            if isinstance(one, SplatRecord):
                job.recorder.splats((one,))
            else:
                job.recorder.failure(one)

    words = ("boot", "default", "--runs-dir", str(tmp_path / "runs"))
    return commands._execute(cli.parse(words), words, work)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDISP_HARNESS_CACHE", str(tmp_path / "cache"))


def test_nothing_found_is_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(tmp_path) == 0
    assert "done; records are in" in capsys.readouterr().out


def test_a_kernel_that_splats_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(tmp_path, WARNING) == 1
    assert "WARNING in f" in capsys.readouterr().out
    assert ended(tmp_path, replace(WARNING, expected=True)) == 0


def test_failures_decide_as_before(tmp_path: Path) -> None:
    assert ended(tmp_path, Failure("boot", "guest", "no")) == 1
    assert ended(tmp_path, Failure("infra", "", "no")) == 2


def test_a_reader_that_went_away_does_not_change_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", unread)
        assert ended(tmp_path, WARNING) == 1
        assert ended(tmp_path) == 0
