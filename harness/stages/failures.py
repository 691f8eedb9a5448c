# SPDX-License-Identifier: GPL-2.0-only
"""Errors as records of the result."""

from __future__ import annotations

import traceback

from harness.errors import (
    BuildError,
    ConfigError,
    HarnessError,
    KernelError,
    PatchError,
    UserError,
)
from harness.model.kernel import ConfigProof, PatchReport
from harness.model.machine import BootFailure
from harness.model.results import Failure


def from_error(exc: HarnessError) -> Failure:
    """The record of an error. A kernel that does not come up is "boot", not "infra"."""
    kind, role, excerpt = _classify(exc)
    return Failure(
        kind=kind,
        role=role,
        message=headline(exc, role) if isinstance(exc.detail, BootFailure) else exc.message,
        hint=exc.hint,
        command=exc.command,
        log=str(exc.log or ""),
        excerpt=excerpt,
    )


def headline(exc: HarnessError, role: str) -> str:
    """The message of a boot that failed, without the end of the console, which the excerpt holds,
    and without the name in front of it, which a kernel's role repeats.
    """
    first = exc.message.partition("\n")[0]
    return first.removeprefix(f"{role}: ") if isinstance(exc, KernelError) else first


def _classify(exc: HarnessError) -> tuple[str, str, str]:
    detail = exc.detail
    if isinstance(exc, PatchError):
        report = detail if isinstance(detail, PatchReport) else None
        return "patch", report.role if report else "", render_patch_report(report)
    if isinstance(exc, ConfigError):
        return "config", detail.role if isinstance(detail, ConfigProof) else "", ""
    if isinstance(exc, BuildError):
        return "build", "", ""
    if isinstance(detail, BootFailure):
        # a KernelError here is about a kernel under test, a MachineError about the machine
        kind = "boot" if isinstance(exc, KernelError) else "infra"
        return kind, detail.machine, detail.console_tail
    return ("user" if isinstance(exc, UserError) else "infra"), "", ""


def render_patch_report(report: PatchReport | None) -> str:
    """The patch report as text: what applied before, which hunks found no place."""
    if report is None:
        return ""
    lines = [
        f"series:  {report.series}",
        f"patch:   {report.patch}: {report.subject}",
        f"base:    {report.base}",
        *(f"applied: {name}" for name in report.applied or ("nothing before it",)),
        *(f"failed:  {h.file} hunk {h.hunk} at line {h.line}: {h.reason}" for h in report.failed),
        f"repeat:  {report.command}",
        "",
        report.output,
    ]
    return "\n".join(lines)


def interrupted() -> Failure:
    return Failure("interrupted", "", "interrupted by a signal", hint="what was found is kept")


def defect(exc: Exception) -> Failure:
    """The record of an exception that nobody foresaw: no statement about the kernel."""
    lines = traceback.format_exception(exc)
    return Failure(
        kind="infra",
        role="",
        message=f"a defect of the harness: {type(exc).__name__}: {exc}",
        hint="what was found before it is kept",
        excerpt="".join(lines),
    )
