# SPDX-License-Identifier: GPL-2.0-only
"""Plans: what a run does."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from harness.model.kernel import Role
from harness.model.platform import NOTHING_EXPECTED, Expectation, PlatformPlan


class Topology(StrEnum):
    """solo: the controller drives a guest VM. pair: a host machine, and the guest VM on it."""

    SOLO = "solo"
    PAIR = "pair"


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """An announced failure. pattern: of "test:subtest"; until: the last day it is excused."""

    pattern: str
    reason: str
    until: datetime.date | None = None  # None: without end


@dataclass(frozen=True, slots=True)
class TestSelection:
    """Tests of one kselftest collection to run in one role."""

    __test__: ClassVar[bool] = False  # pytest: not a test class

    role: Role
    collection: str
    tests: tuple[str, ...]  # names or patterns; "!pattern" leaves out
    skip: tuple[tuple[str, str], ...]  # (name, reason): left out, and reported as skipped
    timeout_s: float  # per test, on a machine of reference speed
    known: tuple[KnownFailure, ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()  # set on the machine before each of these tests
    solo: bool = False  # in a VM of the controller, also in a pair
    on_platform: bool = True  # False: without the plan's platform
    axes: tuple[tuple[str, tuple[str | int, ...]], ...] = ()  # of the platform, for these tests
    expect: Expectation = NOTHING_EXPECTED  # what these tests must show: a negative control


@dataclass(frozen=True, slots=True)
class VmSize:
    memory_mib: int
    cpus: int


@dataclass(frozen=True, slots=True)
class RepeatPolicy:
    """How often a test is tried again, each time on a fresh machine.

    repeat: after a failure. infra_retries: after an infrastructure failure, counted apart.
    """

    repeat: int = 1
    infra_retries: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan file."""

    name: str
    title: str
    topology: Topology
    package: str  # source package when neither --tree nor --tarball is given
    debug: bool  # merge configs/kernel/debug.config
    host: VmSize
    guest: VmSize
    selections: tuple[TestSelection, ...]
    repeats: RepeatPolicy = RepeatPolicy()
    flaky_passes: bool = False  # a test that failed and passed when repeated fails no run
    platform: PlatformPlan | None = None  # the emulated platform
    options: tuple[tuple[Role, str, str], ...] = ()  # (role, symbol, value): CONFIG_symbol=value
    notes: tuple[str, ...] = ()  # sentences that a reader of the report should know

    @property
    def collections(self) -> tuple[str, ...]:
        """All collections to build, in order of first mention."""
        return tuple(dict.fromkeys(selection.collection for selection in self.selections))


@dataclass(frozen=True, slots=True)
class TestId:
    """One kselftest program to run. cell: of the platform's matrix, "" without a platform.

    The cell also tells where a guest runs: PlatformCell.nested.
    """

    __test__: ClassVar[bool] = False

    role: Role
    collection: str
    test: str
    cell: str = ""

    def __str__(self) -> str:
        name = f"{self.role}:{self.collection}:{self.test}"
        return f"{name}@{self.cell}" if self.cell else name
