# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness doctor`: what this machine has and lacks, and the command that mends it."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import layout
from harness.adapters import system_packages, system_qemu
from harness.terminal import TerminalProgress

_DISK_GB = 12  # source, two warm trees, ccache, builds, root file systems
_TEMPORARY_GB = 2  # a root file system being made; what VMs write to their disks
_MEMORY_GB = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. state: "ok", "note" (works, but ...) or "missing"."""

    state: str
    what: str
    mend: str = ""


def examine(*, install: bool, quiet: bool) -> int:
    """Print the findings; 0 when nothing is missing, else 2."""
    requirements = system_packages.load(layout.CONFIGS / "requirements.toml")
    if install:
        system_packages.ensure(requirements, TerminalProgress())
    findings = [
        *_programs(requirements),
        _disk(),
        _temporary(),
        _memory(),
        _kvm(),
        _qemu(),
        _user(),
    ]
    for finding in findings:
        if quiet and finding.state == "ok":
            continue
        print(f"{finding.state:8} {finding.what}")
        if finding.mend:
            print(f"{'':8} mend: {finding.mend}")
    return 2 if any(finding.state == "missing" for finding in findings) else 0


def _programs(requirements: tuple[system_packages.Requirement, ...]) -> list[Finding]:
    found = []
    for requirement in requirements:
        where = requirement.found()
        if where:
            found.append(Finding("ok", f"{requirement.name}: {where}"))
        else:
            command = shlex.join(system_packages.install_command([requirement.package]))
            what = f"{requirement.name} (package {requirement.package}): {requirement.why}"
            found.append(Finding("missing", what, command))
    return found


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _disk() -> Finding:
    cache = layout.cache_directory()
    free = shutil.disk_usage(_existing(cache)).free / 1e9
    what = f"disk: {free:.0f} GB free for {cache} (a first run takes about {_DISK_GB} GB)"
    if free >= _DISK_GB or cache.exists():
        return Finding("ok" if free >= _DISK_GB else "note", what)
    return Finding("missing", what, f"export {layout.CACHE_VARIABLE}=DIRECTORY-ON-A-LARGER-DISK")


def _temporary() -> Finding:
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free / 1e9
    what = (
        f"disk: {free:.0f} GB free for temporary files in {place} ({_TEMPORARY_GB} GB are wanted)"
    )
    if free >= _TEMPORARY_GB:
        return Finding("ok", what)
    return Finding("note", what, "export TMPDIR=DIRECTORY-ON-A-LARGER-DISK")


def _memory() -> Finding:
    total = psutil.virtual_memory().total / 1e9
    what = f"memory: {total:.0f} GB, {os.cpu_count()} CPUs (machines use up to 3 GiB)"
    return Finding("ok" if total >= _MEMORY_GB else "note", what)


def _kvm() -> Finding:
    node = Path("/dev/kvm")
    if os.access(node, os.R_OK | os.W_OK):
        return Finding("ok", "/dev/kvm is accessible; `run` boots a kernel to see whether it works")
    if node.exists():
        return Finding("note", "/dev/kvm: no permission; TCG is used", "sudo adduser $USER kvm")
    return Finding("note", "no /dev/kvm: TCG (emulation) is used, about ten times slower")


def _qemu() -> Finding:
    system = system_qemu.find()
    if system is not None:
        return Finding("ok", f"QEMU {system.version} of the system has vfio-user")
    return Finding("ok", "QEMU: the system's is absent or older than 10.1; `run` provisions one")


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding("ok", "running as root")
    try:
        return ranges(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        return Finding("missing", f"a name for the user id {os.geteuid()}, e.g. in /etc/passwd")


def ranges(user: str, etc: Path = Path("/etc")) -> Finding:
    """Whether the user has subordinate ids, which a user namespace maps."""
    lacking = [kind for kind in ("subuid", "subgid") if not _has_line(etc / kind, f"{user}:")]
    if not lacking:
        return Finding("ok", "not root: root file systems are made in a user namespace")
    options = " ".join(f"--add-{kind}s 100000-165535" for kind in lacking)
    return Finding(
        "missing",
        f"subordinate ids of {user}, to make root file systems without being root",
        f"sudo usermod {options} {user}",
    )


def _has_line(path: Path, start: str) -> bool:
    try:
        return any(line.startswith(start) for line in path.read_text().splitlines())
    except OSError:
        return False
