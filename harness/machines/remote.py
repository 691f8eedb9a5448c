# SPDX-License-Identifier: GPL-2.0-only
"""What all machines share: everything that needs only an SSH connection and a console."""

from __future__ import annotations

import shlex
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.adapters import transfer
from harness.adapters.console import BOOT_ID, ConsoleFile
from harness.adapters.ssh import SshConnection, SshRefusedError
from harness.core.elf_notes import build_id
from harness.core.machine_end import EndReport
from harness.errors import KernelError, MachineError
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import BootFailure, ExecResult, MachineEnd

# written by configs/rootfs/init.sh
READY = b"tdisp-harness: sshd ready"
PANIC = b"Kernel panic - not syncing"
_PANIC_END = b"---[ end Kernel panic"

_PROBE_S = 8.0
_SHORT_S = 60.0
# a boot may take this many times the first boot of the same machine, and never less than ...
_BOOT_FACTOR = 4.0
_BOOT_LEAST_S = 30.0
_POLL_S = 0.3
# a boot that prints nothing for so long is over
_QUIET_S = 90.0
_LAST_CHANCE_S = 10.0
# for the rest of a panic's report
_PANIC_S = 2.0
_EMPTY_BYTES = 512  # an archive of nothing is smaller
_KERNEL_DIR = "/var/tmp/tdisp-kernel"
_OLD_KERNEL = "the old kernel still answers: kexec had no effect"
# ends that are no fault of the kernel
_INFRASTRUCTURE = (MachineEnd.QEMU_DIED,)


class _Scan:
    """Looks for a text in a growing console, each byte once."""

    def __init__(self, needle: bytes) -> None:
        self._needle = needle
        self.restart(0)

    def restart(self, start: int) -> None:
        """Forget, and look from byte `start` on."""
        self._start = self._at = start
        self._found = False

    def found(self, console: ConsoleFile) -> bool:
        size = console.size()
        if size > self._at and not self._found:
            begin = max(self._at - len(self._needle), self._start)
            self._found = self._needle in console.read(begin)
            self._at = size
        return self._found


class RemoteMachine(ABC):
    """A machine reached over SSH: implements model.machine.Machine but for its power.

    boots: number of kernels started, kexec included. boot_s: how long the last one took to answer.
    """

    # its console is a serial one that shows READY; otherwise SSH is polled
    has_serial = True

    def __init__(self, name: str, role: Role, console: ConsoleFile) -> None:
        self.name = name
        self.role = role
        self.console = console
        self.boots = 0
        self.boot_s = 0.0
        self.deployed: KernelBuild | None = None
        self._console_start = 0  # of the current power-on
        self._kexecs = 0  # since then
        self._closed = threading.Event()
        self._panic_scan = _Scan(PANIC)

    # what a kind of machine adds

    @property
    @abstractmethod
    def ssh(self) -> SshConnection:
        """The connection. MachineError before the machine was started."""

    @property
    @abstractmethod
    def append(self) -> str:
        """The whole kernel command line for a deployed kernel."""

    @abstractmethod
    def gone(self) -> bool:
        """Known to have ended. Cheap: it is polled."""

    def down(self) -> bool:
        """Gone, or standing still in a panic (panic=0). Cheap: it is polled."""
        return self.gone() or self._panic_scan.found(self.console)

    @abstractmethod
    def end_report(self, *, ssh_alive: bool, console_alive: bool) -> EndReport:
        """What became of it, from all signs."""

    @abstractmethod
    def restart(self) -> None:
        """See model.machine.Machine."""

    @abstractmethod
    def close(self) -> None:
        """See model.machine.Machine."""

    # commands and files

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        on_output: Callable[[bytes], None] | None = None,
        max_output_bytes: int = 8 << 20,
        check: bool = False,
    ) -> ExecResult:
        result = self.ssh.run(
            command,
            timeout_s=timeout_s,
            stdin=stdin,
            on_output=on_output,
            max_output_bytes=max_output_bytes,
        )
        if check and result.exit_status != 0:
            text = command if isinstance(command, str) else shlex.join(command)
            raise MachineError(
                f"{self.name}: `{text}`: {transfer.describe(result)}",
                command=self.ssh.endpoint.by_hand,
                log=self.console.path,
                detail=result,
            )
        return result

    def upload(self, local: Path, remote: str) -> None:
        transfer.upload(self.ssh, local, remote)

    def unpack(self, archive: Path | bytes, directory: str, *, replaced: str = "") -> None:
        """Unpack a .tar.gz into a directory, see transfer.unpack."""
        transfer.unpack(self.ssh, archive, directory, replaced=replaced)

    def write(self, remote: str, data: bytes) -> None:
        transfer.write(self.ssh, remote, data)

    def read(self, remote: str) -> bytes:
        return transfer.read(self.ssh, remote)

    def mark(self, text: str) -> None:
        # <5>: KERN_NOTICE, shown at the default console log level
        line = f"<5>{text}\n".encode()
        self.run("cat > /dev/kmsg", timeout_s=_SHORT_S, stdin=line, check=True)

    # kernels

    def running_build_id(self) -> str:
        found = build_id(self.read("/sys/kernel/notes"))
        if not found:
            raise MachineError(f"{self.name}: /sys/kernel/notes holds no GNU build id")
        return found

    def boot_limit_s(self) -> float:
        """How long a boot may take, from how long the first one took."""
        return max(_BOOT_LEAST_S, _BOOT_FACTOR * self.boot_s)

    def deploy(self, build: KernelBuild) -> None:
        """Upload, kexec once, prove by build id.

        KernelError (detail: BootFailure) when the kernel does not come up or another one answers;
        MachineError when the machine or the connection failed.
        """
        directory = _KERNEL_DIR
        self.upload(build.image, f"{directory}/bzImage")
        if build.modules.is_file() and build.modules.stat().st_size > _EMPTY_BYTES:
            # the archive holds lib/modules/<release>; /lib is a link to usr/lib on merged systems
            self.unpack(build.modules, "/")
        load = ["kexec", "-s", "-l", f"{directory}/bzImage", f"--command-line={self.append}"]
        # and the old kernel's boot id, in the same command
        loaded = self.run(
            f"{shlex.join(load)} && cat {BOOT_ID}", timeout_s=2 * _SHORT_S, check=True
        )
        before = loaded.stdout.decode().strip().splitlines()[-1]
        start = self.console.size()
        # the command must be answered before the kernel goes: kexec a moment later
        leave = "sync; (sleep 0.2; exec kexec -e) < /dev/null > /dev/null 2>&1 &"
        self.run(leave, timeout_s=_SHORT_S, check=True)
        self._kexecs += 1
        self.boots += 1
        self.deployed = None  # until it is proved
        begin = time.monotonic()
        self.await_boot(self.boot_limit_s(), start, before, build)
        self.boot_s = time.monotonic() - begin
        self.deployed = build

    def _boot_id(self) -> str:
        result = self.run(["cat", BOOT_ID], timeout_s=_SHORT_S)
        return result.stdout.decode().strip() if result.exit_status == 0 else ""

    def await_boot(
        self, limit_s: float, start: int, boot_id_before: str, build: KernelBuild | None
    ) -> None:
        """Wait until a new kernel answers over SSH, and prove that it is `build`, if given.

        start: console size when the boot began. Errors as for deploy; without `build` the kernel is
        not under test, and its failure is a MachineError.
        """
        begin = time.monotonic()
        deadline = begin + limit_s
        self._panic_scan.restart(start)
        if self.has_serial:
            seen = self.console.wait_any((READY, PANIC), limit_s, start, quiet_s=_QUIET_S)
            now = time.monotonic()
            # a last chance for a machine that lost its console; and one that was slow to come so
            # far, on a busy controller, is slow to answer as well
            left_s = min(now - begin, limit_s) if seen == READY else 0.0
            deadline = now + max(_LAST_CHANCE_S, left_s)
        self.ssh.drop()
        problem = ""
        while not self.down() and time.monotonic() < deadline:
            try:
                self.ssh.connect(min(max(deadline - time.monotonic(), 1.0), 15.0))
            except SshRefusedError:
                raise
            except MachineError as exc:
                problem = exc.message
                continue
            # after a power-on there was no kernel before: the build id alone proves the new one
            proved = build is not None and not boot_id_before
            answered = "" if proved else self._boot_id()
            if proved or (answered and answered != boot_id_before):
                try:
                    self._prove(build, begin)
                    return
                except MachineError as exc:
                    problem = exc.message
            else:
                problem = _OLD_KERNEL if answered else ""
            time.sleep(_POLL_S)
            self.ssh.drop()
        raise self._boot_error(build, time.monotonic() - begin, start, problem)

    def _prove(self, build: KernelBuild | None, begin: float) -> None:
        if build is None:
            return
        running = self.running_build_id()
        if running == build.build_id:
            return
        failure = BootFailure(
            machine=self.name,
            end=MachineEnd.ALIVE,
            waited_s=time.monotonic() - begin,
            console_tail=self.console.tail(),
            expected_build_id=build.build_id,
            running_build_id=running,
        )
        raise KernelError(
            f"{self.name}: wrong kernel: build id {running} runs, {build.build_id} was deployed",
            log=self.console.path,
            detail=failure,
        )

    def _boot_error(
        self, build: KernelBuild | None, waited_s: float, start: int, problem: str
    ) -> KernelError | MachineError:
        if self.down() and not self.gone():
            self.console.wait_for(_PANIC_END, _PANIC_S, start)
        size = self.console.size()
        report = self.end_report(ssh_alive=problem == _OLD_KERNEL, console_alive=False)
        failure = BootFailure(
            machine=self.name,
            end=report.end,
            waited_s=waited_s,
            console_tail=self.console.tail(start=min(start, size)),
            expected_build_id=build.build_id if build else "",
        )
        what = problem if report.end is MachineEnd.ALIVE else report.what
        release = f"kernel {build.release}" if build else "its own kernel"
        message = f"{self.name}: {release} did not come up in {waited_s:.1f} s: {what}"
        tail = "".join(f"\n  | {line}" for line in failure.console_tail.splitlines()[-20:])
        kind = KernelError if build and report.end not in _INFRASTRUCTURE else MachineError
        return kind(message + tail, log=self.console.path, detail=failure)

    # what became of it

    def answers(self, timeout_s: float = _PROBE_S) -> bool:
        """A command gets an answer, over the connection there is or else over a new one."""
        if self.down():
            return False
        for wait_s in (timeout_s / 2, timeout_s):
            if self.ssh.run("true", timeout_s=wait_s).exit_status == 0:
                return True
            self.ssh.drop()
        return False

    def report(self, timeout_s: float = _PROBE_S) -> EndReport:
        """What became of it, in words. timeout_s: for its answer."""
        before = self.console.size()
        alive = self.answers(timeout_s)
        return self.end_report(ssh_alive=alive, console_alive=self.console.size() > before)

    def state(self) -> MachineEnd:
        return self.report().end
