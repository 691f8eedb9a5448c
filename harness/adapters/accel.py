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


def _watch(alive: Callable[[], bool], serial: Path, errors: Path) -> Accel:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        if _BANNER in serial.read_bytes():
            return Accel("kvm", "a kernel boots under KVM")
        said = errors.read_text(errors="replace").strip()
        if "KVM internal error" in said or "failed to initialize" in said:
            line = next(line for line in said.splitlines() if "KVM" in line or "failed" in line)
            return Accel("tcg", f"/dev/kvm is there, but a guest stops: {line}")
        if not alive():
            return Accel("tcg", f"QEMU ended under KVM: {said[-200:] or 'no message'}")
        time.sleep(0.05)
    return Accel("tcg", f"no kernel banner under KVM within {_LIMIT_S:.0f} s")
