# SPDX-License-Identifier: GPL-2.0-only
"""The verb `patchcheck`: is every single patch of a series fit to be sent?

Each patch applies with git am to what is before it, checkpatch has nothing to say about it, and
with `build` the directories of the series compile after each patch, with W=1 and without a warning
that was not there before. The trees are apart from those of runs; each step changes only the files
of one patch, so that make compiles only what the patch changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from filelock import FileLock

from harness import layout
from harness.adapters.checkpatch import checkpatch
from harness.core.mailbox import to_bytes
from harness.core.patchcheck import (
    IGNORED,
    Checked,
    Kind,
    Remark,
    built_later,
    defined_later,
    exit_code,
    parse_checkpatch,
    render,
    starts_at,
)
from harness.core.series import SeriesInput
from harness.errors import PatchError, StorageError
from harness.model.kernel import Patch, PatchedTree, PatchReport, Role, SourceTree
from harness.model.options import RunOptions
from harness.model.progress import Progress
from harness.report import atomic
from harness.stages import patch as patching
from harness.stages import source
from harness.stages.kernels import fragments, load_series
from harness.stages.patchbuild import SeriesBuild

SUMMARY = "patchcheck.json"
WORK = "patchcheck"  # below the cache
_EXTRA = "patchcheck"  # the fragment with what no plan needs


@dataclass(frozen=True, slots=True)
class _Work:
    """The series of one role, and what they are for."""

    role: Role
    tree: SourceTree
    series: Sequence[SeriesInput]

    @property
    def patches(self) -> tuple[Patch, ...]:
        return _patches(self.series)

    def first(self, count: int) -> tuple[SeriesInput, ...]:
        """The series with no more than their first `count` patches in all."""
        found = []
        for one in self.series:
            taken = one.patches[:count]
            count -= len(taken)
            if taken:
                found.append(replace(one, patches=taken))
        return tuple(found)


class PatchCheck:
    """One run of the verb. start: what --from names, with one role only."""

    def __init__(
        self,
        options: RunOptions,
        roles: Sequence[Role],
        progress: Progress,
        *,
        build: bool = False,
        start: str = "",
    ) -> None:
        self._options = options
        self._roles = roles
        self._progress = progress
        self._build = build
        self._start = start
        self._checked: list[Checked] = []
        self._complete = False
        self._place = options.cache / WORK
        now = datetime.now(UTC)
        self.directory = options.runs_dir / f"{now:%Y%m%dT%H%M%S.%fZ}-patchcheck"

    def execute(self) -> int:
        """Look at every patch; the exit code. patchcheck.json holds what is known so far."""
        # a mistake in a series or in --from must be told before anything is unpacked
        loaded = {role: load_series(role, self._options) for role in self._roles}
        starts = {role: starts_at(_patches(series), self._start) for role, series in loaded.items()}
        try:
            (self.directory / "patches").mkdir(parents=True)
        except OSError as exc:
            raise StorageError(
                f"{self.directory}: {exc.strerror}", hint="name another directory with --runs-dir"
            ) from exc
        tree = source.fetch(self._options.source, self._options.cache, self._progress)
        for role, series in loaded.items():
            self._role(_Work(role, tree, series), starts[role])
        self._complete = True
        self._write()
        return exit_code(self._checked, self._complete)

    def _role(self, work: _Work, start: int) -> None:
        first, role = len(self._checked), work.role.value
        self._place.mkdir(parents=True, exist_ok=True)
        with FileLock(self._place / f".{role}.lock"):
            builder = self._builder(work, start)
            refused = {} if builder else self._refused(work)
            styles = self._styles(work, start)
            for number in range(start, len(work.patches)):
                patch = work.patches[number]
                count = f"{number + 1}/{len(work.patches)}"
                self._progress.say(f"{role} {count}: {_series(patch)}/{patch.name}")
                done = next(styles)
                if builder is not None:
                    done = self._compiled(builder, done, work, number)
                done = replace(done, remarks=(*refused.get(number, ()), *done.remarks))
                self._checked.append(done)
                self._write()
                if any(remark.kind is Kind.APPLY for remark in done.remarks):
                    break  # nothing can be said about those after it
            if builder is not None:
                self._symbols(builder, first)
                self._checked[first:] = built_later(self._checked[first:], builder.built)

    def _builder(self, work: _Work, start: int) -> SeriesBuild | None:
        """With --build: the build of what is before the first patch."""
        if not self._build or start >= len(work.patches):
            return None
        own = layout.KSELFTESTS / "tsm"
        builder = SeriesBuild(
            work.patches,
            (
                *fragments(work.role, self._options.plan.debug),
                *(own / name for name in ("config", f"config.{work.role.value}")),
                layout.KERNEL_CONFIGS / f"{_EXTRA}.config",
            ),
            self._options,
            self.directory / f"build-{work.role.value}.log",
        )
        builder.baseline(self._applied(work, start))
        return builder

    def _applied(self, work: _Work, count: int) -> PatchedTree:
        """The role's tree with the first `count` patches."""
        series = work.first(count)
        return patching.apply(work.role, work.tree, series, {}, self._place, self._progress)

    def _refused(self, work: _Work) -> Mapping[int, tuple[Remark, ...]]:
        """Index of the patch that does not apply, if there is one -> why."""
        try:
            patching.applies(work.role, work.tree, work.series, self.directory, self._progress)
        except PatchError as exc:
            report = exc.detail
            at = len(report.applied) if isinstance(report, PatchReport) else 0
            return {at: _refusal(exc)}
        return {}

    def _styles(self, work: _Work, start: int) -> Iterator[Checked]:
        """What checkpatch says, patch by patch; side by side when nothing else wants the CPUs."""
        numbers = range(start, len(work.patches))
        if self._build:
            yield from (self._style(work, number) for number in numbers)
            return
        with ThreadPoolExecutor(self._options.jobs, "checkpatch") as pool:
            try:
                yield from pool.map(lambda number: self._style(work, number), numbers)
            finally:
                pool.shutdown(cancel_futures=True)

    def _style(self, work: _Work, number: int) -> Checked:
        patch = work.patches[number]
        file = self.directory / "patches" / f"{work.role.value}-{number + 1:04d}.patch"
        file.write_bytes(to_bytes(patch.text))
        done = checkpatch(work.tree.path, file, IGNORED)
        remarks = parse_checkpatch(done.out + done.err, done.returncode, patch.name)
        return Checked(work.role, _series(patch), patch.name, patch.subject, None, remarks)

    def _compiled(self, builder: SeriesBuild, done: Checked, work: _Work, number: int) -> Checked:
        try:
            applied = self._applied(work, number + 1)
        except PatchError as exc:
            return replace(done, remarks=(*_refusal(exc), *done.remarks))
        objects, remarks = builder.after(applied, work.patches[number])
        return replace(done, objects=objects, remarks=(*done.remarks, *remarks))

    def _symbols(self, builder: SeriesBuild, first: int) -> None:
        """Remarks about symbols that only a later patch defines."""
        for at, names in defined_later(builder.unresolved, builder.defined).items():
            # the state before the first patch has no patch to blame
            if at == 0:
                continue
            one = self._checked[first + at - 1]
            remarks = tuple(Remark(Kind.SYMBOL, name) for name in names)
            self._checked[first + at - 1] = replace(one, remarks=(*one.remarks, *remarks))

    def _write(self) -> None:
        record = {
            "complete": self._complete,
            "build": self._build,
            "patches": [asdict(one) for one in self._checked],
        }
        atomic.write_text(self.directory / SUMMARY, json.dumps(record, indent=1) + "\n")

    def render(self) -> str:
        """The result for a terminal."""
        return f"{render(self._checked)}; {self.directory}"


def _patches(series: Sequence[SeriesInput]) -> tuple[Patch, ...]:
    return tuple(patch for one in series for patch in one.patches)


def _series(patch: Patch) -> str:
    """The name of its series without the role's."""
    return patch.series.rpartition("/")[2]


def _refusal(error: PatchError) -> tuple[Remark, ...]:
    report = error.detail
    if isinstance(report, PatchReport) and report.failed:
        return tuple(
            Remark(Kind.APPLY, f"hunk {one.hunk}: {one.reason}", one.file, one.line)
            for one in report.failed
        )
    return (Remark(Kind.APPLY, error.message.splitlines()[0]),)
