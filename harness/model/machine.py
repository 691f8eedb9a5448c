# SPDX-License-Identifier: GPL-2.0-only
"""Machines: what one can do, what became of it, and how it is described."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness.model.kernel import KernelBuild, Role


class MachineEnd(StrEnum):
    """How a machine ended, or that it did not."""

    ALIVE = "alive"
    POWER_OFF = "power-off"  # clean shutdown
    PANIC = "panic"
    OOPS_HANG = "oops-hang"  # an oops, then no answer
    SILENT_HANG = "silent-hang"  # no output and no SSH
    REBOOT = "reboot"  # a second kernel banner, triple fault included
    QEMU_DIED = "qemu-died"  # infrastructure
    SSH_LOST = "ssh-lost"  # console lives, SSH does not answer
    NEVER_BOOTED = "never-booted"  # no kernel banner was seen


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A command that ran on a machine. exit_status: None when it was cut off (timeout or lost)."""

    command: str
    exit_status: int | None
    stdout: bytes
    stderr: bytes
    duration_s: float
    timed_out: bool = False
    lost: bool = False  # the connection ended under it
    truncated: bool = False  # output exceeded max_output_bytes; the head and the tail are kept


@dataclass(frozen=True, slots=True)
class Accel:
    """The accelerator QEMU uses and why: ("kvm" | "tcg", a sentence)."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class QemuInstall:
    """A QEMU to start. argv_prefix stands before the arguments (loader, binary, -L directories)."""

    argv_prefix: tuple[str, ...]
    env: tuple[tuple[str, str], ...]  # added to the environment
    version: str  # "11.1.3"
    origin: str  # "system" or "cache"


@dataclass(frozen=True, slots=True)
class Disk:
    """A further raw disk image of a VM, read-only. serial: at most 20 characters (virtio-blk)."""

    path: str
    serial: str


@dataclass(frozen=True, slots=True)
class BootFailure:
    """Why a kernel did not come up. Build ids are hex, "" when nothing answered."""

    machine: str
    end: MachineEnd
    waited_s: float
    console_tail: str
    expected_build_id: str = ""
    running_build_id: str = ""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A virtual machine to start. Disk paths are local to the machine that runs QEMU."""

    name: str
    role: Role
    memory_mib: int
    cpus: int
    kernel: str  # bzImage
    initrd: str  # "" for none
    append: str  # kernel command line without console= and root=
    root_image: str  # raw ext4 image, attached read-only with a throw-away overlay
    extra_args: tuple[str, ...] = ()  # further QEMU arguments (platform devices)
    disks: tuple[Disk, ...] = ()  # e.g. the guest's root image, attached to the host VM
    cpu: str = ""  # QEMU CPU model; "" for the default of the accelerator
    root_sha256: str = ""  # of root_image when it is known: hashing an image takes a second
    iommu: bool = False  # an IOMMU, so that the VM can assign devices to guests of its own
    shared_memory: bool = False  # another process, a vfio-user server, can map its memory
    huge_pages: bool = False  # its memory on huge pages of 2 MiB


class Console(Protocol):
    """A machine's serial console, captured from the first byte to a file."""

    path: Path

    def size(self) -> int:
        """Bytes captured so far."""

    def tail(self, lines: int = 40) -> str:
        """The last lines, decoded with replacement."""

    def wait_for(self, needle: bytes, timeout_s: float, start: int = 0) -> bool:
        """Wait until `needle` shows at or after byte `start`."""


class Machine(Protocol):
    """A machine that boots kernels and is reached over SSH."""

    name: str
    role: Role

    @property
    def console(self) -> Console:
        """Its serial console (a lab machine without one: its kernel log)."""

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
        """Run a command over the kept-open SSH connection. A list is shell-quoted.

        check=True raises MachineError on a non-zero or missing exit status.
        """

    def upload(self, local: Path, remote: str) -> None:
        """Upload and verify by SHA-256; nothing half-written stays under `remote`."""

    def write(self, remote: str, data: bytes) -> None:
        """Write a small file, verified."""

    def read(self, remote: str) -> bytes:
        """Read a file."""

    def mark(self, text: str) -> None:
        """Write a line to the machine's kernel log, and so to its console."""

    def deploy(self, build: KernelBuild) -> None:
        """Upload the kernel, kexec into it once, prove by build id that it runs."""

    def running_build_id(self) -> str:
        """Hex GNU build id from /sys/kernel/notes."""

    def state(self) -> MachineEnd:
        """Whether it is alive; if not, how it ended (console, QMP events, SSH)."""

    def restart(self) -> None:
        """Back to a fresh boot of its own kernel, then the deployed kernel if there was one."""

    def close(self) -> None:
        """End it and leave nothing behind. Idempotent, never raises."""
