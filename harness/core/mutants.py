# SPDX-License-Identifier: GPL-2.0-only
"""Mutants of our series: patches that each break one thing, and the tests that must notice.

A mutant is a patch as `git format-patch` writes it. Its message names the tests, a line each:

    Caught-by: tsm:dma_matrix.trusted.private model-A
    Caught-by: tsm:races
    Caught-by: host:tsm:tsm_link.link.connect_twice model-B+host-binds+pair

The words are the role whose kernel is mutated (left out: guest), collection:program, the case
after a dot (it may hold * and ?; left out: any failure of the program), and the cell of the plan's
matrix (left out: the plan's own settings, or no platform where the plan runs the program without
one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from harness.core.plan import matrix, names_test
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.plan import Plan, RepeatPolicy, TestSelection
from harness.model.platform import PlatformCell, PlatformPlan
from harness.model.results import Outcome, RunResult, TestResult

_TRAILER = re.compile(r"^Caught-by:(.*)$", re.MULTILINE | re.IGNORECASE)
_WORDS = re.compile(
    r"(?:(?P<role>host|guest):)?(?P<collection>[\w-]+):(?P<program>[\w-]+(?:\.sh)?)(?:\.(?P<case>\S+))?"
    r"(?:\s+(?P<cell>model-\S+))?"
)
_END_OF_MESSAGE = re.compile(r"^(?:---$|diff --git )", re.MULTILINE)
_DEAD = (Outcome.CRASH, Outcome.TIMEOUT)
_NO_ANSWER = (Outcome.INFRA, Outcome.MISSING, Outcome.SKIP)
# failures of a whole run after which no test could say anything
_BROKEN = ("patch", "config", "build", "boot")


@dataclass(frozen=True, slots=True)
class CaughtBy:
    """A test that must catch a mutant. case: a pattern, "" for any failure of the program."""

    collection: str
    program: str
    case: str = ""
    cell: str = ""  # "" for the plan's own settings
    role: Role = Role.GUEST

    def __str__(self) -> str:
        name = f"{self.collection}:{self.program}"
        name = f"{self.role}:{name}" if self.role is Role.HOST else name
        name += f".{self.case}" if self.case else ""
        return f"{name} {self.cell}" if self.cell else name


@dataclass(frozen=True, slots=True)
class Mutant:
    """name: of the file, without .patch. where: the file, for messages and for `git am`."""

    name: str
    subject: str
    where: str
    caught_by: tuple[CaughtBy, ...]

    @property
    def role(self) -> Role:
        """Whose kernel it is for: that of all its tests."""
        return self.caught_by[0].role

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.caught_by)])


class State(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # every test that must catch it did
    SURVIVED = "survived"
    BROKEN = "broken"  # does not apply, build or boot: proves nothing about the tests
    INFRA = "infra"  # nothing was found out


@dataclass(frozen=True, slots=True)
class Finding:
    """A mutant's state. notes: a sentence per test, or why it is broken."""

    state: State
    notes: tuple[str, ...]


def parse_mutant(text: str, subject: str, name: str, where: str) -> Mutant:
    """text: the whole patch file. UserError when no test is named, or a line cannot be read."""
    end = _END_OF_MESSAGE.search(text)
    message = text[: end.start()] if end else text
    named = []
    for line in _TRAILER.findall(message):
        words = _WORDS.fullmatch(line.strip())
        if words is None:
            raise UserError(
                f"{where}: Caught-by:{line}: cannot be read",
                hint="Caught-by: collection:program[.case] [model-A], see core/mutants.py",
            )
        found = {key: value or "" for key, value in words.groupdict().items()}
        role = Role(found.pop("role") or Role.GUEST)
        named.append(CaughtBy(**found, role=role))
    if not named:
        raise UserError(
            f"{where}: no Caught-by line in its message",
            hint="e.g. Caught-by: tsm:dma_matrix.trusted.private",
        )
    if len({one.role for one in named}) > 1:
        raise UserError(
            f"{where}: Caught-by lines of both roles",
            hint="a mutant is of one kernel: make two of it",
        )
    return Mutant(name, subject, where, tuple(dict.fromkeys(named)))


def plan_for(plan: Plan, wanted: Iterable[CaughtBy], name: str) -> Plan:
    """The plan with only what is wanted, once, and under another name.

    UserError for a program or a cell that the plan does not have.
    """
    selections: list[TestSelection] = []
    for one in dict.fromkeys(replace(entry, case="") for entry in wanted):
        base = _selection(plan, one)
        cell = _cell(plan, one) if plan.platform is not None and base.on_platform else None
        axes = _axes_of(cell) if cell is not None else ()
        selections.append(replace(base, tests=(one.program,), axes=axes, known=()))
    platform = PlatformPlan(plan.platform.base) if plan.platform is not None else None
    return replace(
        plan,
        name=name,
        selections=tuple(selections),
        platform=platform,
        repeats=RepeatPolicy(0, 1),
    )


def _selection(plan: Plan, wanted: CaughtBy) -> TestSelection:
    """The first entry that has the program; one with a platform when a cell is wanted."""
    for selection in plan.selections:
        if wanted.cell and plan.platform is not None and not selection.on_platform:
            continue
        here = (selection.role, selection.collection) == (wanted.role, wanted.collection)
        if here and names_test(selection, wanted.program):
            return selection
    raise UserError(f"Caught-by: {wanted}: plan {plan.name} has no such test for the {wanted.role}")


def _cell(plan: Plan, wanted: CaughtBy) -> PlatformCell:
    assert plan.platform is not None
    if not wanted.cell:
        return plan.platform.base
    known = {
        cell.name: cell
        for selection in plan.selections
        for cell in (plan.platform.base, *matrix(plan, selection))
        if cell is not None
    }
    if wanted.cell not in known:
        raise UserError(
            f"Caught-by: {wanted}: plan {plan.name} has no such cell",
            hint=f"there are: {', '.join(known)}",
        )
    return known[wanted.cell]


def _axes_of(cell: PlatformCell) -> tuple[tuple[str, tuple[str | int, ...]], ...]:
    return (
        ("model", (cell.model,)),
        ("vtom", (cell.vtom,)),
        ("locked_t0", (cell.locked_t0,)),
        ("bme_clear", (cell.bme_clear,)),
        ("c_bit", (cell.c_bit,)),
        ("tdis", (cell.tdis,)),
        *((("binds", (cell.binds,)),) if cell.by_host else ()),
    )


def baseline_faults(wanted: Iterable[CaughtBy], result: RunResult) -> tuple[str, ...]:
    """Why tests cannot judge mutants: without a mutant each has to pass, its case included."""
    if result.failures and not result.tests:
        return tuple(failure.message.splitlines()[0] for failure in result.failures)
    said = []
    for one in dict.fromkeys(wanted):
        for test in _results(one, result):
            if test.outcome not in (Outcome.PASS, Outcome.XFAIL):
                said.append(f"{one}: {_outcome(test)} without any mutant")
            elif one.case and not any(
                outcome is Outcome.PASS for outcome in _case_outcomes(one, test)
            ):
                said.append(f"{one}: no such case passes without any mutant")
        if not _results(one, result):
            said.append(f"{one}: gave no result without any mutant")
    return tuple(said)


def judge(mutant: Mutant, result: RunResult) -> Finding:
    """A mutant's state, from the run of the tests that it names."""
    broken = [f.message.splitlines()[0] for f in result.failures if f.kind in _BROKEN]
    if broken:
        return Finding(State.BROKEN, tuple(broken))
    notes, missed, unanswered = [], False, False
    for one in mutant.caught_by:
        tests = _results(one, result)
        if any(_catches(one, test) for test in tests):
            notes.append(f"caught by {one}")
        elif not tests or all(test.outcome in _NO_ANSWER for test in tests):
            unanswered = True
            said = "; ".join(_outcome(test) for test in tests) or "no result"
            notes.append(f"not answered by {one}: {said}")
        else:
            missed = True
            notes.append(f"missed by {one}: {'; '.join(_outcome(test) for test in tests)}")
    state = State.SURVIVED if missed else State.INFRA if unanswered else State.KILLED
    return Finding(state, tuple(notes))


def exit_code(findings: Sequence[Finding]) -> int:
    """0 only when all were killed; a survivor outweighs what could not be found out."""
    states = {finding.state for finding in findings}
    if states & {State.SURVIVED, State.BROKEN}:
        return 1
    return 2 if State.INFRA in states or not findings else 0


def _results(one: CaughtBy, result: RunResult) -> list[TestResult]:
    """A run of plan_for() has each program once per cell that was named."""
    return [
        test
        for test in result.tests
        if (test.role, test.collection, test.test) == (one.role, one.collection, one.program)
        and (not one.cell or test.cell == one.cell)
    ]


def _catches(one: CaughtBy, test: TestResult) -> bool:
    if test.outcome.good or test.outcome in _NO_ANSWER:
        return False
    if not one.case or test.outcome in _DEAD:
        return True
    bad = any(not outcome.good for outcome in _case_outcomes(one, test))
    return bad or _outside_of_cases(test)


def _outside_of_cases(test: TestResult) -> bool:
    """The platform or the kernel's console failed a program whose cases are all good."""
    return not test.outcome.good and all(sub.outcome.good for sub in test.subtests)


def _case_outcomes(one: CaughtBy, test: TestResult) -> list[Outcome]:
    return [sub.outcome for sub in test.subtests if fnmatchcase(".".join(sub.name), one.case)]


def _outcome(test: TestResult) -> str:
    where = f" in {test.cell}" if test.cell else ""
    reason = f" ({test.reason})" if test.reason else ""
    return f"{test.outcome.value}{where}{reason}"
