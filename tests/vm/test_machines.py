# SPDX-License-Identifier: GPL-2.0-only
"""Machines for real: boots, faults, kexec, a nested guest."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.adapters.network import free_port
from harness.errors import KernelError, MachineError
from harness.machines.lab import LabMachine
from harness.machines.nested import NestedMachine, image_serial
from harness.machines.qemu import QemuMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import Role
from harness.model.lab import LabSpec, LabSsh
from harness.model.machine import Accel, BootFailure, Disk, MachineEnd, QemuInstall, VmSpec
from tests.vm.conftest import Assets, MakeVm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def qemu_pid(machine: QemuMachine) -> int:
    console = str(machine.console.path)
    for process in psutil.process_iter(["cmdline"]):
        if any(console in word for word in process.info["cmdline"] or ()):
            return int(process.pid)
    raise AssertionError("no QEMU")


def wait_until(what: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return what()


def test_boot_proves_the_kernel_and_power_off_is_seen(
    make_vm: MakeVm, spec: VmSpec, assets: Assets
) -> None:
    machine = make_vm(spec, assets.build)
    machine.start()
    assert machine.running_build_id() == assets.build.build_id
    assert machine.state() is MachineEnd.ALIVE
    assert machine.run(["hostname"], timeout_s=20).stdout == b"guest\n"
    machine.mark("tdisp-harness: a marker")
    assert machine.console.wait_for(b"tdisp-harness: a marker", 5)
    assert machine.console.read().count(b"Linux version") == 1
    assert machine.power_down()
    assert machine.state() is MachineEnd.POWER_OFF
    assert machine.run("true", timeout_s=20).lost


def test_close_leaves_nothing(make_vm: MakeVm, spec: VmSpec) -> None:
    before = set(Path("/tmp").glob("tdisp-vm-*"))
    threads = threading.active_count()
    machine = make_vm(spec)
    machine.start()
    pid = qemu_pid(machine)
    machine.close()
    machine.close()
    assert not psutil.pid_exists(pid)
    assert set(Path("/tmp").glob("tdisp-vm-*")) - before == set()
    assert wait_until(lambda: threading.active_count() <= threads, 5)


def test_two_at_once(make_vm: MakeVm, spec: VmSpec) -> None:
    machines = [make_vm(replace(spec, name=name)) for name in ("one", "two")]
    threads = [threading.Thread(target=machine.start) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [machine.run(["hostname"], timeout_s=20).stdout for machine in machines]
    assert names == [b"one\n", b"two\n"]


def test_sshd_killed_comes_back(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(spec)
    machine.start()
    result = machine.run("pkill -KILL -x dropbear; sleep 30", timeout_s=20)
    assert result.lost
    assert machine.console.wait_for(b"sshd ended", 10)
    assert wait_until(lambda: machine.state() is MachineEnd.ALIVE)
    assert machine.run("echo back", timeout_s=20).stdout == b"back\n"


def test_what_commands_may_rely_on(make_vm: MakeVm, spec: VmSpec) -> None:
    """As under OpenSSH: no signal ignored, long commands, and a time limit that ends all of it."""
    machine = make_vm(spec)
    machine.start()
    ignored = machine.run("grep SigIgn /proc/self/status", timeout_s=20).stdout.split()[1]
    assert int(ignored, 16) == 0
    assert machine.run(f"# {'x' * 20000}\necho long", timeout_s=20).stdout == b"long\n"
    assert machine.run("(sleep 7123; true) & sleep 7123; true", timeout_s=2).timed_out
    assert wait_until(lambda: machine.run("pgrep -x sleep", timeout_s=20).exit_status == 1)


def test_panic_under_a_command(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(spec)
    machine.start()
    begin = time.monotonic()
    result = machine.run("echo c > /proc/sysrq-trigger; sleep 100", timeout_s=100)
    assert result.lost
    assert time.monotonic() - begin < 30
    assert machine.state() is MachineEnd.PANIC
    machine.restart()
    assert machine.state() is MachineEnd.ALIVE
    assert machine.boots == 2


def test_panic_that_stands_still_is_noticed(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(replace(spec, append="panic=0"))
    machine.start()
    begin = time.monotonic()
    assert machine.run("echo c > /proc/sysrq-trigger; sleep 100", timeout_s=100).lost
    assert time.monotonic() - begin < 30
    assert machine.state() is MachineEnd.PANIC


def test_reboot_is_not_a_panic(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(spec)
    machine.start()
    assert machine.run("echo b > /proc/sysrq-trigger; sleep 100", timeout_s=100).lost
    assert machine.state() is MachineEnd.REBOOT


def test_silent_hang(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(spec)
    machine.start()
    machine.qmp.execute("stop")
    result = machine.run("true", timeout_s=3)
    assert result.exit_status is None
    assert machine.state() is MachineEnd.SILENT_HANG
    machine.qmp.execute("cont")
    assert wait_until(lambda: machine.state() is MachineEnd.ALIVE)


def test_qemu_killed(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(spec)
    machine.start()
    threading.Timer(1.0, os.kill, (qemu_pid(machine), signal.SIGKILL)).start()
    assert machine.run("sleep 60", timeout_s=60).lost
    assert machine.state() is MachineEnd.QEMU_DIED


def test_kernel_without_its_root_disk(make_vm: MakeVm, spec: VmSpec, assets: Assets) -> None:
    machine = make_vm(replace(spec, append="root=/dev/nosuch"), assets.build)
    begin = time.monotonic()
    with pytest.raises(KernelError, match="did not come up") as caught:
        machine.start(60)
    assert time.monotonic() - begin < 45
    assert isinstance(caught.value.detail, BootFailure)
    assert caught.value.detail.end is MachineEnd.PANIC
    assert "Unable to mount root fs" in caught.value.detail.console_tail
    assert caught.value.log == machine.console.path


def test_sshd_that_never_answers(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(replace(spec, append="init=/bin/cat"))
    with pytest.raises(MachineError, match="did not come up"):
        machine.start(20)


def test_qemu_that_does_not_start(make_vm: MakeVm, spec: VmSpec) -> None:
    machine = make_vm(replace(spec, extra_args=("-device", "no-such-device")))
    with pytest.raises(MachineError, match="no-such-device"):
        machine.start()


def test_port_taken_before_qemu_had_it(
    make_vm: MakeVm, spec: VmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        ports = iter((taken, free_port()))
        monkeypatch.setattr("harness.machines.qemu.free_port", lambda: next(ports))
        machine = make_vm(spec)
        machine.start()
        assert machine.ssh.endpoint.port != taken
        assert machine.state() is MachineEnd.ALIVE


def test_deploy_of_another_kernel_than_the_build_says(
    make_vm: MakeVm, spec: VmSpec, assets: Assets
) -> None:
    machine = make_vm(spec)
    machine.start()
    wrong = replace(assets.build, build_id="00" * 20)
    with pytest.raises(KernelError, match=f"build id {assets.build.build_id} runs") as caught:
        machine.deploy(wrong)
    assert isinstance(caught.value.detail, BootFailure)
    assert machine.deployed is None
    assert machine.state() is MachineEnd.ALIVE
    machine.deploy(assets.build)
    assert machine.deployed is assets.build


def test_lab_machine(make_vm: MakeVm, spec: VmSpec, assets: Assets, setup: QemuSetup) -> None:
    """A VM stands in for the lab machine; it is reached by SSH alone."""
    vm = make_vm(replace(spec, name="metal"))
    vm.start()
    there = vm.ssh.endpoint
    login = LabSsh(there.host, there.host_key, there.key, there.port)
    lab = LabMachine(
        LabSpec("lab", Role.HOST, login, append="tdisp_mark", boot_limit_s=120),
        setup.run_dir,
        setup.rules,
    )
    try:
        lab.start()
        assert lab.state() is MachineEnd.ALIVE
        lab.deploy(assets.build)
        line = lab.read("/proc/cmdline").decode().split()
        assert "tdisp_mark" in line
        assert "init=/sbin/tdisp-init" in line
        assert lab.state() is MachineEnd.ALIVE
        # of the deployed kernel: what the log held before is none of the run's business
        assert wait_until(lambda: lab.console.read().count(b"Linux version") == 1)
    finally:
        lab.close()
        lab.close()
    # its own connection went with the kernel that was left; the machine itself stays up
    assert vm.answers()
    assert vm.running_build_id() == assets.build.build_id


def test_pair(make_vm: MakeVm, spec: VmSpec, assets: Assets, setup: QemuSetup) -> None:
    """Own kernel, kexec, nested guest, its panic and restart, the host machine's death."""
    host = make_vm(
        replace(
            spec,
            name="host",
            role=Role.HOST,
            memory_mib=2048,
            kernel=str(assets.own_kernel),
            initrd=str(assets.own_initrd),
            disks=(Disk(str(assets.image), image_serial(assets.image)),),
        )
    )
    host.start()
    host.deploy(assets.build)
    assert host.run(["uname", "-r"], timeout_s=20).stdout.decode().strip() == assets.build.release
    there = replace(
        setup,
        install=QemuInstall(("qemu-system-x86_64",), (), "?", "system"),
        accel=Accel("kvm", "KVM on emulated SVM"),
    )
    guest = NestedMachine(spec, there, host, assets.build)
    try:
        guest.start()
        assert guest.state() is MachineEnd.ALIVE
        assert guest.console.read().count(b"Linux version") == 1
        assert guest.run("echo c > /proc/sysrq-trigger; sleep 99", timeout_s=99).lost
        assert guest.state() is MachineEnd.PANIC
        guest.restart()
        assert guest.state() is MachineEnd.ALIVE
        assert host.state() is MachineEnd.ALIVE
        os.kill(qemu_pid(host), signal.SIGKILL)
        assert wait_until(guest.gone)
        assert guest.state() is not MachineEnd.ALIVE
        assert host.state() is MachineEnd.QEMU_DIED
    finally:
        guest.close()
        guest.close()
