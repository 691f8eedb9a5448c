# SPDX-License-Identifier: GPL-2.0-only
"""What all machines share, on a machine that is an sshd on loopback and a console file."""

from __future__ import annotations

import getpass
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.adapters.console import ConsoleFile
from harness.adapters.ssh import SshConnection
from harness.core.elf_notes import build_id
from harness.core.machine_end import EndReport, classify_end
from harness.core.splat_rules import load_rules
from harness.errors import KernelError, MachineError
from harness.machines.lab import LabMachine
from harness.machines.nested import NestedMachine
from harness.machines.remote import READY, RemoteMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import KernelBuild, Role
from harness.model.lab import LabSpec, LabSsh
from harness.model.machine import Accel, BootFailure, MachineEnd, QemuInstall, VmSpec
from tests.integration.loopback_sshd import LoopbackSshd

RULES = load_rules((Path(__file__).parents[2] / "configs" / "splat_rules.toml").read_text())
NOTES = Path("/sys/kernel/notes")
BANNER = b"[    0.000000] Linux version 7.3.4 (a@b) (gcc) #1 SMP\n"
PANIC = (
    b"[    9.000000] Kernel panic - not syncing: sysrq triggered crash\n"
    b"[    9.000001] CPU: 0 UID: 0 PID: 1 Comm: sh Not tainted 7.3.4 #1\n"
    b"[    9.000002] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n"
)


class LoopbackMachine(RemoteMachine):
    """A machine without power: it is up while sshd is."""

    def __init__(self, sshd: LoopbackSshd, console: Path) -> None:
        super().__init__("loopback", Role.GUEST, ConsoleFile(console))
        self._ssh = SshConnection("loopback", sshd.endpoint(), self.down)
        self.ended = False

    @property
    def ssh(self) -> SshConnection:
        return self._ssh

    @property
    def append(self) -> str:
        return "console=ttyS0"

    def gone(self) -> bool:
        return self.ended

    def end_report(self, *, ssh_alive: bool, console_alive: bool) -> EndReport:
        return classify_end(
            self.console.read(),
            qemu_alive=not self.ended,
            ssh_alive=ssh_alive,
            qmp_events=(),
            expected_banners=1,
            rules=RULES,
            console_alive=console_alive,
        )

    def restart(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._ssh.close()


@pytest.fixture
def machine(sshd: LoopbackSshd, tmp_path: Path) -> Iterator[LoopbackMachine]:
    loopback = LoopbackMachine(sshd, tmp_path / "console.log")
    loopback.console.path.write_bytes(BANNER)
    yield loopback
    loopback.close()


def say(machine: LoopbackMachine, data: bytes) -> None:
    with machine.console.path.open("ab") as console:
        console.write(data)


@pytest.fixture
def build(tmp_path: Path) -> KernelBuild:
    """A build that claims to be the kernel these tests run on."""
    if not build_id(NOTES.read_bytes()):
        pytest.skip("the running kernel has no build id")
    return KernelBuild(
        role=Role.GUEST,
        key="k",
        directory=tmp_path,
        release="7.3.4-test",
        build_id=build_id(NOTES.read_bytes()),
        compiler="gcc",
        warnings=(),
        cached=False,
        build_s=1.0,
        config_hash="c",
    )


def test_a_guest_on_a_host_machine_that_stands_still_in_a_panic_is_gone(
    machine: LoopbackMachine, tmp_path: Path
) -> None:
    """Nobody waits for what it does not answer any more."""
    install = QemuInstall(("qemu",), (), "11.1.3", "system")
    setup = QemuSetup(install, Accel("tcg", ""), tmp_path, tmp_path / "key", "", RULES)
    spec = VmSpec("guest", Role.GUEST, 512, 1, "bzImage", "", "", "root.img")
    guest = NestedMachine(spec, setup, machine)
    guest._started = True
    assert not guest.gone()
    say(machine, PANIC)
    assert guest.gone()


def test_check_tells_command_status_and_output(machine: LoopbackMachine) -> None:
    with pytest.raises(MachineError) as caught:
        machine.run(["ls", "/no such"], timeout_s=10, check=True)
    assert "loopback: `ls '/no such'`: exit status 2" in caught.value.message
    assert "No such file" in caught.value.message
    assert caught.value.log == machine.console.path


def test_panic_on_the_console_ends_a_command(machine: LoopbackMachine) -> None:
    threading.Timer(0.7, say, (machine, PANIC)).start()
    begin = time.monotonic()
    assert machine.run("sleep 30", timeout_s=30).lost
    assert time.monotonic() - begin < 5
    assert machine.state() is MachineEnd.PANIC
    assert machine.report().what == "kernel panic: sysrq triggered crash"


def test_alive_and_ssh_lost(machine: LoopbackMachine, sshd: LoopbackSshd) -> None:
    assert machine.state() is MachineEnd.ALIVE
    sshd.stop()
    assert not machine.answers(1.0)
    report = machine.end_report(ssh_alive=False, console_alive=True)
    assert report.end is MachineEnd.SSH_LOST


def test_boot_that_is_the_old_kernel(machine: LoopbackMachine, build: KernelBuild) -> None:
    say(machine, READY + b"\n")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    machine.has_serial = False
    with pytest.raises(KernelError, match="the old kernel still answers") as caught:
        machine.await_boot(1.5, 0, boot_id, build)
    assert isinstance(caught.value.detail, BootFailure)
    assert caught.value.detail.end is MachineEnd.ALIVE


def test_boot_is_proved(machine: LoopbackMachine, build: KernelBuild) -> None:
    threading.Timer(0.5, say, (machine, READY + b"\n")).start()
    begin = time.monotonic()
    machine.await_boot(20, machine.console.size(), "another boot", build)
    assert 0.4 < time.monotonic() - begin < 5


def test_boot_of_a_wrong_kernel(machine: LoopbackMachine, build: KernelBuild) -> None:
    say(machine, READY + b"\n")
    wrong = replace(build, build_id="ab" * 20)
    with pytest.raises(KernelError, match=f"build id {build.build_id} runs, {'ab' * 20}") as caught:
        machine.await_boot(20, 0, "another boot", wrong)
    assert caught.value.detail.running_build_id == build.build_id
    assert caught.value.detail.expected_build_id == "ab" * 20


def test_a_machine_that_was_slow_to_come_may_be_slow_to_answer(
    machine: LoopbackMachine, build: KernelBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.remote._LAST_CHANCE_S", 0.5)
    answers_at = time.monotonic() + 3.0

    def running() -> str:
        if time.monotonic() < answers_at:
            raise MachineError("no answer yet")
        return build.build_id

    monkeypatch.setattr(machine, "running_build_id", running)
    threading.Timer(2.0, say, (machine, READY + b"\n")).start()
    machine.await_boot(20, machine.console.size(), "", build)


def test_a_proof_that_the_connection_cuts_off_is_tried_again(
    machine: LoopbackMachine, build: KernelBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(machine, READY + b"\n")
    answers = iter(["", build.build_id])

    def running() -> str:
        found = next(answers)
        if not found:
            raise MachineError("the connection was lost")
        return found

    monkeypatch.setattr(machine, "running_build_id", running)
    machine.await_boot(20, 0, "", build)
    assert list(answers) == []


def test_boot_that_panics_is_the_kernels_fault(
    machine: LoopbackMachine, build: KernelBuild
) -> None:
    threading.Timer(0.3, say, (machine, PANIC)).start()
    begin = time.monotonic()
    with pytest.raises(KernelError, match=r"did not come up in .*kernel panic") as caught:
        machine.await_boot(60, 0, "", build)
    assert time.monotonic() - begin < 10
    assert "sysrq triggered crash" in caught.value.detail.console_tail
    assert caught.value.detail.end is MachineEnd.PANIC


def test_boot_that_panics_without_a_kernel_under_test(machine: LoopbackMachine) -> None:
    say(machine, PANIC)
    with pytest.raises(MachineError, match="its own kernel did not come up"):
        machine.await_boot(60, 0, "", None)


def test_vanished_machine_is_not_the_kernels_fault(
    machine: LoopbackMachine, build: KernelBuild
) -> None:
    machine.ended = True
    machine.has_serial = False
    with pytest.raises(MachineError) as caught:
        machine.await_boot(20, 0, "", build)
    assert caught.value.detail.end is MachineEnd.QEMU_DIED


def test_lab_machine_with_a_console_command(sshd: LoopbackSshd, tmp_path: Path) -> None:
    login = LabSsh("127.0.0.1", sshd.host_key.public, sshd.key, sshd.port, getpass.getuser())
    spec = LabSpec(
        "lab", Role.HOST, login, ("sh", "-c", "echo from the console; exec sleep 60"), append="x=1"
    )
    lab = LabMachine(spec, tmp_path, RULES)
    lab.start()
    try:
        assert lab.console.wait_for(b"from the console", 5)
        words = lab.append.split()
        assert words[-2:] == ["panic=10", "x=1"]
        assert not any(word.startswith(("BOOT_IMAGE=", "initrd=")) for word in words)
    finally:
        lab.close()
        lab.close()


def test_lab_machine_without_a_console_brings_no_old_messages(
    sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, dmesg = tmp_path / "log", tmp_path / "dmesg"
    log.write_bytes(b"[    0.000000] Linux version 7.1\n[    9.000000] WARNING: of last week\n")
    dmesg.write_text(
        f'#!/bin/sh\n[ "$1" = --follow ] && exec tail -n +1 -f {log}\nexec cat {log}\n'
    )
    dmesg.chmod(0o755)
    monkeypatch.setattr("harness.adapters.console._DMESG", str(dmesg))
    login = LabSsh("127.0.0.1", sshd.host_key.public, sshd.key, sshd.port, getpass.getuser())
    lab = LabMachine(LabSpec("lab", Role.HOST, login, boot_limit_s=1), tmp_path, RULES)
    lab.start()
    try:
        new = b"[    9.000001] of this run\n"
        with log.open("ab") as file:
            file.write(new)
        assert lab.console.wait_for(new, 20)
        assert lab.console.read() == new
        lab._kexecs = 1
        for end in (MachineEnd.ALIVE, MachineEnd.REBOOT):
            with log.open("ab") as file:
                file.write(f"[   10.000000] Linux version 7.3 {end}\n".encode())
            assert lab.console.wait_for(f"7.3 {end}\n".encode(), 20)
            assert lab.state() is end, "the banner of its own kernel is not there"
    finally:
        lab.close()


def test_lab_machine_that_falls_silent_was_up(sshd: LoopbackSshd, tmp_path: Path) -> None:
    """Although its console, captured since, shows no banner."""
    login = LabSsh("127.0.0.1", sshd.host_key.public, sshd.key, sshd.port, getpass.getuser())
    lab = LabMachine(LabSpec("lab", Role.HOST, login, ("sleep", "60")), tmp_path, RULES)
    lab.start()
    try:
        sshd.stop()
        assert lab.report(1.0).end is MachineEnd.SILENT_HANG
    finally:
        lab.close()


def test_lab_machine_that_is_down(sshd: LoopbackSshd, tmp_path: Path) -> None:
    sshd.stop()
    login = LabSsh("127.0.0.1", sshd.host_key.public, sshd.key, sshd.port, getpass.getuser())
    lab = LabMachine(LabSpec("lab", Role.HOST, login, boot_limit_s=1), tmp_path, RULES)
    with pytest.raises(MachineError, match="lab: SSH does not answer"):
        lab.start()
    lab.close()
