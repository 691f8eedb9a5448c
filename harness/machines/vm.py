# SPDX-License-Identifier: GPL-2.0-only
"""What all virtual machines share, wherever their QEMU runs."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.adapters.console import ConsoleFile
from harness.adapters.qmp import Qmp
from harness.adapters.ssh import SshConnection
from harness.adapters.ssh_keys import SshKey, generate_key
from harness.core.machine_end import EndReport, classify_end
from harness.core.qemu_argv import kernel_append
from harness.core.seed import Seed, seed_archive
from harness.core.splat_rules import RuleSet
from harness.core.user_net import UserNet
from harness.errors import MachineError
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild
from harness.model.machine import Accel, QemuInstall, VmSpec

# QEMU's last words, after it ended
_EVENTS_S = 2.0
_RESTART_LEAST_S = 60.0


def _ignore(path: Path) -> None:
    del path


@dataclass(frozen=True, slots=True)
class QemuSetup:
    """What all VMs of a run share.

    run_dir: receives console-<machine>.log and qemu-<machine>.log. user_key: private key file that
    opens every machine, `authorized` its public line. on_temporary: is told each temporary
    directory (the live record).
    """

    install: QemuInstall
    accel: Accel
    run_dir: Path
    user_key: Path
    authorized: str
    rules: RuleSet
    on_temporary: Callable[[Path], None] = _ignore


class VmMachine(RemoteMachine):
    """A VM: start() it after building it, and close() it in any case.

    under_test: the kernel that spec.kernel holds, when it is one of ours: it is then proved by its
    build id, and its failure to boot is a KernelError instead of a MachineError.
    """

    def __init__(self, spec: VmSpec, setup: QemuSetup, under_test: KernelBuild | None) -> None:
        self.accel = setup.accel
        self.argv: tuple[str, ...] = ()
        self._spec = spec
        self._setup = setup
        self._under_test = under_test
        self._host_key = generate_key()
        self._qmp: Qmp | None = None
        self._ssh: SshConnection | None = None
        path = setup.run_dir / f"console-{spec.name}.log"
        super().__init__(spec.name, spec.role, ConsoleFile(path, ended=self.gone))

    @property
    def ssh(self) -> SshConnection:
        if self._ssh is None:
            raise MachineError(f"{self.name}: was not started")
        return self._ssh

    @property
    def append(self) -> str:
        return kernel_append(self._spec)

    @property
    @abstractmethod
    def first_boot_limit_s(self) -> float:
        """How long a boot may take before one was measured."""

    def _prepare(self) -> None:
        """What comes before a start and does not count as boot time."""

    @abstractmethod
    def _launch(self) -> None:
        """Start QEMU, and attach to its control socket, console and SSH port."""

    @abstractmethod
    def _stop(self) -> None:
        """End QEMU and all connections; it may not have been started."""

    def _settle(self) -> None:
        """QEMU has ended: wait for what is still on its way from it."""

    def start(self, limit_s: float = 0.0) -> None:
        """Start QEMU and wait for SSH. limit_s: 0 for one that suits the accelerator.

        KernelError or MachineError as for deploy; the machine must be closed after both.
        """
        self._prepare()
        begin = time.monotonic()
        self._console_start = self.console.size()
        self._kexecs = 0
        self.boots += 1
        self._launch()
        limit_s = limit_s or self.first_boot_limit_s
        self.await_boot(limit_s, self._console_start, "", self._under_test)
        self.boot_s = time.monotonic() - begin

    def end_report(self, *, ssh_alive: bool, console_alive: bool) -> EndReport:
        alive = not self.gone()
        if not alive and self._qmp is not None:
            self._qmp.wait_ended(_EVENTS_S)
            self._settle()
        return classify_end(
            self.console.read(self._console_start),
            qemu_alive=alive,
            ssh_alive=ssh_alive,
            qmp_events=event_words(self._qmp),
            expected_banners=1 + self._kexecs,
            rules=self._setup.rules,
            console_alive=console_alive,
        )

    def restart(self) -> None:
        deployed = self.deployed
        limit_s = max(self.boot_limit_s(), _RESTART_LEAST_S) if self.boot_s else 0.0
        self._stop()
        self.start(limit_s)
        if deployed is not None:
            self.deploy(deployed)


def make_seed(spec: VmSpec, host_key: SshKey, setup: QemuSetup, network: UserNet) -> bytes:
    """The seed disk of a VM of this run."""
    return seed_archive(Seed(spec.name, host_key.dropbear, (setup.authorized,), network))


def event_words(qmp: Qmp | None) -> tuple[str, ...]:
    """QMP events as classify_end takes them: the name, and the reason where there is one."""
    events = qmp.events() if qmp is not None else ()
    return tuple(f"{event.name} {event.data.get('reason', '')}".strip() for event in events)
