# SPDX-License-Identifier: GPL-2.0-only
"""Runs on lab machines: which one, and one run at a time on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.inventory import machine_named, parse_inventory
from harness.errors import MachineError, UserError, cause
from harness.model.kernel import Role
from harness.model.lab import LabSpec
from harness.model.machine import QemuInstall
from harness.model.platform import PlatformCell

# what starts the guest on a lab machine: the machine's own QEMU
OWN_QEMU = QemuInstall(("qemu-system-x86_64",), (), "the lab machine's own", "lab machine")


def load(file: Path, machine: str) -> LabSpec:
    """A machine of an inventory file. UserError names the file and the key."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(
            f"{file}: cannot be read: {cause(exc)}",
            hint="see configs/labs/",
        ) from exc
    return machine_named(parse_inventory(text, str(file), Path.home()), machine, str(file))


def cannot_have(spec: LabSpec | None, cell: PlatformCell) -> str:
    """Why a test in this cell cannot be run beside a lab machine, "" when it can.

    Beside a host machine of the lab, guests that stand alone are VMs of the controller.
    """
    if spec is None or (spec.role is Role.HOST and not cell.nested):
        return ""
    return f"needs the emulated platform, which {spec.name} cannot have: it is no VM"


@contextlib.contextmanager
def reserved(spec: LabSpec | None, cache: Path) -> Iterator[None]:
    """Held while a run uses the machine: MachineError when another run of this cache does."""
    if spec is None:
        yield
        return
    name = re.sub(r"[^\w.-]", "_", f"{spec.ssh.host}-{spec.ssh.port}")
    lock = FileLock(cache / "live" / f"lab-{name}.lock")
    lock_directory = Path(lock.lock_file).parent
    lock_directory.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise MachineError(
            f"{spec.name}: another run uses this lab machine", hint="wait until it has ended"
        ) from exc
    try:
        yield
    finally:
        lock.release()
