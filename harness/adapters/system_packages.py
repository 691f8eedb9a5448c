# SPDX-License-Identifier: GPL-2.0-only
"""What the system has, and installing what it lacks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.adapters import process
from harness.errors import InfraError, UserError
from harness.model.progress import Progress

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of configs/requirements.toml; program or header is set, not both.

    without_root: only who is not root needs it.
    """

    package: str
    why: str
    program: str = ""
    header: str = ""
    without_root: bool = False

    @property
    def name(self) -> str:
        return self.program or self.header

    def found(self) -> str:
        """Where it is, "" when it is missing."""
        if self.program:
            path = os.environ.get("PATH", os.defpath)
            return shutil.which(self.program, path=f"{path}:{_SBIN}") or ""
        roots = (Path("/"), Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
        paths = [root / self.header.lstrip("/") for root in roots]
        return next((str(path) for path in paths if path.exists()), "")


def load(path: Path) -> tuple[Requirement, ...]:
    """What this user needs."""
    try:
        entries = tomllib.loads(path.read_text())["requirement"]
        found = tuple(Requirement(**entry) for entry in entries)
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as exc:
        raise UserError(f"{path}: {exc}") from exc
    return tuple(one for one in found if not one.without_root or os.geteuid() != 0)


def missing(requirements: Sequence[Requirement]) -> tuple[Requirement, ...]:
    return tuple(requirement for requirement in requirements if not requirement.found())


def install_command(packages: Sequence[str]) -> list[str]:
    """The command that installs packages here: plain for root, else through sudo."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(set(packages))]
    return command if os.geteuid() == 0 else ["sudo", *command]


def ensure(requirements: Sequence[Requirement], progress: Progress) -> None:
    """Install what is missing, after saying what; UserError when that is not possible."""
    packages = sorted({requirement.package for requirement in missing(requirements)})
    if not packages:
        return
    command = install_command(packages)
    by_hand = shlex.join(command)
    if os.geteuid() != 0 and not _sudo_works():
        raise UserError(
            f"missing packages: {' '.join(packages)}",
            hint="not root, and sudo does not work without a password here",
            command=by_hand,
        )
    size = _download_size(packages)
    progress.say(f"installing missing system packages{size}: {by_hand}")
    prefix = command[: command.index("apt-get")]
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    command += ["-o", "DPkg::Lock::Timeout=300"]  # another run, or the machine, may be installing
    done = process.run(command, env=environment, check=False, timeout_s=1800)
    if done.returncode != 0:  # the lists may be absent (a fresh container) or old
        process.run([*prefix, "apt-get", "update"], env=environment, timeout_s=600, check=False)
        process.run(command, env=environment, timeout_s=1800, what="apt-get install")
    still = missing(requirements)
    if still:
        names = ", ".join(f"{item.name} ({item.package})" for item in still)
        raise InfraError(f"still missing after installation: {names}", command=by_hand)


def _download_size(packages: Sequence[str]) -> str:
    """ " (12 MB to download)", "" when apt has no package lists yet."""
    argv = ["apt-get", "install", "--print-uris", "-qq", "--no-install-recommends", *packages]
    said = process.run(argv, env={"LC_ALL": "C.UTF-8"}, check=False, timeout_s=60).out
    sizes = re.findall(r"^'[^']*' \S+ (\d+) ", said, re.MULTILINE)
    mb = sum(map(int, sizes)) / 1e6
    return f" ({mb:.{0 if mb >= 10 else 1}f} MB to download)" if sizes else ""


def _sudo_works() -> bool:
    if shutil.which("sudo") is None:
        return False
    return process.run(["sudo", "-n", "true"], check=False, timeout_s=10).returncode == 0
