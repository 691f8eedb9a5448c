# SPDX-License-Identifier: GPL-2.0-only
"""A run as KCIDB I/O data, schema 5.3, ready for KernelCI's submission tools.

Schema: kcidb_io/schema/v05_03.py of https://github.com/kernelci/kcidb-io (kcidb-io 141 on PyPI).
A checkout and a build per kernel; a test "boot" per machine; "kselftest.<collection>.<test>" per
test and below it a test per subtest. Paths keep only [a-zA-Z0-9_-]; misc holds the names as they
are, and our outcome, of which KCIDB's status is a coarser view.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.model.results import (
    KernelRecord,
    MachineRecord,
    Outcome,
    RunResult,
    SubtestResult,
    TestResult,
)
from harness.report import atomic
from harness.report.text import clean, clip, one_line, read_log

VERSION = {"major": 5, "minor": 3}

# FAIL: the kernel is at fault; ERROR: the test broke off; MISS: the harness did not run it;
# DONE: it completed and says nothing about the code.
STATUS: dict[Outcome, str] = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.XPASS: "FAIL",
    Outcome.TIMEOUT: "FAIL",
    Outcome.CRASH: "FAIL",
    Outcome.FLAKY: "FAIL",
    Outcome.SKIP: "SKIP",
    Outcome.XFAIL: "DONE",
    Outcome.MISSING: "ERROR",
    Outcome.INFRA: "MISS",
}
_EXCERPT = 16_000  # characters; the schema allows 16384


def write(path: Path, result: RunResult, run_dir: Path, *, origin: str) -> None:
    """Replace `path` with to_dict() as JSON. Raises StorageError, UserError."""
    atomic.write_text(path, json.dumps(to_dict(result, run_dir, origin=origin), indent=1) + "\n")


def to_dict(result: RunResult, run_dir: Path, *, origin: str) -> dict[str, Any]:
    """The KCIDB object. origin: the submitter's name agreed with KernelCI, [a-z0-9_]+.

    Raises UserError for another origin. Log excerpts of bad tests are read from `run_dir`.
    """
    if not re.fullmatch(r"[a-z0-9_]+", origin):
        raise UserError(
            f"KCIDB origin: {origin!r} may only hold a-z, 0-9 and _",
            hint="use the name that KernelCI gave to your system",
        )
    writer = _Writer(result, run_dir, origin)
    roles = {kernel.role for kernel in result.kernels}
    # A role that ran tests without a kernel of ours: the machine's own.
    others = sorted({test.role for test in result.tests} - roles)
    return {
        "version": dict(VERSION),
        "checkouts": [writer.checkout(kernel) for kernel in result.kernels]
        + [writer.identified(f"{role}-own") for role in others],
        "builds": [writer.build(kernel) for kernel in result.kernels]
        + [writer.own_build(role) for role in others],
        "tests": [writer.boot(m) for m in result.machines if m.role in roles or m.role in others]
        + [entry for test in result.tests for entry in writer.tests(test)],
    }


class _Writer:
    """The parts of one run's KCIDB data; ids are "<origin>:<run id>/<part>"."""

    def __init__(self, result: RunResult, run_dir: Path, origin: str) -> None:
        self._run = result
        self._run_dir = run_dir
        self._origin = origin
        self._started = datetime.fromisoformat(result.started)

    def identified(self, part: str) -> dict[str, Any]:
        run_id = one_line(self._run.run_id)
        return {"id": f"{self._origin}:{run_id}/{part}", "origin": self._origin}

    def _at(self, seconds: float) -> str:
        return (self._started + timedelta(seconds=seconds)).isoformat()

    def _failed(self, role: str, kinds: Sequence[str]) -> str | None:
        """The message of the role's first failure of these kinds."""
        for failure in self._run.failures:
            if failure.role == role and failure.kind in kinds:
                return failure.message
        return None

    def checkout(self, kernel: KernelRecord) -> dict[str, Any]:
        patch = self._failed(kernel.role, ["patch"])
        entry = self.identified(kernel.role) | {
            "tree_name": one_line(f"{kernel.source_kind} {kernel.source_version}"),
            "start_time": self._at(0),
            "valid": patch is None,
            "misc": {"source_id": kernel.source_id, "series": [one_line(p) for p in kernel.series]},
        }
        if kernel.source_kind == "git" and re.fullmatch(r"[0-9a-f]{40}", kernel.source_id):
            entry["git_commit_hash"] = kernel.source_id
        if patch is not None:
            entry["log_excerpt"] = clip(clean(patch), _EXCERPT).text
        return entry

    def build(self, kernel: KernelRecord) -> dict[str, Any]:
        entry = self.identified(f"{kernel.role}/build") | {
            "checkout_id": self.identified(kernel.role)["id"],
            "architecture": "x86_64",
            "compiler": one_line(kernel.compiler),
            "duration": kernel.build_s,
            "misc": {
                "release": kernel.release,
                "build_id": kernel.build_id,
                "config_hash": kernel.config_hash,
                "cached": kernel.cached,
                "warnings": len(kernel.warnings),
            },
        }
        message = self._failed(kernel.role, ["config", "build"])
        if message is not None:
            entry["status"] = "FAIL"
            entry["log_excerpt"] = clip(clean(message), _EXCERPT).text
        elif self._failed(kernel.role, ["patch"]) is not None:
            entry["status"] = "MISS"
        else:
            entry["status"] = "PASS" if kernel.build_id else "MISS"
        return entry

    def own_build(self, role: str) -> dict[str, Any]:
        return self.identified(f"{role}/build") | {
            "checkout_id": self.identified(f"{role}-own")["id"],
            "comment": "the machine's own kernel, not built by this run",
        }

    def boot(self, machine: MachineRecord) -> dict[str, Any]:
        message = self._failed(machine.role, ["boot"])
        status = "FAIL" if message is not None else "PASS" if machine.boots else "MISS"
        excerpt = read_log(self._run_dir, machine.console, _EXCERPT) if status == "FAIL" else None
        entry = self.identified(f"{machine.role}/boot/{one_line(machine.name)}") | {
            "build_id": self.identified(f"{machine.role}/build")["id"],
            "path": "boot",
            "status": status,
            "duration": machine.boot_s,
            "environment": {"comment": self._environment(machine.name)},
            "misc": {"end": machine.end, "boots": machine.boots},
        }
        if excerpt is not None and excerpt.text:
            entry["log_excerpt"] = excerpt.text[-_EXCERPT:]
        return entry

    def tests(self, test: TestResult) -> list[dict[str, Any]]:
        """The test itself, then its subtests."""
        names = ["kselftest", test.collection, test.test]
        whole = self._case(test, names, SubtestResult((), test.outcome, test.reason), "")
        whole["duration"] = test.duration_s
        if not test.outcome.good and (excerpt := self._excerpt(test)):
            whole["log_excerpt"] = excerpt
        return [whole] + [
            self._case(test, [*names, *sub.name], sub, f"#{index}")
            for index, sub in enumerate(test.subtests, 1)
        ]

    def _case(
        self, test: TestResult, names: Sequence[str], leaf: SubtestResult, suffix: str
    ) -> dict[str, Any]:
        part = f"{test.role}/{test.machine}/{test.collection}:{test.program}@{test.attempt}{suffix}"
        return self.identified(one_line(part)) | {
            "build_id": self.identified(f"{test.role}/build")["id"],
            "path": ".".join(_path_word(name) for name in names),
            "status": STATUS[leaf.outcome],
            "start_time": self._at(test.started_s),
            "environment": {"comment": self._environment(test.machine)},
            "comment": one_line(leaf.reason),
            "misc": {
                "outcome": leaf.outcome.value,
                "name": [clean(name) for name in names],
                **({"platform": clean(test.cell)} if test.cell else {}),
            },
        }

    def _environment(self, machine: str) -> str:
        for record in self._run.machines:
            if record.name == machine:
                accel = "" if record.accel == "none" else f", {record.accel}"
                return one_line(f"{record.name} ({record.kind}{accel}), plan {self._run.plan}")
        return one_line(f"{machine}, plan {self._run.plan}")

    def _excerpt(self, test: TestResult) -> str:
        """The test's splats if there are any, else the end of its log."""
        name = f"{test.collection}:{test.program}"
        splats = [r.text for r in self._run.splats if r.test == name and r.role == test.role]
        if splats:
            return clip(clean("\n".join(splats)), _EXCERPT - 200).text
        return read_log(self._run_dir, test.log, _EXCERPT).text[-_EXCERPT:]


def _path_word(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", one_line(name, 100)) or "_"
