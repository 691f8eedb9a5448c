# SPDX-License-Identifier: GPL-2.0-only
"""The exceptions of the harness.

    HarnessError              message, hint, command to repeat by hand, log path
    ├── UserError             exit 64: bad option, file, key or value given by the user
    ├── InfraError            exit 2: the surroundings failed; no statement about the kernel
    │   ├── NetworkError      a download or a connection to a package mirror failed
    │   ├── StorageError      disk full, cache entry unusable, permission denied
    │   │   └── DamagedSourceError  a pristine kernel tree in the cache was altered
    │   └── MachineError      a machine or the connection to it failed
    └── KernelError           exit 1: the kernel under test is at fault; recorded as a result
        ├── PatchError        a series does not apply; carries a PatchReport
        ├── ConfigError       a requested option did not stick; carries a ConfigProof
        └── BuildError        the kernel or its selftests do not compile; carries the first error

A kernel that does not boot or splats is a *result*, not an exception: see model.results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar


class HarnessError(Exception):
    """Base of all errors that the harness raises on purpose.

    message: names the file and key, e.g. "configs/labs/a.toml: machines.spr1.ssh: host missing".
    hint: what to do about it. command: a shell command that repeats the failing step by hand.
    log: file holding the full output.
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        command: str = "",
        log: Path | None = None,
        detail: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = command
        self.log = log
        self.detail = detail

    def render(self) -> str:
        """The error as several lines for a person."""
        lines = [self.message]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        if self.log is not None:
            lines.append(f"log: {self.log}")
        if self.command:
            lines.append(f"repeat by hand: {self.command}")
        return "\n".join(lines)


class UserError(HarnessError):
    """Usage or configuration error."""

    exit_code = 64


class InfraError(HarnessError):
    """An infrastructure failure: never counts as a test result."""

    exit_code = 2


class NetworkError(InfraError):
    """A download or a mirror failed."""


class StorageError(InfraError):
    """Disk full, unusable cache entry, permission denied."""


class DamagedSourceError(StorageError):
    """A pristine kernel tree of the cache is not what was unpacked."""


class MachineError(InfraError):
    """A machine, or the connection to it, failed."""


class KernelError(HarnessError):
    """The kernel, series or configuration under test is at fault."""

    exit_code = 1


class PatchError(KernelError):
    """A series does not apply. detail: model.kernel.PatchReport."""


class ConfigError(KernelError):
    """A requested Kconfig option did not stick. detail: model.kernel.ConfigProof."""


class BuildError(KernelError):
    """The kernel or the kselftests do not compile. detail: model.kernel.CompilerMessage | None."""


def cause(exc: Exception) -> str:
    """What an exception says for a message that names the file itself: no number, no path again."""
    return getattr(exc, "strerror", None) or str(exc)
