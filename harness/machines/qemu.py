# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine on the controller: the guest of a solo run, or the host machine of a pair."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.adapters.network import free_port, ipv4_routes
from harness.adapters.process import TABLE, Child
from harness.adapters.qmp import Qmp, connect_unix
from harness.adapters.ssh import SshConnection, SshEndpoint
from harness.core.qemu_argv import VmWiring, qemu_argv
from harness.core.user_net import UserNet, choose_user_net
from harness.errors import MachineError
from harness.machines.vm import QemuSetup, VmMachine, make_seed
from harness.model.kernel import KernelBuild
from harness.model.machine import VmSpec

# a port can be taken between its choice and QEMU's start
_ATTEMPTS = 4
_PORT_TAKEN = "Could not set up host forwarding rule"
_QMP_S = 30.0
# until a first boot was measured
_FIRST_BOOT_S = {"kvm": 90.0, "tcg": 300.0}


def _never() -> bool:
    return False


class QemuMachine(VmMachine):
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
        self._lost = lost
        self._child: Child | None = None
        self.network: UserNet = choose_user_net(ipv4_routes())
        self._directory = Path(tempfile.mkdtemp(prefix="tdisp-vm-"))
        setup.on_temporary(self._directory)
        super().__init__(spec, setup, under_test)

    @property
    def qmp(self) -> Qmp:
        """QEMU's control channel."""
        if self._qmp is None:
            raise MachineError(f"{self.name}: was not started")
        return self._qmp

    @property
    def first_boot_limit_s(self) -> float:
        return _FIRST_BOOT_S[self.accel.name]

    def gone(self) -> bool:
        return self._child is None or not self._child.alive()

    def down(self) -> bool:
        return super().down() or self._lost()

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


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "warning:" not in line]
    return lines[-1] if lines else "it ended without a message"
