# SPDX-License-Identifier: GPL-2.0-only
"""Compiling the directories of a series after each of its patches, with W=1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.adapters.checkpatch import drop_stale, symbols
from harness.adapters.kbuild import Kbuild
from harness.core.kbuild_output import KbuildOutput
from harness.core.patchcheck import (
    Kind,
    Remark,
    directories,
    kernel_doc_warning,
    objects_of,
    touches_kconfig,
    undefined,
)
from harness.errors import BuildError, InfraError, StorageError
from harness.model.kernel import Patch, PatchedTree
from harness.model.options import RunOptions
from harness.stages import config

_SEEN = ".harness-w1-warnings.json"
_UNDER_WAY = ".harness-w1-running"
Warned = tuple[str, int, str]  # file, line, text


class SeriesBuild:
    """The warm build of one role's series.

    unresolved, defined: symbols after each state, that before the first patch included.

    A warning is known by its file and text, as its line moves. New is what the state before did
    not have; that is on record in the build directory, since make compiles no object again to
    print its warnings once more.
    """

    def __init__(
        self, patches: Sequence[Patch], fragments: Sequence[Path], options: RunOptions, log: Path
    ) -> None:
        self.log = log
        self.unresolved: list[frozenset[str]] = []
        self.defined: list[frozenset[str]] = []
        self._directories = directories(patches)
        self._fragments = fragments
        self._options = options
        self._config = ""
        self._output = Path()

    def baseline(self, tree: PatchedTree) -> None:
        """The state before the first patch: what it warns about is nobody's fault.

        BuildError when it does not build: nothing could be said about the patches then.
        """
        output = Kbuild(tree.path, Path()).output
        if (output / _UNDER_WAY).exists():
            # a make that was killed may have compiled without its warnings being recorded
            shutil.rmtree(output)
        made, _ = self._make(tree, configure=True)
        if made.errors:
            first = made.errors[0]
            raise BuildError(
                f"{tree.role}: the tree before the first patch does not build: "
                f"{first.file}:{first.line}: {first.text}",
                log=self.log,
                detail=first,
            )

    def after(self, tree: PatchedTree, patch: Patch) -> tuple[int, tuple[Remark, ...]]:
        """How many objects the patch made make compile, and what is wrong with it."""
        try:
            output, fresh = self._make(tree, configure=touches_kconfig(patch))
        except BuildError as exc:  # Kconfig
            return 0, (Remark(Kind.BUILD, exc.message.splitlines()[0]),)
        remarks = [Remark(Kind.BUILD, one.text, one.file, one.line) for one in output.errors]
        remarks += [Remark(Kind.WARNING, text, file, line) for file, line, text in fresh]
        if not output.errors:
            remarks += [
                Remark(Kind.NOT_BUILT, "no object was made of it with these options", path)
                for path in objects_of(patch)
                if (tree.path / path).is_file() and not self.built(path)
            ]
        return output.objects, tuple(remarks)

    def built(self, path: str) -> bool:
        """Whether an object of this source was made so far."""
        return (self._output / path).with_suffix(".o").is_file()

    def _make(self, tree: PatchedTree, *, configure: bool) -> tuple[KbuildOutput, list[Warned]]:
        """Compile; the output, and the warnings that no state before had."""
        kbuild = Kbuild(tree.path, self._options.cache / "ccache", self._options.jobs)
        self._output = kbuild.output
        if configure or not self._config:
            self._config = config.wished(tree, self._fragments, kbuild)
        kbuild.write_config(self._config)
        output = KbuildOutput(str(tree.path), lambda _: None)
        documented: list[Warned] = []

        def line(text: str) -> None:
            if found := kernel_doc_warning(text):
                documented.append((found[0].removeprefix("../"), found[1], found[2]))
            else:
                output.line(text)

        here = [name for name in self._directories if (tree.path / name).is_dir()]
        under_way = kbuild.output / _UNDER_WAY
        under_way.touch()
        drop_stale(kbuild.output, here)
        # -k: the first error must not hide those of other files
        done = kbuild.make(("-k", "W=1", *here), log=self.log, on_line=line)
        command = kbuild.command(done.argv)
        if output.disk_full:
            raise StorageError(f"{kbuild.output}: no space left", log=self.log, command=command)
        if output.killed or done.returncode < 0:
            raise InfraError("the compiler was killed", log=self.log, command=command)
        if done.returncode != 0 and not output.errors:
            raise InfraError("make failed without a message", log=self.log, command=command)
        wanted, defined = undefined(symbols(kbuild.output, here))
        self.unresolved.append(wanted)
        self.defined.append(defined)
        warned = [*((w.file, w.line, w.text) for w in output.warnings), *documented]
        # an error is enough, and the compiler may not have said all it has to say
        failed = {one.file for one in output.errors}
        compiled = output.compiled - {str(Path(file).with_suffix(".o")) for file in failed}
        warned = [one for one in warned if one[0] not in failed]
        fresh = _fresh(tree.path, kbuild.output / _SEEN, warned, compiled)
        under_way.unlink()
        return output, fresh


def _fresh(tree: Path, record: Path, warned: Sequence[Warned], compiled: set[str]) -> list[Warned]:
    """The warnings that are not on record; the record is brought up to date.

    It holds for each file its modification time and texts. What is out of date is dropped: a
    source that was compiled again said all it has to say, a header that changed is another one.
    """
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    now: dict[str, tuple[int, list[str]]] = {}
    for file, (changed, texts) in before.items():
        again = Path(file).suffix in (".c", ".S") and f"{Path(file).with_suffix('.o')}" in compiled
        if not again and _changed(tree / file) == changed:
            now[file] = (changed, texts)
    for file, _, text in warned:
        texts = now.setdefault(file, (_changed(tree / file), []))[1]
        if text not in texts:
            texts.append(text)
    record.write_text(json.dumps(now), encoding="utf-8")
    return [one for one in dict.fromkeys(warned) if one[2] not in before.get(one[0], (0, ()))[1]]


def _changed(path: Path) -> int:
    """When a file was changed, 0 without one."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
