# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine on the controller: the guest of a solo run, or the host machine of a pair."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.adapters.console import ConsoleFile
from harness.adapters.network import free_port, ipv4_routes
from harness.adapters.process import TABLE, Child
from harness.adapters.qmp import Qmp, connect_unix
from harness.adapters.ssh import SshConnection, SshEndpoint
from harness.adapters.ssh_keys import SshKey, generate_key
from harness.core.machine_end import EndReport, classify_end
from harness.core.qemu_argv import VmWiring, kernel_append, qemu_argv
from harness.core.seed import Seed, seed_archive
from harness.core.splat_rules import RuleSet
from harness.core.user_net import UserNet, choose_user_net
from harness.errors import MachineError
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild
from harness.model.machine import Accel, QemuInstall, VmSpec

# a port can be taken between its choice and QEMU's start
_ATTEMPTS = 4
_PORT_TAKEN = "Could not set up host forwarding rule"
_QMP_S = 30.0
_EVENTS_S = 2.0
# until a first boot was measured
_FIRST_BOOT_S = {"kvm": 90.0, "tcg": 300.0}


def _ignore(path: Path) -> None:
    del path


def _never() -> bool:
    return False


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


class QemuMachine(RemoteMachine):
    """A QEMU process of this controller. Build it, then start() it, and close() it in any case.

    under_test: the kernel that spec.kernel holds, when it is one of ours: it is then proved by its
    build id, and its failure to boot is a KernelError instead of a MachineError. lost: tells that
    something which the machine needs is gone (its emulated platform), so that nobody waits for it.
    """

    kind = "qemu"

    def __init__(
        self,
        spec: VmSpec,
        setup: QemuSetup,
        under_test: KernelBuild | None = None,
        lost: Callable[[], bool] = _never,
    ) -> None:
        self.accel = setup.accel
        self.argv: tuple[str, ...] = ()
        self._spec = spec
        self._setup = setup
        self._under_test = under_test
        self._lost = lost
        self._host_key = generate_key()
        self._child: Child | None = None
        self._qmp: Qmp | None = None
        self._ssh: SshConnection | None = None
        self.network: UserNet = choose_user_net(ipv4_routes())
        self._directory = Path(tempfile.mkdtemp(prefix="tdisp-vm-"))
        setup.on_temporary(self._directory)
        path = setup.run_dir / f"console-{spec.name}.log"
        super().__init__(spec.name, spec.role, ConsoleFile(path, ended=self.gone))

    @property
    def ssh(self) -> SshConnection:
        if self._ssh is None:
            raise MachineError(f"{self.name}: was not started")
        return self._ssh

    @property
    def qmp(self) -> Qmp:
        """QEMU's control channel."""
        if self._qmp is None:
            raise MachineError(f"{self.name}: was not started")
        return self._qmp

    @property
    def append(self) -> str:
        return kernel_append(self._spec)

    def start(self, limit_s: float = 0.0) -> None:
        """Start QEMU and wait for SSH. limit_s: 0 for one that suits the accelerator.

        KernelError or MachineError as for deploy; the machine must be closed after both.
        """
        begin = time.monotonic()
        self._console_start = self.console.size()
        self._kexecs = 0
        self.boots += 1
        self._launch()
        limit_s = limit_s or _FIRST_BOOT_S[self.accel.name]
        self.await_boot(limit_s, self._console_start, "", self._under_test)
        self.boot_s = time.monotonic() - begin
        if self._under_test is not None:
            self.install_modules(self._under_test)

    def gone(self) -> bool:
        return self._child is None or not self._child.alive()

    def down(self) -> bool:
        return super().down() or self._lost()

    def end_report(self, *, ssh_alive: bool, console_alive: bool) -> EndReport:
        alive = not self.gone()
        if not alive and self._qmp is not None:
            self._qmp.wait_ended(_EVENTS_S)
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
        limit_s = max(self.boot_limit_s(), 60.0) if self.boot_s else 0.0
        self._stop()
        self.start(limit_s)
        if deployed is not None:
            self.deploy(deployed)

    def power_down(self, timeout_s: float = 20.0) -> bool:
        """Ask the machine to power off; False when it did not within the time."""
        self.run("kill -TERM 1", timeout_s=timeout_s)
        return self._child is None or self._child.wait(timeout_s) is not None

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(Exception):
            self._stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _stop(self) -> None:
        if self._ssh is not None:
            self._ssh.close()
        if self._child is not None:
            self._child.end()
        if self._qmp is not None:
            self._qmp.close()

    def _launch(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            port = free_port()
            log = self._setup.run_dir / f"qemu-{self.name}.log"
            said_before = log.stat().st_size if log.exists() else 0
            self._start_qemu(port, log)
            try:
                self._qmp = self._connect_qmp()
                break
            except MachineError:
                said = log.read_bytes()[said_before:].decode(errors="replace")
                self._stop()
                if _PORT_TAKEN not in said or attempt == _ATTEMPTS:
                    raise MachineError(
                        f"{self.name}: QEMU did not start: {_last_line(said)}",
                        hint="its messages are in the log",
                        log=log,
                    ) from None
        host_key = self._host_key.public
        endpoint = SshEndpoint("127.0.0.1", port, "root", self._setup.user_key, host_key)
        self._ssh = SshConnection(self.name, endpoint, self.down)

    def _start_qemu(self, port: int, log: Path) -> None:
        seed = self._directory / "seed.tar"
        seed.write_bytes(make_seed(self._spec, self._host_key, self._setup, self.network))
        socket = self._directory / "qmp"
        socket.unlink(missing_ok=True)
        wiring = VmWiring(
            console=str(self.console.path),
            qmp=f"path={socket}",
            seed=str(seed),
            ssh_port=port,
            network=self.network,
        )
        install = self._setup.install
        argv = (*install.argv_prefix, *qemu_argv(self._spec, self.accel, wiring))
        self.argv = tuple(argv)
        with log.open("ab") as errors:
            # TMPDIR: where QEMU puts the throw-away overlay
            environment = {**dict(install.env), "TMPDIR": str(self._directory)}
            self._child = TABLE.start(argv, env=environment, stdout=errors, stderr=errors)

    def _connect_qmp(self) -> Qmp:
        deadline = time.monotonic() + _QMP_S
        while not self.gone() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return connect_unix(self._directory / "qmp", self.name)
            time.sleep(0.01)
        raise MachineError(f"{self.name}: QEMU's control socket does not answer")


def make_seed(spec: VmSpec, host_key: SshKey, setup: QemuSetup, network: UserNet) -> bytes:
    """The seed disk of a VM of this run."""
    return seed_archive(Seed(spec.name, host_key.private, (setup.authorized,), network))


def event_words(qmp: Qmp | None) -> tuple[str, ...]:
    """QMP events as classify_end takes them: the name, and the reason where there is one."""
    events = qmp.events() if qmp is not None else ()
    return tuple(f"{event.name} {event.data.get('reason', '')}".strip() for event in events)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "warning:" not in line]
    return lines[-1] if lines else "it ended without a message"
