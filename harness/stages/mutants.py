# SPDX-License-Identifier: GPL-2.0-only
"""The verb `mutants`: does every mutant of our series fail the tests that must notice it?

First the tests run without any mutant: one that does not pass then says nothing afterwards. Each
mutant is applied on top of the series of its role and built incrementally in that role's warm tree.
Those of the guest run in solo, those of the host in the pair. What was
found out by the same code stands in mutants.json and is not found out again (--resume).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.core import mutants_record
from harness.core.mailbox import to_text
from harness.core.mutants import (
    CaughtBy,
    Finding,
    Mutant,
    State,
    baseline_faults,
    exit_code,
    judge,
    parse_mutant,
    plan_for,
)
from harness.core.mutants_record import Record
from harness.core.plan import in_topology
from harness.core.select import parse_expression
from harness.core.series import patch_from_file
from harness.errors import StorageError, UserError, cause
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.plan import Topology
from harness.model.progress import Progress
from harness.model.results import RunResult, Verdict
from harness.report import atomic
from harness.stages.mutants_code import code_digest, digest_of
from harness.stages.run import MainJob

SUMMARY = "mutants.json"
Run = Callable[[RunOptions], RunResult]


def load(directory: Path, expression: str) -> tuple[Mutant, ...]:
    """The mutants of a directory, by name. expression: as -k; a word matches a part of the name
    or of a test that has to catch it. UserError when there is none, or one cannot be read.
    """
    wanted = parse_expression(expression) if expression else None
    found = []
    for path in sorted(directory.glob("*.patch")):
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise UserError(f"{path}: {exc.strerror}") from exc
        patch = patch_from_file(data, "mutants", path.name, str(path))
        mutant = parse_mutant(to_text(data), patch.subject, path.stem, str(path))
        if wanted is None or wanted.matches(str(mutant)):
            found.append(mutant)
    if not found:
        what = f"-k {expression!r}: selects no mutant" if expression else "no *.patch in it"
        raise UserError(f"{directory}: {what}")
    return tuple(found)


class MutantJob:
    """All runs of the verb. run: does one run of the main job (tests put theirs in its place).

    resume: the directory of an earlier job, which this one goes on with. UserError when that was
    about other code.
    """

    def __init__(
        self,
        options: RunOptions,
        mutants: Sequence[Mutant],
        progress: Progress,
        run: Run | None,
        resume: Path | None = None,
    ) -> None:
        self._role = _role(mutants)
        topology = Topology.SOLO if self._role is Role.GUEST else Topology.PAIR
        plan = in_topology(options.plan, topology)
        self._options = replace(options, plan=plan, topology=topology, expression="", keep=False)
        self._mutants = mutants
        self._progress = progress
        self._run: Run = run or (lambda one: MainJob(one, progress).execute())
        self._digests = {one.name: digest_of(Path(one.where).read_bytes()) for one in mutants}
        self._record = Record(code_digest(self._options, self._role))
        if resume is not None:
            self.directory = resume
            self._record = _earlier(resume, self._record.code)
        else:
            self.directory = _new_directory(options.runs_dir)
        self._findings: dict[str, Finding] = {}
        for one in mutants:
            known = self._record.killed(one.name, self._digests[one.name])
            if known is not None:
                self._findings[one.name] = known
        self._interrupted = False

    def execute(self) -> int:
        """Run everything; the exit code. mutants.json holds what is known at every moment."""
        for mutant in self._mutants:  # a mistake must be told before anything is built
            plan_for(self._options.plan, mutant.caught_by, mutant.name)
        left = [mutant for mutant in self._mutants if mutant.name not in self._findings]
        code = self._baseline([one for mutant in left for one in mutant.caught_by])
        if code:
            return code
        for number, mutant in enumerate(left, 1):
            self._progress.say(f"mutant {number} of {len(left)}: {mutant.name}")
            finding = judge(mutant, self._one(mutant))
            self._findings[mutant.name] = finding
            self._record.findings[mutant.name] = (self._digests[mutant.name], finding)
            self._write()
            self._progress.say(f"{finding.state.value}: {mutant.name}")
            if self._interrupted:
                break
        return exit_code([*self._findings.values(), *self._not_run()])

    def _baseline(self, wanted: Sequence[CaughtBy]) -> int:
        """Do the tests pass without a mutant? 0, or the exit code of the verb."""
        wanted = [one for one in dict.fromkeys(wanted) if str(one) not in self._record.passed]
        if not wanted:
            return 0
        self._progress.say(f"without a mutant: {len(wanted)} tests and cases")
        plan = plan_for(self._options.plan, wanted, "mutants-baseline")
        first = self._run(replace(self._options, plan=plan, runs_dir=self.directory / "baseline"))
        self._same_source(first)
        self._record.faults = baseline_faults(wanted, first)
        if not self._record.faults:
            self._record.passed.update(map(str, wanted))
        self._write()
        if self._record.faults:
            return 2 if first.verdict is Verdict.INFRA else 1
        return 0

    def _one(self, mutant: Mutant) -> RunResult:
        options = replace(
            self._options,
            plan=plan_for(self._options.plan, mutant.caught_by, f"mutant-{mutant.name}"),
            extra_series=(*self._options.extra_series, (self._role, Path(mutant.where))),
            runs_dir=self.directory / mutant.name,
        )
        result = self._run(options)
        self._same_source(result)
        self._interrupted = any(f.kind == "interrupted" for f in result.failures)
        return result

    def _same_source(self, result: RunResult) -> None:
        """The digest of the code has no kernel source in it, e.g. a branch that has moved."""
        for kernel in result.kernels:
            if self._record.source and kernel.source_id != self._record.source:
                raise _other_code(self.directory, "the kernel's source has changed")
            self._record.source = kernel.source_id

    def _not_run(self) -> list[Finding]:
        left = len(self._mutants) - len(self._findings)
        return [Finding(State.INFRA, ("not run",))] * left

    def _write(self) -> None:
        atomic.write_text(self.directory / SUMMARY, mutants_record.to_text(self._record))

    def render(self) -> str:
        """The result for a terminal."""
        lines = [f"no test of a mutant: {fault}" for fault in self._record.faults]
        width = max(len(state.value) for state in State)
        for mutant in self._mutants:
            finding = self._findings.get(mutant.name, Finding(State.INFRA, ("not run",)))
            lines.append(f"{finding.state.value.upper():<{width}}  {mutant.name}: {mutant.subject}")
            lines += [f"{'':<{width}}    {note}" for note in finding.notes]
        killed = sum(f.state is State.KILLED for f in self._findings.values())
        lines.append(f"{killed} of {len(self._mutants)} mutants killed; {self.directory}")
        return "\n".join(lines)


def _role(mutants: Sequence[Mutant]) -> Role:
    """Of all mutants of a job: their kernels are held against the same code."""
    roles = {mutant.role for mutant in mutants}
    if len(roles) > 1:
        raise UserError(
            "mutants of the host and of the guest: a job is about one of them",
            hint="choose with -k, or keep them in two directories",
        )
    return roles.pop()


def _new_directory(runs_dir: Path) -> Path:
    directory = runs_dir / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-mutants"
    try:
        directory.mkdir(parents=True)
    except OSError as exc:
        raise StorageError(
            f"{directory}: {exc.strerror}", hint="name another directory with --runs-dir"
        ) from exc
    return directory


def _earlier(directory: Path, code: str) -> Record:
    path = directory / SUMMARY
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"--resume: {path}: cannot be read: {cause(exc)}") from exc
    record = mutants_record.from_text(text, str(path))
    if record.code != code:
        raise _other_code(directory, "series, kselftests, configuration or platform have changed")
    return record


def _other_code(directory: Path, what: str) -> UserError:
    return UserError(
        f"{directory / SUMMARY}: {what} since", hint="begin without --resume: one code, one figure"
    )
