# SPDX-License-Identifier: GPL-2.0-only
"""Running kselftests on a machine, one program at a time.

Each program is started through the tree's own run_kselftest.sh, so that settings, timeouts and KTAP
are the kernel's. Markers with a secret of this run go to the console before and after it; the
runner's status and the taint mask come back on the SSH channel, never over the console.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import secrets
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from harness.adapters import pack
from harness.core import attribution, ktap, splat, splat_records
from harness.core.console_text import last_lines
from harness.core.known import expect_known
from harness.core.splat_rules import RuleSet
from harness.core.verdict import judge, was_running
from harness.errors import InfraError
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild
from harness.model.machine import ExecResult, MachineEnd
from harness.model.plan import TestId, TestSelection
from harness.model.platform import Expectation
from harness.model.results import (
    Outcome,
    Splat,
    SplatRecord,
    SubtestResult,
    TestResult,
)
from harness.stages.build import kselftest_list
from harness.stages.recorder import Recorder

_REMOTE = "/opt/kselftest"
_GRACE_S = 30.0  # for the runner around a program that has its own timeout
_STATUS = re.compile(rb"^(?P<nonce>[0-9a-f]+) status=(?P<status>\d+) taint=(\d+),(\d+)$", re.M)


class PlatformWatch(Protocol):
    """The emulated platform's say in the verdict (stages/platform.py)."""

    def begin(self, test: TestId, expected: Expectation) -> None:
        """Before a test. MachineError when the platform is gone."""

    def judged(
        self, result: TestResult, selection: TestSelection, splats: Sequence[SplatRecord]
    ) -> TestResult:
        """After a test: its result with what the platform saw meanwhile."""


@dataclass(frozen=True, slots=True)
class SelftestSettings:
    """token: secret of this run, never sent to a machine (markers carry a MAC made with it).

    speed: how much slower than the reference machine. today: for known failures that expire.
    beside: the run's other machines, whose consoles get the test's markers too.
    """

    token: str
    speed: float
    rules: RuleSet
    today: datetime.date
    platform: PlatformWatch | None = None  # None: the machine has no platform
    beside: tuple[RemoteMachine, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ran:
    """What came back from one program."""

    result: ExecResult
    output: bytes  # without the status line
    status: int | None
    taint: tuple[int, int]
    end: MachineEnd
    what: str  # how the machine ended, in words
    console: tuple[int, int]  # bytes of the console written meanwhile
    last_lines: tuple[str, ...] = ()  # of the console, when the machine ended


@dataclass(frozen=True, slots=True)
class Kit:
    """What goes to a machine. archive: .tar.gz. listed: the "collection:test" lines in it."""

    archive: bytes
    listed: tuple[str, ...]


def kit(build: KernelBuild, wanted: Collection[str] | None = None, *, modules: bool = False) -> Kit:
    """The build's kselftests; its modules too, for a machine that was not deployed to.

    wanted: "collection:test" lines, when only these will run: the other programs, a megabyte each,
    stay here.
    """
    listed = kselftest_list(build)
    here = tuple(line for line in listed if wanted is None or line in wanted)
    unwanted = {line.replace(":", "/", 1) for line in listed if line not in here}
    archive = pack.moved(build.kselftests, _REMOTE.lstrip("/"), unwanted)
    if modules:
        archive += build.modules.read_bytes()
    return Kit(archive, here)


def install(machine: RemoteMachine, chosen: Kit) -> None:
    """Put kselftests on the machine, and nothing else there."""
    machine.unpack(chosen.archive, "/", replaced=_REMOTE)


def script(test: TestId, markers: tuple[str, str], nonce: str, timeout_s: float) -> str:
    """What a shell reads from stdin to run one program on a machine. nonce: marks its status line.

    From stdin, not from an argument: any process can read those, and the program must know neither
    its end marker nor the nonce. It is one command, so it is read whole before the program starts.
    """
    name = shlex.quote(f"{test.collection}:{test.test}")
    begin, end = (shlex.quote(f"<5>{marker}") for marker in markers)
    # through cat: runner.sh appends to /dev/stdout, and sshd's socket cannot be opened by name
    return f"""(cd {_REMOTE} || exit 125
before=$(cat /proc/sys/kernel/tainted)
echo {begin} > /dev/kmsg
./run_kselftest.sh -o {max(1, round(timeout_s))} -t {name} 2>&1
status=$?
echo {end} > /dev/kmsg
echo
echo "{nonce} status=$status taint=$before,$(cat /proc/sys/kernel/tainted)") < /dev/null 2>&1 | cat
"""


def run_test(
    machine: RemoteMachine,
    test: TestId,
    selection: TestSelection,
    recorder: Recorder,
    settings: SelftestSettings,
) -> TestResult:
    """Run one program, record it and its splats, and return its result.

    The machine may be dead afterwards: ask machine.state().
    """
    started = recorder.now()
    for name, value in selection.sysctl:
        path = f"/proc/sys/{name.replace('.', '/')}"
        machine.run(
            f"echo {shlex.quote(value)} > {shlex.quote(path)}", timeout_s=_GRACE_S, check=True
        )
    if settings.platform is not None:
        settings.platform.begin(test, selection.expect)
    ran = _execute(machine, test, selection.timeout_s * settings.speed, settings)
    log = _write_log(recorder.run_dir, machine.name, test, ran.output)
    found = splats_between(machine, test, ran.console, selection.expect.splats, settings.rules)
    outcome, reason, subtests = _judge(test, selection, ran, found, settings.today)
    result = TestResult(
        machine=machine.name,
        role=test.role.value,
        collection=test.collection,
        test=test.test,
        outcome=outcome,
        reason=reason,
        duration_s=round(recorder.now() - started, 3),
        started_s=round(started, 3),
        log=log,
        subtests=subtests,
        exit_status=ran.status,
        taint_before=ran.taint[0],
        taint_after=ran.taint[1],
        last_lines=ran.last_lines,
        cell=test.cell,
    )
    if settings.platform is not None:
        result = settings.platform.judged(result, selection, found)
    if found:
        recorder.splats(found)
    recorder.test(result)
    return result


def missing(test: TestId, machine: str, reason: str, started_s: float) -> TestResult:
    """The result of a program that is in the plan but not among what was built."""
    return TestResult(
        machine, test.role.value, test.collection, test.test, Outcome.MISSING, reason, 0.0,
        started_s, "", cell=test.cell,
    )  # fmt: skip


def skipped(test: TestId, machine: str, reason: str, started_s: float) -> TestResult:
    """The result of a program that the plan leaves out."""
    return replace(missing(test, machine, reason, started_s), outcome=Outcome.SKIP)


def not_run(test: TestId, machine: str, reason: str, started_s: float) -> TestResult:
    """The result of a program that could not be started for want of a machine."""
    return replace(missing(test, machine, reason, started_s), outcome=Outcome.INFRA)


def _execute(
    machine: RemoteMachine, test: TestId, timeout_s: float, settings: SelftestSettings
) -> _Ran:
    begin = machine.console.size()
    nonce = secrets.token_hex(8)
    markers = (
        attribution.begin_marker(str(test), settings.token, begin),
        attribution.end_marker(str(test), settings.token, begin),
    )
    text = script(test, markers, nonce, timeout_s)
    _mark(settings.beside, markers[0])
    limit_s = timeout_s + _GRACE_S * settings.speed
    # a session of its own: what a program does to its process group must not reach sshd
    result = machine.run("exec setsid -w sh", timeout_s=limit_s, stdin=text.encode())
    output, status, taint = _split_status(result.stdout, nonce)
    end, what = MachineEnd.ALIVE, ""
    lines: tuple[str, ...] = ()
    if status is not None:
        # the serial line lags behind SSH: its end marker closes this test's part of the console
        machine.console.wait_for(markers[1].encode(), 5 * settings.speed, begin)
        _mark(settings.beside, markers[1])
    else:
        report = machine.report()
        end, what = report.end, report.what
        lines = () if end is MachineEnd.ALIVE else report.last_lines
    console = (begin, machine.console.size())
    return _Ran(result, output, status, taint, end, what, console, lines)


def _mark(machines: Sequence[RemoteMachine], marker: str) -> None:
    """So that what their kernels report meanwhile belongs to the test. Not worth a failure."""
    for machine in machines:
        with contextlib.suppress(InfraError):
            machine.mark(marker)


def _split_status(output: bytes, nonce: str) -> tuple[bytes, int | None, tuple[int, int]]:
    for match in reversed(list(_STATUS.finditer(output))):
        if match["nonce"] == nonce.encode():
            taint = int(match[3]), int(match[4])
            return output[: match.start()].rstrip(b"\n") + b"\n", int(match["status"]), taint
    return output, None, (0, 0)


def splats_between(
    machine: RemoteMachine,
    test: TestId,
    console: tuple[int, int],
    expected: Sequence[str],
    rules: RuleSet,
) -> tuple[SplatRecord, ...]:
    """What the machine's console holds between two bytes. expected: kinds that fail nothing."""
    with machine.console.path.open("rb") as file:
        file.seek(console[0])
        text = file.read(console[1] - console[0])
        file.seek(0)
        first_line = file.read(console[0]).count(b"\n")
    name = str(test).partition(":")[2]
    found = ((one, name) for one in splat.find_splats(text, rules))
    return tuple(
        replace(record, splat=_shift(record.splat, first_line))
        for record in splat_records.records(
            text, found, (machine.name, machine.role.value), expected
        )
    )


def _shift(found: Splat, lines: int) -> Splat:
    return replace(found, start_line=found.start_line + lines, end_line=found.end_line + lines)


def _judge(
    test: TestId,
    selection: TestSelection,
    ran: _Ran,
    splats: Sequence[SplatRecord],
    today: datetime.date,
) -> tuple[Outcome, str, tuple[SubtestResult, ...]]:
    report = expect_known(ktap.parse(ran.output), selection.known, today)
    root = (test.collection, test.test)
    subtests = tuple(
        SubtestResult(case.id[2:], case.outcome, case.reason)
        for case in report.cases
        if case.id[:2] == root and len(case.id) > 2
    )
    begun = was_running(report)
    doing = f"; it was running {begun}" if begun else ""
    if ran.end is not MachineEnd.ALIVE:
        infra = ran.end is MachineEnd.QEMU_DIED
        return (Outcome.INFRA if infra else Outcome.CRASH), f"{ran.what}{doing}", subtests
    if ran.result.timed_out:
        return Outcome.TIMEOUT, f"no end after {ran.result.duration_s:.0f} s{doing}", subtests
    if ran.status is None:
        return Outcome.FAIL, _why_no_status(ran), subtests
    surprising = [record for record in splats if not record.expected]
    outcome, reason = judge(report, ran.status, surprising)
    tainted = attribution.grave_taint(*ran.taint)
    if outcome.good and tainted and not splats:
        return Outcome.FAIL, f"new taint without a splat on the console: {tainted[0]}", subtests
    return outcome, reason, subtests


def _why_no_status(ran: _Ran) -> str:
    """Of a machine that lives."""
    if ran.result.lost:
        return "it ended the SSH connection that it ran under; the machine lives"
    said = "".join(last_lines(ran.output, 1)) or "nothing"
    return f"the runner gave no status; the last line of output: {said}"


def _write_log(run_dir: Path, machine: str, test: TestId, output: bytes) -> str:
    """ktap/<role>/<collection>.<test>[@<cell>].ktap; a repeated program gets a number."""
    del machine
    directory = run_dir / "ktap" / test.role.value
    directory.mkdir(parents=True, exist_ok=True)
    stem = str(test).partition(":")[2].replace(":", ".").replace("/", "_")
    path = directory / f"{stem}.ktap"
    number = 2
    while path.exists():
        path = directory / f"{stem}.{number}.ktap"
        number += 1
    try:
        path.write_bytes(output)
    except OSError as exc:
        with contextlib.suppress(OSError):
            path.unlink()
        raise InfraError(f"{path}: {exc.strerror}", hint="free space in --runs-dir") from exc
    return str(path.relative_to(run_dir))
