# SPDX-License-Identifier: GPL-2.0-only
"""A run with everything a report can show: two consoles, a splat, platform events, a history."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from harness.model.platform import CellRecord, PlatformEvents, PlatformFault, PlatformTransition
from harness.model.results import (
    Attempt,
    Baseline,
    CaseStatus,
    Change,
    HistoryPoint,
    Outcome,
    RunResult,
    SlowDown,
    TestHistory,
    Verdict,
)
from tests.unit import report_samples

BOOT_S = 420.0  # of the guest, on the run's clock
FAULTS = (
    PlatformFault(
        1785579783.0, 0, "00:04.0", True, "0x1000", "", "write", 64, "not-present", False
    ),
)
SPLAT_LINE = report_samples.SPLAT.splat.start_line


def result() -> RunResult:
    """failing() in the topology pair, beside a baseline and five earlier runs."""
    base = report_samples.failing()
    host_test = replace(
        report_samples.test_result("host_bind", Outcome.FLAKY, "failed, then passed", 12),
        role="host",
        machine="host",
        collection="iommu",
        started_s=540.0,
        duration_s=4.0,
        log="ktap/host/iommu/host_bind.log",
        attempts=(
            Attempt(1, "host", Outcome.FAIL, "EBUSY", 1.0, 540.0, "ktap/host/iommu/1.log", 1),
            Attempt(2, "host", Outcome.PASS, "", 2.0, 542.0, "ktap/host/iommu/2.log", 0),
        ),
    )
    tests = (*base.tests, host_test)
    return replace(
        base,
        topology="pair",
        tests=tests,
        kernels=(report_samples.kernel("host"), *base.kernels),
        machines=(report_samples.machine("host"), report_samples.machine("guest")),
        notes=("1 known failure has expired: tsm:p2p (2026-07-31)",),
        baseline=Baseline(
            "20260731T101500Z-smoke",
            "2026-07-31T10:15:00Z",
            "the last run of plan smoke",
            (
                CaseStatus("guest", "tsm", "dma_freeze", ("freeze", "unmap_after_accept"),
                           Change.NEW_FAILURE, Outcome.PASS, Outcome.FAIL, "expected -EBUSY"),
                CaseStatus("guest", "tsm", "race_lock", (), Change.STILL_FAILING, Outcome.TIMEOUT,
                           Outcome.TIMEOUT, "no output", "20260728T101500Z-smoke"),
                CaseStatus("guest", "tsm", "uapi", (), Change.FIXED, Outcome.FAIL, Outcome.PASS),
            ),
            {"new failure": 1, "still failing": 1, "fixed": 1, "same": 90},
        ),
        slower=(SlowDown("guest:tsm:vtom", 7.5, 2.5, 4.0, 5),),
        history=tuple(history(test.key, test.outcome, test.duration_s) for test in tests),
    )  # fmt: skip


def history(key: str, outcome: Outcome, duration_s: float) -> TestHistory:
    earlier = (Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.PASS, Outcome.SKIP, outcome)
    times = (2.0, 2.2, 1.4, 2.1, 0.0, duration_s)
    points = tuple(
        HistoryPoint(f"2026072{i}T101500Z-smoke", f"2026-07-2{i}T10:15:00Z", one, took)
        for i, (one, took) in enumerate(zip(earlier, times, strict=True))
    )
    return TestHistory(key, points)


def fill_run_dir(run: RunResult, directory: Path) -> None:
    """report_samples' files, consoles with markers and the splat, and the platform's log."""
    report_samples.fill_run_dir(run, directory)
    for test in run.tests:
        for attempt in test.attempts:
            (directory / attempt.log).write_text(f"# attempt {attempt.number}\n")
    for role in ("host", "guest"):
        (directory / f"console-{role}.log").write_text(console(run, role))
    (directory / "platform.jsonl").write_text(platform(run))


def console(run: RunResult, role: str) -> str:
    """A boot, then each of the role's tests between its markers; the splat where it belongs."""
    lines = ["[    0.000000] Linux version 7.3.4-tdisp (tdisp@harness) #1 SMP"]
    lines += [f"[{i / 60:12.6f}] {role}: boot message {i}" for i in range(1, 600)]
    for test in sorted(run.tests, key=lambda item: item.started_s):
        if test.role != role or test.outcome in (Outcome.SKIP, Outcome.MISSING):
            continue
        for one in test.attempts or (test,):
            at = one.started_s - BOOT_S
            lines.append(f"[{at:12.6f}] tdisp-harness: begin {test.key} {len(lines)} 0123456789ab")
            number = len(lines) - 1
            if test.test == "dma_freeze":
                while len(lines) < SPLAT_LINE - 1:
                    lines.append(f"[{at + 0.1:12.6f}] dma_freeze: mapping {len(lines)}")
                splat = report_samples.SPLAT_TEXT.replace("[   41.", f"[{int(at) + 1:5}.")
                lines += splat.splitlines()
            else:
                lines += [f"[{at + 0.2:12.6f}] {test.test}: step {i}" for i in range(20)]
            end = at + one.duration_s - 0.1
            lines.append(f"[{end:12.6f}] tdisp-harness: end {test.key} {number} ba9876543210")
    return "\n".join(lines) + "\n"


def platform(run: RunResult) -> str:
    """Transitions, good TLPs in a row, an announced and an unannounced fault, a broken line."""
    start = datetime.fromisoformat(run.started).timestamp()

    def at(second: float, event: str, **fields: object) -> str:
        return json.dumps({"t": start + second, "event": event, **fields})

    def tlp(second: float, **fields: object) -> str:
        base = {"tdi": 0, "bdf": "00:04.0", "T": 1, "iova": "0x1000", "gpa": "0x8000",
                "dir": "write", "len": 4096, "tlps": 16, "verdict": "ok", "reason": "none",
                "announced": False}  # fmt: skip
        return at(second, "tlp", **{**base, **fields})

    lines = [
        at(421.0, "start", model="B"),
        at(482.0, "command", port="guest", command="lock", tdi=0, args=[], result="ok"),
        at(482.1, "transition", tdi=0, bdf="00:04.0", before="UNLOCKED", after="LOCKED",
           cause="lock"),
        *(tlp(483 + i / 100) for i in range(50)),
        tlp(484.0, verdict="blocked", reason="private-page", gpa=None, announced=True),
        "{not json",
        tlp(485.0, verdict="blocked", reason="not-present", gpa=None),
        at(486.0, "check", label="tsm:dma_freeze", unannounced=1, missing=[]),
        at(486.1, "irq", function="tdi0", vector=1, lost="none"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def celled() -> RunResult:
    """Tests in three cells of the platform's matrix; one fails in one of them, as does a control.

    The control shows the splat that it had to show.
    """
    names = ("model-A", "model-B", "model-N+vtom-0x800000000000")
    tests = []
    for number, name in enumerate(names):
        for place, program in enumerate(("uapi", "dma_matrix", "dma_freeze")):
            outcome = Outcome.FAIL if (number, place) == (1, 1) else Outcome.PASS
            one = report_samples.test_result(program, outcome, "1 unannounced fault", place)
            seen = PlatformEvents(
                40, int(not outcome.good), int(not outcome.good), FAULTS, (),
                (PlatformTransition(1785579783.5, 0, "LOCKED", "RUN", "run"),),
            )  # fmt: skip
            started = 480.0 + 20 * number + 5 * place
            tests.append(replace(one, cell=name, started_s=started, platform=seen))
    control = replace(report_samples.SPLAT, test=f"tsm:dma_freeze@{names[0]}", expected=True)
    cells = tuple(
        CellRecord(
            name, name[6], "0x0", "allow", "error", 51, 2, "", 1, 478.0 + 20 * i, 498 + 20 * i
        )
        for i, name in enumerate(names)
    )
    return replace(report_samples.run(Verdict.FAIL, tuple(tests)), cells=cells, splats=(control,))
