# SPDX-License-Identifier: GPL-2.0-only
"""What the user asked a run to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.model.kernel import Role, SourceSpec
from harness.model.lab import LabSpec
from harness.model.plan import Plan, Topology


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `run`, resolved. jobs: parallel compilers. keep: leave the machines up."""

    plan: Plan
    plan_text: str
    plan_file: str
    topology: Topology
    source: SourceSpec
    extra_series: tuple[tuple[Role, Path], ...]
    without_builtin: frozenset[Role]
    expression: str
    runs_dir: Path
    cache: Path
    jobs: int
    keep: bool
    command: tuple[str, ...]  # the command line, for the record and the reproducer
    baseline: str = ""  # the run to compare with, by name or directory; "": the last of its kind
    lab: LabSpec | None = None  # takes the place of the VM of its role
    pins: tuple[tuple[str, str], ...] = ()  # of the run to be reproduced (core/pins.py)
    allow_differences: bool = False  # from these pins

    @property
    def roles(self) -> tuple[Role, ...]:
        """The kernels to build, in order: the host's only in pair."""
        return (Role.GUEST,) if self.topology is Topology.SOLO else (Role.HOST, Role.GUEST)
