# SPDX-License-Identifier: GPL-2.0-only
"""Boot times: ours beside the same kernel and QEMU started bare with a busybox initramfs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from harness import layout
from harness.adapters.process import TABLE
from harness.adapters.ssh_keys import generate_key
from harness.core import cpio
from harness.core.qemu_argv import cpu_model
from harness.core.splat_rules import load_rules
from harness.errors import KernelError
from harness.machines.nested import NestedMachine, image_serial
from harness.machines.qemu import QemuMachine
from harness.machines.remote import RemoteMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, Disk, QemuInstall, VmSpec
from harness.stages.provision import Provisions
from tests.bench.rows import Row, alternate

_MARK = b"bench: init runs"
_TCG = Accel("tcg", "the targets are for TCG")
BARE_QEMU = ("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot")


class LostError(RuntimeError):
    """A bare nested boot that did not reach its init."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What is booted, and a directory to write to."""

    builds: dict[Role, KernelBuild]
    provisions: Provisions
    directory: Path

    @property
    def busybox(self) -> Path:
        assert self.provisions.own_kernel is not None
        return self.provisions.own_kernel.busybox


def bare_initramfs(bench: Bench) -> Path:
    """busybox, and an init that says that it runs and stops."""
    path = bench.directory / "bare.cpio"
    init = b"#!/bin/busybox sh\necho bench: init runs > /dev/console\n/bin/busybox poweroff -f\n"
    path.write_bytes(
        cpio.archive(
            [
                cpio.directory("dev"),
                cpio.directory("bin"),
                cpio.character_device("dev/console", 5, 1),
                cpio.executable("bin/busybox", bench.busybox.read_bytes()),
                cpio.executable("init", init),
            ]
        )
    )
    return path


def bare_boot(bench: Bench, role: Role, memory_mib: int, initramfs: Path) -> float:
    """Seconds from the start of a bare QEMU to the first word of init."""
    serial = bench.directory / "bare.log"
    serial.write_bytes(b"")
    install = bench.provisions.qemu
    argv = [
        *install.argv_prefix,
        *BARE_QEMU,
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", cpu_model(role, _TCG)),
        *("-smp", "2", "-m", str(memory_mib), "-serial", f"file:{serial}"),
        *("-kernel", str(bench.builds[role].image), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0"),
    ]
    begin = time.monotonic()
    child = TABLE.start(argv, env=dict(install.env))
    try:
        while _MARK not in serial.read_bytes():
            if not child.alive() or time.monotonic() - begin > 120:
                raise RuntimeError(f"the bare boot said: {serial.read_bytes()[-500:]!r}")
            time.sleep(0.01)
        return time.monotonic() - begin
    finally:
        child.end()


def _setup(bench: Bench, name: str, install: QemuInstall, accel: Accel) -> QemuSetup:
    directory = bench.directory / name
    directory.mkdir(exist_ok=True)
    key = generate_key()
    rules = load_rules((layout.CONFIGS / "splat_rules.toml").read_text())
    return QemuSetup(install, accel, directory, key.save(directory / "key"), key.public, rules)


def _spec(bench: Bench, role: Role, memory_mib: int) -> VmSpec:
    image = bench.provisions.guest
    kernel = str(bench.builds[role].image)
    return VmSpec(
        name=role.value,
        role=role,
        memory_mib=memory_mib,
        cpus=2,
        kernel=kernel,
        initrd="",
        append="",
        root_image=str(image.path),
        root_sha256=image.digest,
    )


def solo_boot(bench: Bench) -> float:
    """Seconds from nothing to the guest's first answered SSH command."""
    setup = _setup(bench, "solo", bench.provisions.qemu, _TCG)
    begin = time.monotonic()
    spec = _spec(bench, Role.GUEST, 768)
    with closing(QemuMachine(spec, setup, bench.builds[Role.GUEST])) as machine:
        machine.start()
        return time.monotonic() - begin


def boot_row(bench: Bench, runs: int) -> Row:
    initramfs = bare_initramfs(bench)
    ours, bare = alternate(
        runs,
        lambda: solo_boot(bench),
        lambda: bare_boot(bench, Role.GUEST, 768, initramfs),
    )
    return Row("guest kernel: boot to first SSH answer, TCG", ours, bare, "bare to init", 2.2)


def pair_row(bench: Bench, runs: int) -> Row:
    """Both kernels of a pair answering, beside a bare L1 plus a bare L2 boot."""
    initramfs = bare_initramfs(bench)
    seen = [_steady(lambda: _pair(bench, initramfs)) for _ in range(runs)]
    ours = [pair for pair, _ in seen]
    bare = [bare_boot(bench, Role.HOST, 2304, initramfs) + nested for _, nested in seen]
    name = "bare L1 to init + bare L2 to init"
    return Row("pair: both kernels answer over SSH", ours, bare, name, 2.5)


def _steady(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """The measurement; again, at most twice, when the emulation lost the nested guest."""
    for left in (2, 1, 0):
        try:
            return measure()
        except (KernelError, LostError) as exc:
            if not left:
                raise
            print(f"pair: measured again: {str(exc).splitlines()[0]}", flush=True)
    raise AssertionError


def _pair(bench: Bench, initramfs: Path) -> tuple[float, float]:
    """Seconds until both kernels answer, and for a bare nested boot on the same host machine."""
    setup = _setup(bench, "pair", bench.provisions.qemu, _TCG)
    build = bench.builds[Role.GUEST]
    begin = time.monotonic()
    with closing(_host(bench, setup)) as host:
        host.start()
        host.deploy(bench.builds[Role.HOST])
        there = QemuInstall(("qemu-system-x86_64",), (), "", "system")
        guest_setup = _setup(bench, "pair", there, Accel("kvm", "nested"))
        guest = NestedMachine(_spec(bench, Role.GUEST, 768), guest_setup, host, build)
        with closing(guest):
            guest.start()
            ours = time.monotonic() - begin
        return ours, _bare_nested(host, build, initramfs)


def _host(bench: Bench, setup: QemuSetup) -> QemuMachine:
    own, image, guest = bench.provisions.own_kernel, bench.provisions.host, bench.provisions.guest
    assert own is not None
    assert image is not None
    return QemuMachine(
        VmSpec(
            name="host",
            role=Role.HOST,
            memory_mib=2304,
            cpus=2,
            kernel=str(own.image),
            initrd=str(own.initrd),
            append="",
            root_image=str(image.path),
            disks=(Disk(str(guest.path), image_serial(guest.path, guest.digest)),),
        ),
        setup,
    )


def _bare_nested(host: RemoteMachine, build: KernelBuild, initramfs: Path) -> float:
    """Seconds for a bare QEMU on the host machine to init, as that machine's clock has it."""
    host.upload(build.image, "/tmp/bare/bzImage")
    host.upload(initramfs, "/tmp/bare/initrd")
    argv = [
        "qemu-system-x86_64",
        *BARE_QEMU,
        *("-machine", "q35", "-accel", "kvm", "-cpu", "qemu64", "-smp", "1", "-m", "768"),
        *("-kernel", "/tmp/bare/bzImage", "-initrd", "/tmp/bare/initrd"),
        *("-serial", "stdio", "-append", "console=ttyS0"),
    ]
    begin = time.monotonic()
    words = f"timeout 60 {shlex.join(argv)} 2>/dev/null | grep -m1 'init runs'"
    done = host.run(words, timeout_s=300)
    elapsed = time.monotonic() - begin
    if _MARK not in done.stdout:
        raise LostError(f"the bare nested boot said {done.stdout!r}")
    return elapsed
