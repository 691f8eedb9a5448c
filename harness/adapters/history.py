# SPDX-License-Identifier: GPL-2.0-only
"""The history of runs: one SQLite file beside the run directories.

A row of `results` is one case in one run; with the row of `runs` it belongs to, its key is (host
kernel, guest kernel, QEMU, configuration, machine, test, subtest). Several processes may use the
file at once (WAL; each run is one transaction). A file that is broken is moved aside, never
removed: the runs' own result.json files hold the same, and the caller reads them in again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import StorageError
from harness.model.results import (
    Failure,
    KernelRecord,
    Outcome,
    RunResult,
    SubtestResult,
    TestResult,
    Verdict,
)

NAME = "history.sqlite"
_APPLICATION = 0x54444953  # "TDIS", in the header of the file
_VERSION = 1
_WAIT_S = 60.0  # for another process's transaction
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    topology TEXT NOT NULL,
    expression TEXT NOT NULL,
    started TEXT NOT NULL,
    duration_s REAL NOT NULL,
    verdict TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    harness_version TEXT NOT NULL,
    interrupted INTEGER NOT NULL,
    host_kernel TEXT NOT NULL,   -- build ids
    guest_kernel TEXT NOT NULL,
    host_release TEXT NOT NULL,
    guest_release TEXT NOT NULL,
    host_config TEXT NOT NULL,   -- hashes
    guest_config TEXT NOT NULL,
    qemu TEXT NOT NULL,
    accel TEXT NOT NULL,
    cpus TEXT NOT NULL
);
CREATE INDEX runs_of_plan ON runs (plan, topology, started);
CREATE TABLE results (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    machine TEXT NOT NULL,
    role TEXT NOT NULL,
    collection TEXT NOT NULL,
    test TEXT NOT NULL,
    subtest TEXT NOT NULL,       -- JSON array, [] for the program itself
    position INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    duration_s REAL NOT NULL,    -- 0 for a subtest
    PRIMARY KEY (run, machine, role, collection, test, subtest)
) WITHOUT ROWID;
CREATE INDEX results_of_test ON results (role, collection, test, subtest);
"""


class HistoryStore:
    """The file `directory`/history.sqlite. StorageError when it cannot be used.

    on_note receives a line when a broken file was moved aside. now: for that file's new name.
    """

    def __init__(
        self,
        directory: Path,
        on_note: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = directory / NAME
        self._on_note = on_note
        self._now = now
        self.new = self._prepare()  # the file holds no run yet

    def record(self, run: RunResult) -> None:
        """Add a run, or replace what is known of it."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM runs WHERE run_id = ?", (run.run_id,))
            row = _run_row(run)
            marks = ", ".join("?" * len(row))
            cursor = connection.execute(
                f"INSERT INTO runs ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
            )
            connection.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _result_rows(cursor.lastrowid, run),
            )
            connection.execute("COMMIT")

    def recent(
        self, limit: int, *, plan: str = "", topology: str = "", before: str = ""
    ) -> tuple[RunResult, ...]:
        """The last runs with their tests, oldest first. "" stands for any; before: of `started`.

        A run read back has what the history keeps: kernels without sources, tests without logs.
        """
        query = """SELECT * FROM runs WHERE (? = '' OR plan = ?) AND (? = '' OR topology = ?)
            AND (? = '' OR started <= ?) ORDER BY started DESC, id DESC LIMIT ?"""
        chosen = (plan, plan, topology, topology, before, before, limit)
        with self._connection() as connection:
            rows = connection.execute(query, chosen).fetchall()
            return tuple(_run(connection, row) for row in reversed(rows))

    def find(self, run_id: str) -> RunResult | None:
        """A run by its name, None when it is not known."""
        with self._connection() as connection:
            row = connection.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            return None if row is None else _run(connection, row)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            connection.row_factory = sqlite3.Row
            with contextlib.closing(connection):
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.Error as exc:
            raise StorageError(
                f"{self.path}: {exc}", hint="the history of runs is not complete; this run is"
            ) from exc

    def _prepare(self) -> bool:
        """Make or check the file; True when it holds no run. One process at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{NAME}.lock"), timeout=_WAIT_S):
                damage = self._damage()
                if damage:
                    self._move_aside(damage)
                return self._create()
        except (OSError, TimeoutError) as exc:
            raise StorageError(f"{self.path}: {exc}") from exc

    def _damage(self) -> str:
        """What is broken about the file, "" when nothing is or there is none."""
        if not self.path.exists():
            return ""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                return "" if said == "ok" else str(said)
        except sqlite3.DatabaseError as exc:
            if (exc.sqlite_errorcode & 0xFF) in _BROKEN:
                return str(exc)
            raise StorageError(f"{self.path}: {exc}") from exc

    def _move_aside(self, damage: str) -> None:
        """Rename the file, with the log that SQLite keeps beside it."""
        stem = f"{NAME}.broken-{self._now():%Y%m%dT%H%M%SZ}"
        number, name = 1, stem
        while self.path.with_name(name).exists():
            number += 1
            name = f"{stem}-{number}"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(self.path.with_name(name + suffix))
        self._on_note(f"{self.path}: broken ({damage}); kept as {name}, and begun again")

    def _create(self) -> bool:
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != _APPLICATION:
                raise StorageError(
                    f"{self.path}: a database, but not of this harness", hint="move it away"
                )
            if version > _VERSION:
                raise StorageError(
                    f"{self.path}: written by a newer harness (format {version})",
                    hint="use that harness, or another --runs-dir",
                )
            if not tables:
                begin = f"BEGIN; PRAGMA application_id = {_APPLICATION};"
                connection.executescript(
                    f"{begin} PRAGMA user_version = {_VERSION}; {_SCHEMA} COMMIT;"
                )
            return connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None


def _run_row(run: RunResult) -> dict[str, Any]:
    kernels = {kernel.role: kernel for kernel in run.kernels}
    row: dict[str, Any] = {
        "run_id": _text(run.run_id),
        "plan": _text(run.plan),
        "topology": _text(run.topology),
        "expression": _text(run.expression),
        "started": run.started,
        "duration_s": run.duration_s,
        "verdict": run.verdict.value,
        "exit_code": run.exit_code,
        "harness_version": run.harness_version,
        "interrupted": int(any(failure.kind == "interrupted" for failure in run.failures)),
    }
    for role in ("host", "guest"):
        kernel = kernels.get(role)
        row[f"{role}_kernel"] = kernel.build_id if kernel else ""
        row[f"{role}_release"] = _text(kernel.release) if kernel else ""
        row[f"{role}_config"] = kernel.config_hash if kernel else ""
    for fact in ("qemu", "accel", "cpus"):
        row[fact] = _text(run.controller.get(fact, ""))
    return row


def _result_rows(run: int | None, result: RunResult) -> Iterator[tuple[Any, ...]]:
    position = 0
    for test in result.tests:
        program = test.key.split(":", 2)[2]
        place = tuple(_text(name) for name in (test.machine, test.role, test.collection, program))
        found: list[tuple[tuple[str, ...], Outcome, str, float]]
        found = [((), test.outcome, test.reason, test.duration_s)]
        found += [(sub.name, sub.outcome, sub.reason, 0.0) for sub in test.subtests]
        for name, outcome, reason, duration_s in found:
            position += 1
            said = _text(reason[:400])
            yield (run, *place, json.dumps(name), position, outcome.value, said, duration_s)


def _run(connection: sqlite3.Connection, row: sqlite3.Row) -> RunResult:
    rows = connection.execute("SELECT * FROM results WHERE run = ? ORDER BY position", (row["id"],))
    stopped = Failure("interrupted", "", "interrupted by a signal")
    return RunResult(
        schema_version=1,
        run_id=row["run_id"],
        plan=row["plan"],
        topology=row["topology"],
        started=row["started"],
        duration_s=row["duration_s"],
        verdict=Verdict(row["verdict"]),
        exit_code=row["exit_code"],
        harness_version=row["harness_version"],
        controller={fact: row[fact] for fact in ("qemu", "accel", "cpus")},
        command=(),
        kernels=tuple(_kernel(role, row) for role in ("host", "guest") if row[f"{role}_config"]),
        tests=_tests(rows.fetchall()),
        failures=(stopped,) if row["interrupted"] else (),
        expression=row["expression"],
    )


def _kernel(role: str, row: sqlite3.Row) -> KernelRecord:
    return KernelRecord(
        role=role,
        source_kind="",
        source_version="",
        source_id="",
        series=(),
        config_hash=row[f"{role}_config"],
        release=row[f"{role}_release"],
        build_id=row[f"{role}_kernel"],
        compiler="",
        warnings=(),
        cached=True,
        build_s=0.0,
        config_proof="",
    )


def _tests(rows: list[sqlite3.Row]) -> tuple[TestResult, ...]:
    """Test programs in the order they were recorded, each with the subtests that follow it."""
    programs: dict[tuple[str, ...], sqlite3.Row] = {}
    subtests: dict[tuple[str, ...], list[SubtestResult]] = {}
    for row in rows:
        key = (row["machine"], row["role"], row["collection"], row["test"])
        name = tuple(json.loads(row["subtest"]))
        if not name:
            programs[key] = row
        else:
            one = SubtestResult(name, Outcome(row["outcome"]), row["reason"])
            subtests.setdefault(key, []).append(one)
    return tuple(
        TestResult(
            machine=key[0],
            role=key[1],
            collection=key[2],
            test=key[3],
            outcome=Outcome(row["outcome"]),
            reason=row["reason"],
            duration_s=row["duration_s"],
            started_s=0.0,
            log="",
            subtests=tuple(subtests.get(key, ())),
        )
        for key, row in programs.items()
    )


def _text(value: str) -> str:
    """SQLite stores UTF-8, which has no lone surrogates."""
    return value.encode("utf-8", "replace").decode("utf-8")
