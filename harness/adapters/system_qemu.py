# SPDX-License-Identifier: GPL-2.0-only
"""The QEMU that the system already has, if it is good enough."""

from __future__ import annotations

import re
import shutil

from harness.adapters import process
from harness.model.machine import QemuInstall

MINIMUM = (10, 1)  # the first release with vfio-user-pci


def find() -> QemuInstall | None:
    """qemu-system-x86_64 from PATH when it is >= 10.1 and has vfio-user-pci, else None."""
    path = shutil.which("qemu-system-x86_64")
    if path is None:
        return None
    said = process.run([path, "--version"], check=False, timeout_s=30).out
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM:
        return None
    devices = process.run([path, "-device", "help"], check=False, timeout_s=30).out
    if '"vfio-user-pci"' not in devices:
        return None
    return QemuInstall((path,), (), ".".join(match.groups()), "system")
