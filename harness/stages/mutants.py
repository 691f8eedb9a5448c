# SPDX-License-Identifier: GPL-2.0-only
"""The verb `mutants`: does every mutant of the guest series fail the tests that must notice it?

First the tests run without any mutant: one that does not pass then says nothing afterwards. Each
mutant is applied on top of the series and built incrementally in the guest's warm tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.core.mailbox import to_text
from harness.core.mutants import (
    Finding,
    Mutant,
    State,
    baseline_faults,
    exit_code,
    judge,
    parse_mutant,
    plan_for,
)
from harness.core.select import parse_expression
from harness.core.series import patch_from_file
from harness.errors import StorageError, UserError
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.plan import Topology
from harness.model.progress import Progress
from harness.model.results import RunResult, Verdict
from harness.report import atomic
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
    """All runs of the verb. run: does one run of the main job (tests put theirs in its place)."""

    def __init__(
        self, options: RunOptions, mutants: Sequence[Mutant], progress: Progress, run: Run | None
    ) -> None:
        self._options = replace(options, topology=Topology.SOLO, expression="", keep=False)
        self._mutants = mutants
        self._progress = progress
        self._run: Run = run or (lambda one: MainJob(one, progress).execute())
        now = datetime.now(UTC)
        self.directory = options.runs_dir / f"{now:%Y%m%dT%H%M%S.%fZ}-mutants"
        try:
            self.directory.mkdir(parents=True)
        except OSError as exc:
            raise StorageError(
                f"{self.directory}: {exc.strerror}", hint="name another directory with --runs-dir"
            ) from exc
        self._findings: dict[str, Finding] = {}
        self._faults: tuple[str, ...] = ()
        self._interrupted = False

    def execute(self) -> int:
        """Run everything; the exit code. mutants.json holds what is known at every moment."""
        wanted = [one for mutant in self._mutants for one in mutant.caught_by]
        for mutant in self._mutants:  # a mistake must be told before anything is built
            plan_for(self._options.plan, mutant.caught_by, mutant.name)
        self._progress.say(f"without a mutant: {len(set(wanted))} tests and cases")
        plan = plan_for(self._options.plan, wanted, "mutants-baseline")
        first = self._run(replace(self._options, plan=plan, runs_dir=self.directory / "baseline"))
        self._faults = baseline_faults(wanted, first)
        if self._faults:
            self._write()
            return 2 if first.verdict is Verdict.INFRA else 1
        for number, mutant in enumerate(self._mutants, 1):
            self._progress.say(f"mutant {number} of {len(self._mutants)}: {mutant.name}")
            finding = judge(mutant, self._one(mutant))
            self._findings[mutant.name] = finding
            self._write()
            self._progress.say(f"{finding.state.value}: {mutant.name}")
            if self._interrupted:
                break
        return exit_code([*self._findings.values(), *self._not_run()])

    def _one(self, mutant: Mutant) -> RunResult:
        options = replace(
            self._options,
            plan=plan_for(self._options.plan, mutant.caught_by, f"mutant-{mutant.name}"),
            extra_series=(*self._options.extra_series, (Role.GUEST, Path(mutant.where))),
            runs_dir=self.directory / mutant.name,
        )
        result = self._run(options)
        self._interrupted = any(f.kind == "interrupted" for f in result.failures)
        return result

    def _not_run(self) -> list[Finding]:
        left = len(self._mutants) - len(self._findings)
        return [Finding(State.INFRA, ("not run",))] * left

    def _write(self) -> None:
        record = {
            "baseline": list(self._faults),
            "mutants": [
                {"name": name, "state": finding.state.value, "notes": list(finding.notes)}
                for name, finding in self._findings.items()
            ],
        }
        atomic.write_text(self.directory / SUMMARY, json.dumps(record, indent=1) + "\n")

    def render(self) -> str:
        """The result for a terminal."""
        lines = [f"no test of a mutant: {fault}" for fault in self._faults]
        width = max(len(state.value) for state in State)
        for mutant in self._mutants:
            finding = self._findings.get(mutant.name, Finding(State.INFRA, ("not run",)))
            lines.append(f"{finding.state.value.upper():<{width}}  {mutant.name}: {mutant.subject}")
            lines += [f"{'':<{width}}    {note}" for note in finding.notes]
        killed = sum(f.state is State.KILLED for f in self._findings.values())
        lines.append(f"{killed} of {len(self._mutants)} mutants killed; {self.directory}")
        return "\n".join(lines)
