# SPDX-License-Identifier: GPL-2.0-only
"""A lab machine: reached over SSH, its power switched by a command of the inventory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import IO

from harness.adapters.console import ConsoleFile, RemoteStream, follow_kernel_log
from harness.adapters.process import TABLE, Child, run
from harness.adapters.ssh import SshConnection, SshEndpoint
from harness.core.machine_end import EndReport, classify_end
from harness.core.splat_rules import RuleSet
from harness.errors import HarnessError
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild
from harness.model.lab import LabSpec
from harness.model.machine import Accel, MachineEnd

_SHORT_S = 60.0
_POWER_S = 120.0
# A lab machine must come back on its own kernel: reboot a little after a panic, so that the
# console (or the kernel log) is complete.
_PANIC = "panic=10"


class LabMachine(RemoteMachine):
    """A machine of the inventory. Build it, then start() it, and close() it in any case.

    run_dir receives console-<machine>.log. Without a console command that file holds the kernel log
    from start() on, as far as SSH brings it, and a boot is noticed by SSH alone.
    """

    kind = "lab"
    accel = Accel("none", "a lab machine is no VM")
    argv: tuple[str, ...] = ()

    def __init__(self, spec: LabSpec, run_dir: Path, rules: RuleSet) -> None:
        super().__init__(spec.name, spec.role, ConsoleFile(run_dir / f"console-{spec.name}.log"))
        login = spec.ssh
        endpoint = SshEndpoint(login.host, login.port, login.user, login.key, login.host_key)
        self._ssh = SshConnection(spec.name, endpoint, self.down)
        self._spec = spec
        self._rules = rules
        self._own_line = ""
        self._banners = 1  # of the current power-on, kexec aside
        self._met = False  # it answered since the power-on that the console's part begins with
        self._reader: Child | None = None
        self._output: IO[bytes] | None = None
        self._stream: RemoteStream | None = None

    # polled over SSH: nothing on a lab machine writes the harness's READY line
    has_serial = False

    @property
    def ssh(self) -> SshConnection:
        return self._ssh

    @property
    def append(self) -> str:
        # BOOT_IMAGE and initrd belong to the boot loader; the words of `append` are there when the
        # machine still runs the kernel of an earlier run
        ours = set(self._spec.append.split())
        words = [
            word
            for word in self._own_line.split()
            if not word.startswith(("BOOT_IMAGE=", "initrd=", "panic=")) and word not in ours
        ]
        return " ".join((*words, _PANIC, self._spec.append)).strip()

    def start(self) -> None:
        """Connect to the machine as it stands, on its own kernel. MachineError when it is down."""
        self._capture()
        begin = time.monotonic()
        self._ssh.connect(self._spec.boot_limit_s)
        self.boot_s = time.monotonic() - begin
        self.boots += 1
        self._met = True
        if self._reader is None:
            self._stream = follow_kernel_log(self._ssh, self.console.path)
            self._banners = 0  # that was before
        self._own_line = self.read("/proc/cmdline").decode().strip()

    def boot_limit_s(self) -> float:
        return self._spec.boot_limit_s

    def gone(self) -> bool:
        return self._closed.is_set()

    def end_report(self, *, ssh_alive: bool, console_alive: bool) -> EndReport:
        return classify_end(
            self.console.read(self._console_start),
            qemu_alive=True,
            ssh_alive=ssh_alive,
            qmp_events=(),
            expected_banners=self._banners + self._kexecs,
            rules=self._rules,
            console_alive=console_alive,
            booted=self._met,
        )

    def restart(self) -> None:
        deployed: KernelBuild | None = self.deployed
        before = self._boot_id()
        self._console_start = self.console.size()
        self._kexecs = 0
        self._banners, self._met = 1, False
        self.boots += 1
        if self._spec.power_cycle:
            run(self._spec.power_cycle, timeout_s=_POWER_S, what=f"power cycle of {self.name}")
        else:
            leave = "sync; (sleep 0.5; exec reboot) < /dev/null > /dev/null 2>&1 &"
            self.run(leave, timeout_s=_SHORT_S, check=True)
        begin = time.monotonic()
        self.await_boot(self._spec.boot_limit_s, self._console_start, before, None)
        self._met = True
        self.boot_s = time.monotonic() - begin
        if deployed is not None:
            self.deploy(deployed)

    def recover(self, end: MachineEnd) -> bool:
        """Bring a machine that does not live back on its own kernel; False when that failed."""
        if end in (MachineEnd.ALIVE, MachineEnd.NEVER_BOOTED):
            return True
        self.deployed = None
        try:
            self.restart()
        except HarnessError:
            return False
        return True

    def close(self) -> None:
        """Let go of the machine; it stays up, on whatever kernel it runs."""
        self._closed.set()
        with contextlib.suppress(Exception):
            self._ssh.close()
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.close()
        with contextlib.suppress(Exception):
            if self._reader is not None:
                self._reader.end()
        if self._output is not None:
            self._output.close()

    def _capture(self) -> None:
        self.console.path.touch()
        if self._spec.console and self._reader is None:
            self._output = self.console.path.open("ab", buffering=0)
            self._reader = TABLE.start(self._spec.console, stdout=self._output, stderr=self._output)
