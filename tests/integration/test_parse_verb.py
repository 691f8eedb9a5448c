# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness parse`: the documents it prints, for files of every sort."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import cli

DATA = Path(__file__).parents[1] / "unit" / "data"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main(["parse", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_ktap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "k"
    file.write_bytes(
        b"TAP version 13\n1..2\n# selftests: tsm: uapi\n# 1..1\n# ok 1 lock # SKIP no TDI\n"
        b"not ok 1 selftests: tsm: uapi # TIMEOUT 45 seconds\n"
    )
    assert printed(capsys, "ktap", str(file)) == {
        "cases": [
            {"id": ["tsm", "uapi", "lock"], "outcome": "skip", "reason": "no TDI", "line": 5},
            {"id": ["tsm", "uapi"], "outcome": "timeout", "reason": "45 seconds", "line": 6},
            {
                "id": ["#2"],
                "outcome": "missing",
                "reason": "planned, but no result line was seen",
                "line": 2,
            },
        ],
        "problems": [{"line": 2, "text": "2 results planned, 1 of them never came"}],
    }


def test_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "log", str(DATA / "splat" / "refcount.log")) == {
        "splats": [
            {
                "kind": "refcount",
                "title": "refcount: addition on NUM; use-after-free in sg_ref",
                "frame": "sg_ref",
                "start_line": 46,
                "end_line": 86,
                "corrupted": False,
            }
        ]
    }


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1..1\nok 1 a\n")))
    assert printed(capsys, "ktap", "-")["cases"][0]["id"] == ["a"]


@pytest.mark.parametrize("kind", ["ktap", "log"])
@pytest.mark.parametrize("sort", ["empty", "binary", "cut", "huge"])
def test_files_of_every_sort(
    kind: str, sort: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = {"ktap": "ktap/runner_harness.ktap", "log": "splat/kasan.log"}[kind]
    whole = (DATA / golden).read_bytes()
    data = {
        "empty": b"",
        "binary": random.Random(1).randbytes(300_000),
        "cut": whole[: len(whole) // 2 + 3],
        "huge": whole * (6_000_000 // len(whole)),
    }[sort]
    (tmp_path / "f").write_bytes(data)
    found = printed(capsys, kind, str(tmp_path / "f"))
    if kind == "log":
        assert len(found["splats"]) == {"cut": 1, "huge": 6_000_000 // len(whole)}.get(sort, 0)
    else:
        bad = [case for case in found["cases"] if case["outcome"] not in ("pass", "skip", "xfail")]
        assert found["problems"] or bad, "nothing of this is a clean pass"


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parse", "log", str(tmp_path / "none")]) == 64
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_reader_that_went_away_is_no_error(tmp_path: Path, lines: int) -> None:
    """`| head`: quiet, with the exit code of a program that SIGPIPE ended."""
    log = tmp_path / "console.log"
    log.write_bytes(b"WARNING: a.c:1 at foo+0x1/0x2, CPU#1: a/12\n" * lines)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "harness", "parse", "log", str(log)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
