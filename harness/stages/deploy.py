# SPDX-License-Identifier: GPL-2.0-only
"""The deploy stage: a built kernel onto a machine; a kernel that fails there is a result."""

from __future__ import annotations

import contextlib

from harness.errors import HarnessError, KernelError
from harness.model.kernel import KernelBuild
from harness.model.machine import BootFailure, Machine
from harness.model.progress import Progress
from harness.model.results import Failure
from harness.stages.failures import headline


def deploy_kernel(machine: Machine, build: KernelBuild, progress: Progress) -> Failure | None:
    """Deploy; None when the kernel runs, else why it does not (kind "boot").

    The machine is brought back to its own kernel after a failure, if that can be done. Failures of
    the surroundings stay exceptions (InfraError).
    """
    progress.stage("deploy", f"{build.release} to {machine.name}")
    try:
        machine.deploy(build)
    except KernelError as exc:
        recover(machine, progress)
        return boot_failure(exc, str(build.role))
    return None


def boot_failure(error: KernelError, role: str) -> Failure:
    """The record of a kernel that did not come up."""
    excerpt = error.detail.console_tail if isinstance(error.detail, BootFailure) else ""
    return Failure(
        kind="boot",
        role=role,
        message=headline(error, role),
        hint=error.hint,
        command=error.command,
        log=str(error.log) if error.log is not None else "",
        excerpt=excerpt,
    )


def recover(machine: Machine, progress: Progress) -> None:
    """Back to the machine's own kernel; a machine for which that fails is left as it is."""
    with contextlib.suppress(HarnessError):
        machine.restart()
        progress.say(f"{machine.name}: back on its own kernel")
