# SPDX-License-Identifier: GPL-2.0-only
"""A fleet that boots nothing: tests put stand-ins in the place of its machines."""

from __future__ import annotations

from pathlib import Path
from typing import Self, cast

from harness import layout
from harness.adapters.live import LiveRecord
from harness.core.splat_rules import load_rules
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, QemuInstall
from harness.model.progress import SilentProgress
from harness.stages.fleet import Fleet
from harness.stages.provision import Provisions
from harness.stages.run import MainJob


class BareFleet(Fleet):
    def _probe(self) -> Accel:
        return Accel("tcg", "nothing is booted here")

    @classmethod
    def of(cls, job: MainJob, build: object, cache: Path) -> Self:
        """build: what stands for the kernels of both roles."""
        kernel = cast(KernelBuild, build)
        return cls(
            job._options,
            {Role.HOST: kernel, Role.GUEST: kernel},
            cast(Provisions, _Provided()),
            job.recorder,
            SilentProgress(),
            rules=load_rules((layout.CONFIGS / "splat_rules.toml").read_text()),
            live=LiveRecord(cache, "test"),
        )


class _Provided:
    qemu = QemuInstall(("qemu",), (), "11", "cache")
