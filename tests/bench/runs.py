# SPDX-License-Identifier: GPL-2.0-only
"""Whole processes: a cached solo run beside virtme-ng, and the harness's own CPU and memory."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.layout import REPOSITORY
from harness.model.kernel import Role
from tests.bench.machines import Bench
from tests.bench.rows import Row, alternate

# runs a command and tells its own use of CPU and memory, without that of its children. VmHWM:
# ru_maxrss begins with that of the process which forked this one
_SELF = """
import atexit, re, resource, sys
from pathlib import Path

def tell():
    use = resource.getrusage(resource.RUSAGE_SELF)
    kib = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print(f"SELF {use.ru_utime + use.ru_stime} {kib}", file=sys.stderr)

atexit.register(tell)
from harness.__main__ import main
main()
"""


_PLAN = Path(__file__).with_name("one_test.toml")


@dataclass(frozen=True, slots=True)
class SoloRun:
    wall_s: float
    own_cpu_s: float
    peak_mib: float


def solo_run(runs_dir: Path) -> SoloRun:
    """A solo run of one small test, everything cached."""
    argv = [sys.executable, "-c", _SELF, "run", str(_PLAN), "-k", "size"]
    begin = time.monotonic()
    done = subprocess.run(
        [*argv, "--runs-dir", str(runs_dir)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - begin
    if done.returncode != 0:
        raise RuntimeError(f"the solo run failed:\n{done.stdout}{done.stderr}")
    _, cpu, kib = done.stderr.splitlines()[-1].split()
    return SoloRun(wall, float(cpu), float(kib) / 1024)


def _wrapper(bench: Bench) -> Path:
    """A qemu-system-x86_64 for virtme-ng: the QEMU of the harness."""
    directory = bench.directory / "bin"
    directory.mkdir(exist_ok=True)
    path = directory / "qemu-system-x86_64"
    install = bench.provisions.qemu
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in install.env)
    path.write_text(f'#!/bin/sh\nexec env {variables} {shlex.join(install.argv_prefix)} "$@"\n')
    path.chmod(0o755)
    return path


def vng(bench: Bench) -> float:
    """`vng --disable-kvm -r bzImage -- uname -r`, whole process.

    The answer comes back in a file: where the controller has no udev, virtme-ng's init does not
    find its output ports, and what the command prints is lost.
    """
    qemu = _wrapper(bench)
    programs = Path(sys.executable).parent  # of the virtual environment, which may not be in PATH
    shared = bench.directory / "vng"
    shared.mkdir(exist_ok=True)
    answer = shared / "answer"
    answer.unlink(missing_ok=True)
    words = [
        *(str(programs / "vng"), "--disable-kvm", "--qemu", str(qemu), f"--rwdir={shared}"),
        *("-r", str(bench.builds[Role.GUEST].image), "--", f"uname -r > {answer}"),
    ]
    # virtme-ng wants a terminal
    argv = ["script", "-qec", shlex.join(words), "/dev/null"]
    # vng starts its own virtme-run, and that QEMU, by name
    path = f"{qemu.parent}:{programs}:{os.environ['PATH']}"
    begin = time.monotonic()
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path},
    )
    elapsed = time.monotonic() - begin
    said = answer.read_text().strip() if answer.exists() else ""
    if said != bench.builds[Role.GUEST].release:
        raise RuntimeError(f"virtme-ng said:\n{said}{done.stdout[-800:]}{done.stderr[-800:]}")
    return elapsed


def solo_rows(bench: Bench, runs: int) -> list[Row]:
    """The solo run beside virtme-ng, and its own cost."""
    seen: list[SoloRun] = []
    build = [sys.executable, "-m", "harness", "build", str(_PLAN), "--runs-dir"]
    subprocess.run(
        [*build, str(bench.directory / "runs")], cwd=REPOSITORY, check=True, capture_output=True
    )

    def ours() -> float:
        seen.append(solo_run(bench.directory / "runs"))
        return seen[-1].wall_s

    try:
        walls, reference = alternate(runs, ours, lambda: vng(bench))
    except (RuntimeError, OSError, subprocess.SubprocessError) as exc:
        print(f"virtme-ng could not be measured: {exc}")
        walls, reference = [ours() for _ in range(runs)], []
    cpu = [run.own_cpu_s for run in seen]
    memory = [run.peak_mib for run in seen]
    return [
        Row(
            "solo, one test, all cached, whole process",
            walls,
            reference,
            "vng uname -r",
            1.0 if reference else None,
        ),
        Row("harness's own CPU in that run", cpu, [], "none", 3.0),
        Row("harness's peak memory in that run", memory, [], "none", 200.0, "MiB"),
    ]


def children_cpu_s() -> float:
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime
