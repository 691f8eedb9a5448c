# SPDX-License-Identifier: GPL-2.0-only
"""A guest VM that runs on another machine: everything goes over that machine's SSH connection.

On the host machine live: /var/cache/tdisp-harness/<sha256> (kernels and images, kept), and one
directory per started guest under /run, removed by close().
"""

from __future__ import annotations

import contextlib
import random
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness.adapters import transfer
from harness.adapters.console import RemoteStream, follow_file
from harness.adapters.qmp import Qmp
from harness.adapters.ssh import SshConnection, SshEndpoint
from harness.core.qemu_argv import NESTED_CPU, VmWiring, qemu_argv
from harness.core.user_net import (
    UserNet,
    choose_user_net,
    parse_listening_ports,
    parse_proc_net_route,
)
from harness.errors import MachineError
from harness.machines.remote import RemoteMachine
from harness.machines.vm import QemuSetup, VmMachine, make_seed
from harness.model.kernel import KernelBuild
from harness.model.machine import Accel, VmSpec

CACHE = "/var/cache/tdisp-harness"
_SHORT_S = 60.0
_PROBE_S = 15.0
_ATTEMPTS = 4
_PORT_TAKEN = ("Could not set up host forwarding rule", "Address already in use")
# below the range of ephemeral ports (32768 and up)
_PORTS = range(20000, 32000)
_FIRST_BOOT_S = 300.0
_SETTLE_S = 0.5
# virtio-blk's limit for serials
_SERIAL_CHARS = 20


@dataclass(frozen=True, slots=True)
class _HostState:
    network: UserNet
    busy_ports: frozenset[int]
    disks: dict[str, str]  # serial -> device


class NestedMachine(VmMachine):
    """A guest in a QEMU on `host`. Build it, then start() it, and close() it in any case.

    spec: its kernel, initrd and root_image are files of the controller and are copied over when
    missing there. The root image is not copied when a disk of the host machine has the first 20
    characters of its SHA-256 as serial (see image_serial). setup: install and accel are those of
    the host machine. under_test: as for QemuMachine.
    """

    kind = "nested"

    def __init__(
        self,
        spec: VmSpec,
        setup: QemuSetup,
        host: RemoteMachine,
        under_test: KernelBuild | None = None,
    ) -> None:
        self.host = host
        self._there = spec  # with paths of the host machine, once its files are there
        self._random = random.Random()
        self._directory = f"/run/tdisp-vm-{spec.name}-{self._random.randrange(1 << 32):08x}"
        self._started = False
        self._dead = False
        self._qmp_port = 0
        self._stream: RemoteStream | None = None
        super().__init__(spec, setup, under_test)

    @property
    def first_boot_limit_s(self) -> float:
        return _FIRST_BOOT_S

    def _prepare(self) -> None:
        self._there = self._copied()

    def gone(self) -> bool:
        if not self._started or self._dead or self.host.down():
            return True
        if self._qmp is not None and self._qmp.ended():
            # QEMU ended, or only the connection to its machine did
            self._dead = not self._qmp_again()
        return self._dead

    def _settle(self) -> None:
        # what the console said last is still under way
        time.sleep(_SETTLE_S if not self.host.down() else 0.0)

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(Exception):
            self._stop()

    # files on the host machine

    def _copied(self) -> VmSpec:
        """The spec with paths of the host machine; uploads what it lacks."""
        spec = self._spec
        return replace(
            spec,
            kernel=self._provide(Path(spec.kernel)),
            initrd=self._provide(Path(spec.initrd)) if spec.initrd else "",
            root_image=self._provide(Path(spec.root_image), spec.root_sha256, image=True),
            cpus=self._cpus(),
            cpu=spec.cpu or (NESTED_CPU if self.accel.name == "kvm" else ""),
        )

    def _provide(self, local: Path, known_sha256: str = "", *, image: bool = False) -> str:
        """The path of this file's content on the host machine: a disk, a cached file, or new."""
        checksum = known_sha256 or transfer.sha256_of(local)
        if image:
            disk = self._host_state().disks.get(checksum[:_SERIAL_CHARS])
            if disk is not None:
                return disk
        remote = f"{CACHE}/{checksum}"
        # a file gets this name only after its checksum was verified
        present = self.host.run(["test", "-f", remote], timeout_s=_SHORT_S)
        if present.exit_status != 0:
            transfer.upload(self.host.ssh, local, remote, sha256=checksum, compress=image)
        return remote

    def _host_state(self) -> _HostState:
        command = (
            "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; echo; echo --; cat /proc/net/route; "
            "echo; echo --; for f in /sys/block/*/serial; do "
            'd=${f%/serial}; echo "/dev/${d##*/} $(cat "$f")"; done'
        )
        result = self.host.run(command, timeout_s=_SHORT_S, check=True)
        tcp, route, disks = result.stdout.decode().split("\n--\n")
        pairs = [line.split() for line in disks.splitlines()]
        return _HostState(
            network=choose_user_net(parse_proc_net_route(route)),
            busy_ports=parse_listening_ports(tcp),
            disks={pair[1]: pair[0] for pair in pairs if len(pair) == 2},
        )

    # QEMU on the host machine

    def _launch(self) -> None:
        spec = self._there
        for attempt in range(1, _ATTEMPTS + 1):
            state = self._host_state()
            free = [port for port in _PORTS if port not in state.busy_ports]
            ssh_port, self._qmp_port = self._random.sample(free, 2)
            seed = make_seed(spec, self._host_key, self._setup, state.network)
            self.host.write(f"{self._directory}/seed.tar", seed)
            said = self._start_qemu(spec, ssh_port, state.network)
            if not said:
                break
            taken = any(words in said for words in _PORT_TAKEN)
            if not taken or attempt == _ATTEMPTS:
                raise MachineError(f"{self.name}: QEMU did not start on {self.host.name}: {said}")
        self._started, self._dead = True, False
        self._qmp = self._connect_qmp()
        console = f"{self._directory}/console"
        self._stream = follow_file(self.host.ssh, console, self.console.path)
        key = self._host_key.public
        endpoint = SshEndpoint(
            "127.0.0.1", ssh_port, "root", self._setup.user_key, key, via=self.host.ssh
        )
        self._ssh = SshConnection(self.name, endpoint, self.down)

    def _start_qemu(self, spec: VmSpec, ssh_port: int, network: UserNet) -> str:
        """Start it in the background; what QEMU said when that failed, else ""."""
        wiring = VmWiring(
            console=f"{self._directory}/console",
            qmp=f"host=127.0.0.1,port={self._qmp_port}",
            seed=f"{self._directory}/seed.tar",
            ssh_port=ssh_port,
            network=network,
            pidfile=f"{self._directory}/pid",
        )
        install = self._setup.install
        argv = (*install.argv_prefix, *qemu_argv(spec, self.accel, wiring))
        self.argv = tuple(argv)
        # the throw-away overlay goes to the disk, not to the memory behind /run
        environment = {**dict(install.env), "TMPDIR": CACHE}
        variables = [f"{name}={value}" for name, value in environment.items()]
        pinned = "taskset -c $(($(nproc) - 1)) " if self._on_emulated_svm() else ""
        command = (
            f"mkdir -p {CACHE} && : > {self._directory}/console && "
            f"{pinned}{shlex.join(['env', *variables, *argv])} < /dev/null"
        )
        result = self.host.run(command, timeout_s=_SHORT_S)
        if result.exit_status == 0:
            return ""
        said = [line for line in result.stderr.decode(errors="replace").splitlines() if line]
        return "\n".join(said[-3:]) or transfer.describe(result)

    def _on_emulated_svm(self) -> bool:
        """Under KVM of a host machine that is itself emulated.

        A guest under QEMU 11.1.3's emulated SVM now and then ends in a triple fault or a silent
        hang (seen, also with a bare kernel and initramfs). Less often with one CPU, and not in 16
        starts with its QEMU on one CPU of the host machine, beside 2 of 16 without that.
        """
        accel = getattr(self.host, "accel", None)
        return isinstance(accel, Accel) and accel.name == "tcg" and self.accel.name == "kvm"

    def _cpus(self) -> int:
        """One CPU on an emulated host machine, else what was asked for."""
        return 1 if self._on_emulated_svm() else self._spec.cpus

    def _connect_qmp(self) -> Qmp:
        try:
            stream = self.host.ssh.open_tcp("127.0.0.1", self._qmp_port, timeout_s=_SHORT_S)
        except Exception as exc:
            raise MachineError(
                f"{self.name}: QEMU's control port on {self.host.name} does not answer: {exc}"
            ) from exc
        return Qmp(stream, self.name)

    def _qmp_again(self) -> bool:
        """Attach to a QEMU that may still run; True when it does."""
        if self._closed.is_set() or not self._pid_lives():
            return False
        with contextlib.suppress(MachineError):
            self._qmp = self._connect_qmp()
        return True

    def _pid_lives(self) -> bool:
        probe = f'kill -0 "$(cat {self._directory}/pid)"'
        return self.host.run(probe, timeout_s=_PROBE_S).exit_status == 0

    def _stop(self) -> None:
        if self._ssh is not None:
            self._ssh.close()
        started, self._started = self._started, False
        if self._qmp is not None:
            self._qmp.close()
        if started and not self.host.down():
            self._end_qemu()
        if self._stream is not None:
            self._stream.close(settle_s=0.0 if self.host.down() else _SETTLE_S)

    def _end_qemu(self) -> None:
        # the directory goes last: tail must be able to read the console to its end
        command = (
            f'p=$(cat {self._directory}/pid) && kill "$p" && '
            'for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$p" 2>/dev/null || break; sleep 0.2; done; '
            'kill -KILL "$p" 2>/dev/null; '
            f"rm -rf -- {self._directory}"
        )
        self.host.run(command, timeout_s=_PROBE_S)


def image_serial(image: Path, known_sha256: str = "") -> str:
    """The disk serial under which a host machine may offer this image to its guests."""
    return (known_sha256 or transfer.sha256_of(image))[:_SERIAL_CHARS]
