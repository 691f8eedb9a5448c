# SPDX-License-Identifier: GPL-2.0-only
"""Realistic RunResults for the tests of the report writers, and their files in a run directory."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from harness.model.kernel import ConfigRow
from harness.model.results import (
    EXIT_CODES,
    SCHEMA_VERSION,
    Failure,
    KernelRecord,
    MachineRecord,
    Outcome,
    RunResult,
    Splat,
    SplatRecord,
    StageRecord,
    SubtestResult,
    TestResult,
    Verdict,
)

BASE_ID = "5f2b8c0e6a4d1f3b9c7e2a8d4f6b1c3e5a7d9f0b2c4e6a8d1f3b5c7e9a0b2d4f"
GUEST_LOG = "ktap/guest/tsm/dma_freeze.log"

SPLAT_TEXT = """\
[   41.203311] ------------[ cut here ]------------
[   41.203318] tdisp_emu 0000:00:04.0: unmap of 0xfee01000+0x1000: mapped private, unmapped shared
[   41.203340] WARNING: CPU: 1 PID: 312 at drivers/base/dma_trust.c:214 dma_trust_unmap+0x8c/0xd0
[   41.203351] Modules linked in: tdisp_test
[   41.203360] CPU: 1 UID: 0 PID: 312 Comm: dma_freeze Not tainted 7.3.4-tdisp-guest #1
[   41.203377] RIP: 0010:dma_trust_unmap+0x8c/0xd0
[   41.203391] Call Trace:
[   41.203395]  <TASK>
[   41.203399]  dma_unmap_phys+0x44/0x2b0
[   41.203404]  tdisp_test_ioctl+0x2ad/0x510 [tdisp_test]
[   41.203410]  __x64_sys_ioctl+0x94/0xd0
[   41.203419]  entry_SYSCALL_64_after_hwframe+0x76/0x7e
[   41.203422]  </TASK>
[   41.203430] ---[ end trace 0000000000000000 ]---
"""

SPLAT = SplatRecord(
    machine="guest",
    role="guest",
    test="tsm:dma_freeze",
    splat=Splat(
        kind="warn",
        title="WARNING in dma_trust_unmap",
        frame="dma_trust_unmap",
        start_line=1041,
        end_line=1054,
        trace=("dma_trust_unmap", "dma_unmap_phys", "tdisp_test_ioctl"),
        fingerprint="9c1f02ab",
    ),
    text=SPLAT_TEXT,
)

CONFIG_ROWS = (
    ConfigRow("PCI_TSM", "y", "y", "configs/kernel/guest.config:3"),
    ConfigRow("DMA_API_DEBUG", "y", "y", "configs/kernel/debug.config:1"),
    ConfigRow("AMD_IOMMU", "y", "y", "configs/kernel/guest.config:9"),
)


def kernel(role: str = "guest") -> KernelRecord:
    return KernelRecord(
        role=role,
        source_kind="package",
        source_version="7.3.4",
        source_id=BASE_ID,
        series=(
            f"{role}/dma-freeze/0001: dma-mapping: count live mappings per device",
            f"{role}/dma-freeze/0002: PCI/TSM: refuse lock while a driver is bound",
            f"{role}/viommu/0001: iommu/pages: carry the C-bit per PTE",
        ),
        config_hash="1a2b3c4d5e6f",
        release=f"7.3.4-tdisp-{role}",
        build_id="c0ffee00112233445566778899aabbccddeeff00",
        compiler="gcc (Debian 12.2.0-14+deb12u1) 12.2.0",
        warnings=(),
        cached=False,
        build_s=412.5,
        config_proof=f"config-proof-{role}.txt",
        config_rows=CONFIG_ROWS,
    )


def machine(name: str = "guest") -> MachineRecord:
    return MachineRecord(
        name=name,
        role=name,
        kind="qemu",
        accel="tcg",
        console=f"console-{name}.log",
        kernel_release=f"7.3.4-tdisp-{name}",
        build_id="c0ffee00112233445566778899aabbccddeeff00",
        boots=1,
        boot_s=23.4,
        end="power-off",
        qemu_argv=(
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-m",
            "1024",
            "-append",
            "console=ttyS0 quiet",
        ),
    )


def test_result(name: str, outcome: Outcome, reason: str = "", index: int = 0) -> TestResult:
    subtests = tuple(
        SubtestResult((f"model_{model}", case), Outcome.PASS, "")
        for model in "abn"
        for case in ("map", "unmap", "sync")
    )
    return TestResult(
        machine="guest",
        role="guest",
        collection="tsm",
        test=name,
        outcome=outcome,
        reason=reason,
        duration_s=2.5 + index,
        started_s=480.0 + 5 * index,
        log=f"ktap/guest/tsm/{name}.log",
        subtests=subtests if outcome is Outcome.PASS else (),
        exit_status={Outcome.PASS: 0, Outcome.SKIP: 4}.get(outcome, 1),
    )


test_result.__test__ = False  # type: ignore[attr-defined]  # a builder, not a test

STAGES = (
    StageRecord("source", 0.0, 1.5, "cached", "linux-source-7.3 7.3.4"),
    StageRecord("patch", 1.5, 4.0, "ok", "3 patches"),
    StageRecord("build", 4.0, 416.5, "ok"),
    StageRecord("boot", 416.5, 440.0, "ok"),
    StageRecord("deploy", 440.0, 478.0, "ok"),
    StageRecord("kselftest", 478.0, 548.0, "ok"),
)


def run(verdict: Verdict, tests: tuple[TestResult, ...] = ()) -> RunResult:
    """A solo run with the given tests, everything else in order."""
    return RunResult(
        schema_version=SCHEMA_VERSION,
        run_id="20260801T101500Z-smoke",
        plan="smoke",
        topology="solo",
        started="2026-08-01T10:15:00Z",
        duration_s=548.0,
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        harness_version="0.1.0",
        controller={
            "os": "Debian GNU/Linux 12 (bookworm)",
            "cpus": "4",
            "qemu": "10.1.2",
            "accel": "tcg",
            "accel_reason": "/dev/kvm: no such device",
            "python": "3.11.2",
        },
        command=("run", "smoke", "-k", "tsm and not race"),
        kernels=(kernel(),),
        machines=(machine(),),
        tests=tests,
        stages=STAGES,
        counts=dict(Counter(test.outcome.value for test in tests)),
    )


NAMES = ("uapi", "dma_matrix", "rebind", "probe_time", "viommu", "vtom", "evidence", "unlock")


def passing() -> RunResult:
    tests = tuple(test_result(name, Outcome.PASS, index=i) for i, name in enumerate(NAMES))
    skipped = test_result("lab_ide", Outcome.SKIP, "no IDE-capable link on this machine", 8)
    return run(Verdict.PASS, (*tests, skipped))


def failing() -> RunResult:
    """One failure with a splat among passes, a skip, an xfail, a missing and a timed-out test."""
    freeze = replace(
        test_result("dma_freeze", Outcome.FAIL, "2 of 4 subtests failed", 9),
        subtests=(
            SubtestResult(("freeze", "refuses_lock"), Outcome.PASS, ""),
            SubtestResult(
                ("freeze", "unmap_after_accept"),
                Outcome.FAIL,
                "dma_freeze.c:88: expected -EBUSY (-16), got 0",
            ),
            SubtestResult(("freeze", "race_map"), Outcome.MISSING, "plan 1..4, no result line"),
            SubtestResult(("freeze", "iova_link"), Outcome.SKIP, "needs dma-iommu"),
        ),
    )
    more = (
        test_result("race_lock", Outcome.TIMEOUT, "no output for 45 s", 10),
        test_result("p2p", Outcome.XFAIL, "P2P of a trusted device: not in V1", 11),
        test_result("fault_inject", Outcome.MISSING, "in the plan, not in the kselftest list", 12),
    )
    base = passing()
    tests = (*base.tests[:6], freeze, *more, base.tests[-1])
    warned = replace(
        kernel(),
        warnings=("drivers/base/dma_trust.c:77: warning: unused variable 'epoch' [-Wunused]",),
    )
    return replace(run(Verdict.FAIL, tests), splats=(SPLAT,), kernels=(warned,))


def patch_failure() -> RunResult:
    failure = Failure(
        kind="patch",
        role="guest",
        message="guest/viommu/0001 does not apply to 7.3.4: "
        "drivers/iommu/dma-iommu.c hunk 2 (line 812)",
        hint="rebase the series on 7.3.4, or drop it with --no-builtin-series guest",
        command="git am --3way kernel_patches/guest/viommu/0001-iommu-pages-carry-the-C-bit.patch",
        excerpt="error: patch failed: drivers/iommu/dma-iommu.c:812\n"
        "error: drivers/iommu/dma-iommu.c: patch does not apply\n",
    )
    unbuilt = replace(
        kernel(), release="", build_id="", compiler="", build_s=0.0, config_proof="", config_rows=()
    )
    return replace(
        run(Verdict.FAIL),
        kernels=(unbuilt,),
        machines=(),
        failures=(failure,),
        stages=(STAGES[0], StageRecord("patch", 1.5, 3.0, "failed")),
        duration_s=3.0,
    )


def config_failure() -> RunResult:
    row = ConfigRow(
        "TDISP_EMU", "y", "n", "configs/kernel/guest.config:12", "depends on PCI_TSM [=n]"
    )
    failure = Failure(
        "config", "guest", "1 requested option did not stick: TDISP_EMU", hint=row.why
    )
    broken = replace(kernel(), release="", build_id="", config_rows=(*CONFIG_ROWS, row))
    return replace(run(Verdict.FAIL), kernels=(broken,), machines=(), failures=(failure,))


def boot_failure() -> RunResult:
    failure = Failure(
        kind="boot",
        role="guest",
        message="guest: panic 4.1 s after the kernel banner",
        log="console-guest.log",
        excerpt="[    4.102] Kernel panic - not syncing: VFS: Unable to mount root fs",
    )
    return replace(run(Verdict.FAIL), failures=(failure,))


def all_skipped() -> RunResult:
    tests = tuple(
        test_result(name, Outcome.SKIP, "no TDISP-capable device", i)
        for i, name in enumerate(NAMES)
    )
    return run(Verdict.PASS, tests)


def infra() -> RunResult:
    failure = Failure(
        kind="infra",
        role="guest",
        message="guest: QEMU ended with signal 9 after 31 s",
        hint="the machine may be out of memory: 1 GiB is needed, 212 MiB are free",
        command="qemu-system-x86_64 -M q35 -m 1024",
        log="qemu-guest.log",
    )
    tests = (
        test_result("uapi", Outcome.PASS),
        test_result("rebind", Outcome.INFRA, "the connection ended", 1),
    )
    return replace(run(Verdict.INFRA, tests), failures=(failure,))


def partial() -> RunResult:
    """As written in the middle of the build."""
    return replace(
        run(Verdict.INFRA),
        kernels=(),
        machines=(),
        stages=(*STAGES[:2], StageRecord("build", 4.0, 4.0, "running")),
        duration_s=4.0,
    )


HOSTILE = (
    "nul \x00 ansi \x1b[31mred\x1b[0m \x1b]0;title\x07 </script><script>alert(1)</script> "
    "]]> &amp; \u202etxt.exe\u202c \u200f \ufffe \ud800 | `x` **b** [a](http://x) @all #1 "
    "\r\n line2 "
    "$(touch /tmp/x) `id` ' \" \\ é 漢字 🦀"
)


def hostile() -> RunResult:
    """Every free string holds what a broken console may send."""
    test = replace(
        test_result("hostile", Outcome.FAIL, HOSTILE),
        collection="tsm</td>",
        test="dma<b>\x1b[1m",
        subtests=(SubtestResult((HOSTILE, "a/b:c"), Outcome.FAIL, HOSTILE),),
        log="ktap/big.log",
    )
    splat = replace(
        SPLAT, test="", splat=replace(SPLAT.splat, title=HOSTILE), text=HOSTILE + "\n" + SPLAT_TEXT
    )
    return replace(
        run(Verdict.FAIL, (test,)),
        plan=HOSTILE,
        splats=(splat,),
        failures=(
            Failure("boot", "guest", HOSTILE, HOSTILE, HOSTILE, "../../etc/passwd", HOSTILE),
        ),
        stages=(StageRecord(HOSTILE, 0.0, 1.0, "failed", HOSTILE),),
        kernels=(replace(kernel(), series=(HOSTILE,), warnings=(HOSTILE,)),),
        controller={"os": HOSTILE, "accel": "tcg", "accel_reason": HOSTILE},
        command=("run", HOSTILE),
    )


def everything() -> dict[str, RunResult]:
    builders = (
        passing,
        failing,
        patch_failure,
        config_failure,
        boot_failure,
        all_skipped,
        infra,
        partial,
        hostile,
    )
    return {builder.__name__: builder() for builder in builders}


def fill_run_dir(result: RunResult, directory: Path) -> None:
    """The logs and consoles that `result` names; ktap/big.log holds 1 MB of rubbish."""
    for test in result.tests:
        path = directory / test.log
        path.parent.mkdir(parents=True, exist_ok=True)
        if test.log == "ktap/big.log":
            path.write_bytes(b"HEAD\n" + (b"x\x00\x1b[31m</pre>\xff\n" * 75_000) + b"TAIL\n")
        else:
            path.write_text(f"TAP version 13\n1..1\n# {test.test} says hello\n")
    for record in result.machines:
        lines = [f"[{i:12.6f}] console line {i}" for i in range(200)]
        (directory / record.console).write_text("\n".join(lines) + "\n")
    for built in result.kernels:
        if built.config_proof:
            (directory / built.config_proof).write_text("CONFIG_PCI_TSM requested y got y\n")
