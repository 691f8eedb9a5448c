# SPDX-License-Identifier: GPL-2.0-only
"""Results: outcomes, KTAP cases, splats, tests, and the whole run as result.json holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from harness.model.kernel import ConfigRow
from harness.model.platform import CellRecord, PlatformEvents


class Outcome(StrEnum):
    """What became of one case. INFRA is kept apart: it is never a statement about the kernel."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    XFAIL = "xfail"  # failed as announced
    XPASS = "xpass"  # passed although a failure was announced: a failure
    TIMEOUT = "timeout"
    CRASH = "crash"  # the machine ended or splatted while it ran
    MISSING = "missing"  # planned or announced, but no result line was seen
    FLAKY = "flaky"  # failed, then passed on repetition
    INFRA = "infra"

    @property
    def good(self) -> bool:
        """True when this outcome does not make the run fail."""
        return self in (Outcome.PASS, Outcome.SKIP, Outcome.XFAIL)


class Verdict(StrEnum):
    """The verdict of a whole run; exit codes 0, 1, 2."""

    PASS = "pass"
    FAIL = "fail"
    INFRA = "infra"


@dataclass(frozen=True, slots=True)
class KtapCase:
    """One KTAP/TAP result. id: ("collection", "test", "subtest", ...); line: 1-based."""

    id: tuple[str, ...]
    outcome: Outcome
    reason: str
    line: int


@dataclass(frozen=True, slots=True)
class KtapProblem:
    """Something wrong with the KTAP text itself. line: 1-based, 0 for the whole input."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class KtapReport:
    """All leaf cases of a KTAP text, in order, and the problems met."""

    cases: tuple[KtapCase, ...]
    problems: tuple[KtapProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Splat:
    """A kernel report found in a console log. Lines are 1-based and inclusive."""

    kind: str  # "oops", "warn", "bug", "panic", "kasan", "lockdep", ... (configs/splat_rules.toml)
    title: str  # stable: addresses and numbers normalised
    frame: str  # guilty function, "" when unknown
    start_line: int
    end_line: int
    corrupted: bool = False
    trace: tuple[str, ...] = ()
    fingerprint: str = ""  # short hash of kind, title and frame


@dataclass(frozen=True, slots=True)
class SplatRecord:
    """A splat attributed to a machine, a role and (or not) a test."""

    machine: str
    role: str
    test: str  # "collection:test", or "" when between tests
    splat: Splat
    text: str  # the raw lines
    expected: bool = False  # a negative control had to show it
    decoded: tuple[str, ...] = ()  # splat.trace with source lines, where the build has them


@dataclass(frozen=True, slots=True)
class SubtestResult:
    """One leaf case inside a kselftest."""

    name: tuple[str, ...]
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a test that was made more than once. number: 1 for the first."""

    number: int
    machine: str
    outcome: Outcome
    reason: str
    duration_s: float
    started_s: float  # seconds since the start of the run
    log: str  # path relative to the run directory
    exit_status: int | None = None
    grave: bool = False  # a crash, new taint or a broken rule of the platform: never excused


@dataclass(frozen=True, slots=True)
class TestResult:
    """One kselftest program run on one machine.

    attempts: every attempt in order when there was more than one; the other fields then tell what
    they amount to, and `log` is that of the attempt that decided.
    """

    __test__: ClassVar[bool] = False  # for pytest: its name only looks like a test class

    machine: str
    role: str
    collection: str
    test: str
    outcome: Outcome
    reason: str
    duration_s: float
    started_s: float  # seconds since the start of the run
    log: str  # path relative to the run directory
    subtests: tuple[SubtestResult, ...] = ()
    exit_status: int | None = None
    attempt: int = 1
    taint_before: int = 0
    taint_after: int = 0
    attempts: tuple[Attempt, ...] = ()
    cell: str = ""  # of the platform's matrix
    platform: PlatformEvents | None = None  # None: the machine had no platform
    last_lines: tuple[str, ...] = ()  # of the console, when the machine ended under the test

    @property
    def program(self) -> str:
        """ "test", or "test@cell": what tells it from the same program in another cell."""
        return f"{self.test}@{self.cell}" if self.cell else self.test

    @property
    def key(self) -> str:
        return f"{self.role}:{self.collection}:{self.program}"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of the run, for the timeline. Times are seconds since the start of the run."""

    name: str
    start_s: float
    end_s: float
    state: str  # "ok", "failed", "cached", "interrupted", "running" (a partial result)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that is not a test's: patch, config, build, boot, infrastructure."""

    # "patch", "config", "build", "boot", "crash", "oracle", "infra", "user", "interrupted"
    kind: str
    role: str  # "host", "guest", "" when neither
    message: str
    hint: str = ""
    command: str = ""
    log: str = ""
    excerpt: str = ""  # console tail, compiler output, .rej


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One machine of the run as it was."""

    name: str
    role: str
    kind: str  # "qemu", "nested", "lab"
    accel: str  # "kvm", "tcg", "none" for a lab machine
    console: str  # path relative to the run directory
    kernel_release: str = ""
    build_id: str = ""
    boots: int = 0
    boot_s: float = 0.0
    end: str = ""  # model.machine.MachineEnd value
    qemu_argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One role's kernel: what went in and what came out."""

    role: str
    source_kind: str  # "package", "git", "tarball"
    source_version: str
    source_id: str  # sha256 of the package or tarball, or the commit
    series: tuple[str, ...]  # patches in order, "series/file: subject"
    config_hash: str
    release: str
    build_id: str
    compiler: str
    warnings: tuple[str, ...]
    cached: bool
    build_s: float
    config_proof: str  # path relative to the run directory
    config_rows: tuple[ConfigRow, ...] = ()  # the proof itself: every requested option


class Change(StrEnum):
    """What became of one case since the baseline, the most urgent first."""

    NEW_FAILURE = "new failure"  # fails, and did not fail before (or was not there)
    MISSING = "missing"  # gave a result before, none or only a skip now
    FLAKY = "flaky"  # good and bad within one run
    STILL_FAILING = "still failing"
    FIXED = "fixed"
    NEW = "new"  # gives a good result, gave none before
    SAME = "same"

    @property
    def regression(self) -> bool:
        """True when the second run is worse than the first."""
        return self in (Change.NEW_FAILURE, Change.MISSING)


@dataclass(frozen=True, slots=True)
class CaseStatus:
    """One case beside the baseline. subtest: () for the test program itself.

    before/after: None when there was no result. since: for a failure, the run in which the unbroken
    row of failures began, "" when it began in this one or is not known.
    """

    role: str
    collection: str
    test: str
    subtest: tuple[str, ...]
    change: Change
    before: Outcome | None
    after: Outcome | None
    reason: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """A test that took longer than its history explains. limit_s: what noise may reach."""

    key: str  # TestResult.key
    duration_s: float
    median_s: float
    limit_s: float
    runs: int  # durations in the history


@dataclass(frozen=True, slots=True)
class Baseline:
    """The run that this one was compared with, and what the comparison found.

    cases: those whose change is not SAME, the most urgent first. counts: Change value -> number of
    cases, SAME included.
    """

    run_id: str
    started: str  # ISO 8601, UTC
    why: str  # "the last run of plan default", "--baseline"
    cases: tuple[CaseStatus, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One test in one run, for plots."""

    run_id: str
    started: str  # ISO 8601, UTC
    outcome: Outcome
    duration_s: float


@dataclass(frozen=True, slots=True)
class TestHistory:
    """One test program over the last runs of the same plan, oldest first, this run last."""

    __test__: ClassVar[bool] = False

    key: str  # TestResult.key
    points: tuple[HistoryPoint, ...]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything a run found. Serialised as result.json (report/result.schema.json)."""

    schema_version: int
    run_id: str
    plan: str
    topology: str
    started: str  # ISO 8601, UTC
    duration_s: float
    verdict: Verdict
    exit_code: int
    harness_version: str
    controller: dict[str, str]  # os, cpus, qemu, accel, accel_reason, python
    command: tuple[str, ...]
    kernels: tuple[KernelRecord, ...] = ()
    machines: tuple[MachineRecord, ...] = ()
    tests: tuple[TestResult, ...] = ()
    splats: tuple[SplatRecord, ...] = ()
    failures: tuple[Failure, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)  # Outcome value -> number of tests
    expression: str = ""  # -k: the run was about these tests only
    flaky_passes: bool = False  # the plan says that FLAKY is no failure
    notes: tuple[
        str, ...
    ] = ()  # what a reader of the verdict must know, e.g. expired known failures
    baseline: Baseline | None = None  # None: nothing to compare with
    slower: tuple[SlowDown, ...] = ()
    history: tuple[TestHistory, ...] = ()
    cells: tuple[CellRecord, ...] = ()  # of the platform's matrix, in the order they were run

    def excuses(self, test: TestResult) -> bool:
        """Whether the test is FLAKY in a plan that lets such tests pass, with nothing grave."""
        flaky = test.outcome is Outcome.FLAKY and self.flaky_passes
        return flaky and not any(attempt.grave for attempt in test.attempts)


EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INFRA: 2}
SCHEMA_VERSION = 1
