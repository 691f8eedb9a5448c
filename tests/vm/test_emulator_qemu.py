# SPDX-License-Identifier: GPL-2.0-only
"""The platform under a real QEMU and a real kernel: enumeration, DMA, MSI-X, FLR, and deaths.

TDISP_TEST_QEMU (a command) and TDISP_TEST_KERNEL (a bzImage) name a QEMU and a kernel to use;
without them the main job's are taken.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.adapters import process
from harness.core import cpio
from harness.emulator import oracle
from harness.emulator.serve import qemu_options
from tests.integration.emulator_client import PlatformProcess, wait_for

pytestmark = pytest.mark.vm

INIT = Path(__file__).with_name("data") / "pci_init.c"
MEMORY = ["-object", "memory-backend-memfd,id=m0,size=512M,share=on"]
# the kernel is kept below 256 MiB: what is above is ours to write to
FREE = 0x18000000
# drivers go first: those of the guest series enable bus mastering
SCRIPT = f"""say script starts
show /sys/bus/pci/devices/0000:01:00.0/vendor
show /sys/bus/pci/devices/0000:01:00.0/device
show /sys/bus/pci/devices/0000:01:00.0/doe_features/0001:01
show /sys/bus/pci/devices/0000:01:00.0/reset_method
free 0000:01:00.0
free 0000:02:00.0
free 0000:03:00.0
set /sys/bus/pci/devices/0000:01:00.0/enable 1
set /sys/bus/pci/devices/0000:02:00.0/enable 1
set /sys/bus/pci/devices/0000:03:00.0/enable 1
say one
pci 0000:01:00.0 c4:0x44 b4:0x0 b4:0x8 b4:0xc
pci 0000:02:00.0 b4:0x8
say two: no bus mastering, then a private page
pci 0000:01:00.0 b8:0x110={FREE} b8:0x120=65536 b8:0x128=0x1122334455667788 b4:0x10c=0x20
pci 0000:01:00.0 b4:0x100=1 b4:0x108 c2:0x4=0x6 b4:0x100=1 b4:0x108
say three: shared
pci 0000:03:00.0 b8:0x50={FREE} b8:0x58=64 b8:0x60=1 b4:0x48=0 b4:0x4c=0x19 b4:0x40 b4:0x44 b8:0x80
pci 0000:01:00.0 b4:0x100=1 b4:0x104 b4:0x108 b8:0x130
say four: T=1 before RUN, announced
pci 0000:01:00.0 b4:0x200=0x102 b4:0x10c=0x21 b4:0x100=1 b4:0x108
say five: an MSI-X message is a write to memory, so let it go to memory
pci 0000:01:00.0 c2:0x82=0x8000 b4:0x2000={FREE + 0x10000} b4:0x2004=0 b4:0x2008=0x5a5a b4:0x200c=0
pci 0000:01:00.0 b4:0x148=0
wait 500
pci 0000:01:00.0 b8:0x110={FREE + 0x10000} b8:0x120=8 b4:0x10c=0x10 b4:0x100=1 b4:0x104 b4:0x1000
say six: FLR
set /sys/bus/pci/devices/0000:01:00.0/reset 1
pci 0000:01:00.0 b4:0x0 b8:0x110
"""
EXPECTED = """script starts
/sys/bus/pci/devices/0000:01:00.0/vendor: 0x1b36
/sys/bus/pci/devices/0000:01:00.0/device: 0x0dee
/sys/bus/pci/devices/0000:01:00.0/doe_features/0001:01: 0001:01
/sys/bus/pci/devices/0000:01:00.0/reset_method: flr bus
one
c4:0x44 -> 0x50008000
b4:0x0 -> 0x44494454
b4:0x8 -> 0
b4:0xc -> 0
b4:0x8 -> 0x1
two: no bus mastering, then a private page
b4:0x108 -> 0x1
b4:0x108 -> 0x5
three: shared
b4:0x40 -> 0x2
b4:0x44 -> 0
b8:0x80 -> 0x40
b4:0x104 -> 0x2
b4:0x108 -> 0
b8:0x130 -> 0x10000
four: T=1 before RUN, announced
b4:0x108 -> 0x2
five: an MSI-X message is a write to memory, so let it go to memory
b4:0x104 -> 0x2
b4:0x1000 -> 0x5a5a
six: FLR
b4:0x0 -> 0x44494454
b8:0x110 -> 0
script ended
"""


@dataclass(frozen=True)
class Bench:
    """qemu: argv prefix; env is added to the environment."""

    qemu: tuple[str, ...]
    env: dict[str, str]
    kernel: Path

    def argv(self, platform: PlatformProcess, *more: str, names: tuple[str, ...]) -> list[str]:
        sockets = [qemu_options(platform.socket(name), n) for n, name in enumerate(names)]
        fixed = [*MEMORY, "-machine", "q35,memory-backend=m0", "-m", "512M", "-nodefaults"]
        fixed += ["-display", "none", "-accel", "tcg", "-no-reboot"]
        return [*self.qemu, *fixed, *(arg for options in sockets for arg in options), *more]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    qemu, kernel = os.environ.get("TDISP_TEST_QEMU"), os.environ.get("TDISP_TEST_KERNEL")
    if qemu and kernel:
        return Bench(tuple(shlex.split(qemu)), {}, Path(kernel))
    assets = request.getfixturevalue("assets")
    return Bench(assets.install.argv_prefix, dict(assets.install.env), assets.build.image)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., PlatformProcess]]:
    started: list[PlatformProcess] = []

    def run(*options: str) -> PlatformProcess:
        started.append(PlatformProcess(tmp_path / "p", *options))
        return started[-1].ready()

    yield run
    for platform in started:
        platform.close()


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the VM's init")
    program = tmp_path / "init"
    process.run([compiler, "-static", "-O1", "-Wall", "-Werror", "-o", str(program), str(INIT)])
    entries = [
        *(cpio.directory(name) for name in ("proc", "sys", "dev")),
        cpio.character_device("dev/console", 5, 1),
        cpio.executable("init", program.read_bytes()),
        cpio.CpioEntry("script", 0o100644, SCRIPT.encode()),
    ]
    image = tmp_path / "initrd"
    image.write_bytes(cpio.archive(entries))
    return image


def said(console: str) -> str:
    """What init said, without the kernel's own lines."""
    lines = console.replace("\r", "").split("\n")
    own = [line for line in lines if line and not re.match(r"\[ *\d+\.\d+\]", line)]
    return "\n".join(own[own.index("script starts") :]) + "\n"


def test_a_kernel_uses_the_platform(
    bench: Bench, start: Callable[..., PlatformProcess], initrd: Path
) -> None:
    platform = start("--model", "A")
    argv = bench.argv(
        platform,
        *("-kernel", str(bench.kernel), "-initrd", str(initrd), "-serial", "stdio"),
        *("-append", "console=ttyS0 mem=256M panic=-1"),
        names=("tdi0", "tdi1", "tsm-guest"),
    )
    done = process.run(argv, env=bench.environment(), timeout_s=300, check=False)
    assert done.returncode == 0, done.err
    assert "failed to cache features" not in done.out
    assert said(done.out) == EXPECTED
    assert platform.wait()[0] == 0, "the platform ends with QEMU"
    records = oracle.read(platform.directory / "platform.jsonl")
    tlps = [
        (r["verdict"], r["reason"], r["T"], r["dir"], r["len"], r["tlps"])
        for r in records
        if r["event"] == "tlp"
    ]
    assert tlps == [
        ("blocked", "bus-master-off", 0, "write", 4096, 1),
        ("blocked", "private-page", 0, "write", 4096, 1),
        ("ok", "none", 0, "write", 65536, 16),
        ("blocked", "tdi-state", 1, "write", 4096, 1),
        ("ok", "none", 0, "read", 8, 1),
    ]
    verdict = oracle.judge(records)
    assert [r["reason"] for r in verdict.unannounced] == ["bus-master-off", "private-page"]
    assert not verdict.missing
    assert [r["function"] for r in records if r["event"] == "flr"] == ["tdi0"]
    assert [r["lost"] for r in records if r["event"] == "irq"] == ["none"]


def connected(platform: PlatformProcess, name: str) -> bool:
    return any(
        r["event"] == "client" and r["connected"] and r["function"] == name for r in platform.log()
    )


def test_qemu_is_killed(bench: Bench, start: Callable[..., PlatformProcess]) -> None:
    platform = start()
    argv = bench.argv(platform, "-S", names=("tdi0", "tdi1"))
    with subprocess.Popen(argv, env=bench.environment(), stdin=subprocess.DEVNULL) as qemu:
        try:
            wait_for(lambda: connected(platform, "tdi1"), "QEMU to connect")
        finally:
            qemu.send_signal(signal.SIGKILL)
    assert platform.wait()[0] == 0
    assert [path.name for path in platform.directory.iterdir()] == ["platform.jsonl"]


def test_two_qemus_on_one_socket(bench: Bench, start: Callable[..., PlatformProcess]) -> None:
    platform = start()
    argv = bench.argv(platform, "-S", names=("tdi0",))
    with subprocess.Popen(argv, env=bench.environment(), stdin=subprocess.DEVNULL) as qemu:
        try:
            wait_for(lambda: connected(platform, "tdi0"), "QEMU to connect")
            wait_for(
                lambda: any(r["event"] == "reset" for r in platform.log()), "QEMU to be set up"
            )
            second = process.run(argv, env=bench.environment(), timeout_s=60, check=False)
            assert second.returncode not in (0, None)
            assert not second.timed_out
            assert qemu.poll() is None, "the first one lives on"
            assert platform.ask(op="state")["ok"]
        finally:
            qemu.send_signal(signal.SIGKILL)
    assert platform.wait()[0] == 0
