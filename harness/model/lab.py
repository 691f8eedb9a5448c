# SPDX-License-Identifier: GPL-2.0-only
"""Lab machines: what an inventory says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.model.kernel import Role


@dataclass(frozen=True, slots=True)
class LabSsh:
    """How to log in. host_key: "TYPE BASE64", as `ssh-keyscan` prints it after the name."""

    host: str
    host_key: str
    key: Path
    port: int = 22
    user: str = "root"


@dataclass(frozen=True, slots=True)
class LabSpec:
    """One lab machine. Commands are lists, run on the controller without a shell.

    console: prints the serial console until ended; () follows the kernel log over SSH instead.
    power_cycle: switches the machine off and on; () makes a restart a `reboot` over SSH.
    append: added to the command line of the machine's own kernel for a deployed one.
    fragment: kernel configuration with the drivers that the machine needs, if any.
    """

    name: str
    role: Role
    ssh: LabSsh
    console: tuple[str, ...] = ()
    power_cycle: tuple[str, ...] = ()
    append: str = ""
    boot_limit_s: float = 900.0
    fragment: Path | None = None
