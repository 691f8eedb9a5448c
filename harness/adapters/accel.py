# SPDX-License-Identifier: GPL-2.0-only
"""Whether KVM is usable here: found out by booting a kernel under it, not by looking for the node.

A /dev/kvm may exist, open and even create a VM, and still stop a guest with an internal error
(nested or emulated KVM does). So the probe starts QEMU with -accel kvm on a real kernel and waits
for its banner. The answer is remembered per boot of the controller and per QEMU.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.adapters.process import TABLE
from harness.model.machine import Accel, QemuInstall

_BANNER = b"Linux version"
_LIMIT_S = 20.0


def probe(qemu: QemuInstall, kernel: Path, cache: Path) -> Accel:
    """KVM if a kernel boots under it, else TCG with the reason."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why = "no permission for /dev/kvm" if Path("/dev/kvm").exists() else "no /dev/kvm"
        return Accel("tcg", why)
    record = cache / "accel" / f"{_fingerprint(qemu)}.json"
    try:
        known = json.loads(record.read_text())
        return Accel(known["name"], known["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    accel = _boot(qemu, kernel)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"name": accel.name, "reason": accel.reason}))
    return accel


def _fingerprint(qemu: QemuInstall) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256(f"{boot} {qemu.version} {qemu.argv_prefix}".encode()).hexdigest()[:16]


def _boot(qemu: QemuInstall, kernel: Path) -> Accel:
    with tempfile.TemporaryDirectory(prefix="tdisp-accel-") as name:
        serial, errors = Path(name, "serial"), Path(name, "errors")
        serial.touch()
        with errors.open("wb") as stderr:
            child = TABLE.start(
                [
                    *qemu.argv_prefix,
                    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                    *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "512"),
                    *("-serial", f"file:{serial}", "-kernel", str(kernel)),
                    *("-append", "console=ttyS0 earlyprintk=serial panic=-1"),
                ],
                env=dict(qemu.env),
                stderr=stderr,
            )
            try:
                return _watch(child.alive, serial, errors)
            finally:
                child.end()


def _watch(
    alive: Callable[[], bool], serial: Path, errors: Path, limit_s: float = _LIMIT_S
) -> Accel:
    """KVM when the kernel's banner appears; else TCG, with what was seen instead."""
    there = "/dev/kvm is there, but"
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        ended = not alive()
        if _BANNER in serial.read_bytes():
            return Accel("kvm", "a kernel boots under KVM")
        said = _last_line(errors)
        if "KVM internal error" in said or "failed to initialize" in said:
            return Accel("tcg", f"{there} QEMU says: {said}")
        if ended:
            return Accel("tcg", f"{there} QEMU ended under KVM: {said or 'no message'}")
        time.sleep(0.05)
    said, size = _last_line(errors), serial.stat().st_size
    what = f"printed {size} bytes and no banner" if size else "printed nothing"
    also = f"; QEMU says: {said}" if said else ""
    return Accel("tcg", f"{there} a kernel {what} under it within {limit_s:.0f} s{also}")


def _last_line(errors: Path) -> str:
    """What QEMU said last; of a KVM error, which a dump of registers follows, the first line."""
    lines = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "KVM internal error" in line or "failed to" in line]
    return (told or lines[-1:] or [""])[0].strip()
