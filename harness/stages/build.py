# SPDX-License-Identifier: GPL-2.0-only
"""Stage build: bzImage, modules and kselftests of one role, from the store when nothing changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.adapters.kbuild import (
    ARCH,
    WARNINGS,
    Kbuild,
    child_cpu_s,
    compiler_identity,
    elf_build_id,
)
from harness.adapters.pack import pack
from harness.adapters.source_cache import require_whole
from harness.adapters.store import ArtifactStore
from harness.core.kbuild_output import KbuildOutput
from harness.core.kconfig import parse_config
from harness.errors import BuildError, InfraError, StorageError
from harness.model.kernel import CompilerMessage, ConfigProof, KernelBuild, PatchedTree
from harness.model.progress import Progress
from harness.stages import first_build

RECIPE = 1  # part of the key: raise it when what an entry holds changes
KIND = "kernel"
_TARGETS = ("bzImage", "modules")
_FIRST_ESTIMATE = 1750  # objects of base.config on Linux 7.3, until a build has been recorded
_FIRST_ESTIMATE_COPIED = 210  # of the guest after the host
_LIST = "kselftest-list.txt"
# modules_install leaves links to the trees, which mean nothing on another machine
_NOT_PACKED = frozenset({"build", "source"})


@dataclass(frozen=True, slots=True)
class _Job:
    """What the steps of one build share."""

    tree: PatchedTree
    kbuild: Kbuild
    progress: Progress
    log: Path
    output: KbuildOutput

    def make(self, targets: Sequence[str], what: str, directory: Path | None = None) -> None:
        """Run make; BuildError with the first error when the sources are at fault."""
        done = self.kbuild.make(
            targets, log=self.log, on_line=self.output.line, directory=directory
        )
        if done.returncode == 0:
            return
        command = self.kbuild.command(done.argv)
        if self.output.disk_full:
            raise StorageError(
                f"{self.kbuild.output}: no space left", log=self.log, command=command
            )
        first = self.output.first_error
        if self.output.killed or done.returncode < 0:
            raise InfraError(
                f"{self.tree.role}: the compiler was killed while building {what}",
                hint="probably out of memory: try fewer --jobs",
                log=self.log,
                command=command,
            )
        said = "no message; see the log" if first is None else _line(first)
        raise BuildError(
            f"{self.tree.role}: {what} does not build: {said}",
            log=self.log,
            command=command,
            detail=first,
        )


def build(
    tree: PatchedTree,
    proof: ConfigProof,
    digest: str,
    collections: Sequence[str],
    *,
    store: ArtifactStore,
    progress: Progress,
    log_dir: Path,
    jobs: int,
    others: Iterable[Path] = (),
) -> KernelBuild:
    """The role's kernel in the store. digest: of the configuration, as `configure` gave it.

    others: role directories whose objects a first build may begin with (first_build.begin).

    Nothing is started when the store holds it. The log is `log_dir`/build-<role>.log. The caller
    holds a lock on all trees. BuildError (detail: CompilerMessage) when it does not compile; an
    interrupted build goes on where it stopped.
    """
    compiler = compiler_identity()
    key = _key(tree, digest, compiler, collections)
    with store.lock(KIND, key):
        found = _load(tree, store, key, cached=True)
        if found is not None:
            progress.say(f"{tree.role}: {found.release} unchanged, not built again")
            return found
        require_whole(tree.source.path)  # the role's tree is made of hard links to it
        kbuild = Kbuild(tree.path, store.root.parent / "ccache", jobs)
        copied = first_build.begin(tree, others, progress)
        kbuild.write_config(proof.final)
        expected = _expected(tree, store, kbuild, copied=copied)
        output = KbuildOutput(
            str(tree.path),
            lambda done: progress.count(done, expected and max(done, expected), "objects"),
        )
        log = log_dir / f"build-{tree.role.value}.log"
        job = _Job(tree, kbuild, progress, log, output)
        begin, cpu = time.monotonic(), child_cpu_s()
        with store.put(KIND, key) as draft:
            _kernel(job, draft.directory, modules=_has_modules(proof))
            if parse_config(proof.final).get("DEBUG_INFO") == "y":
                shutil.copyfile(kbuild.output / "vmlinux", draft.directory / "vmlinux")
            _kselftests(job, draft.directory, collections)
            draft.metadata |= {
                "role": tree.role.value,
                "release": kbuild.release(),
                "build_id": elf_build_id(kbuild.output / "vmlinux"),
                "compiler": compiler,
                "config_hash": digest,
                "build_s": round(time.monotonic() - begin, 2),
                "cpu_s": round(child_cpu_s() - cpu, 2),
                "compiled": output.objects,
                "copied": copied,
                "objects": kbuild.count_objects(),
                "warnings": [asdict(w) for w in _all_warnings(job)],
            }
    made = _load(tree, store, key, cached=False)
    if made is None:
        raise StorageError(f"{store.root}: the build vanished from the store")
    return made


def kselftest_list(done: KernelBuild) -> tuple[str, ...]:
    """The built kselftests as "collection:test", in the order of kselftest-list.txt."""
    text = (done.directory / _LIST).read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _key(tree: PatchedTree, digest: str, compiler: str, collections: Sequence[str]) -> str:
    """The kselftests overlay is part of the series hash."""
    parts = [RECIPE, ARCH, _TARGETS, tree.series_hash, digest, compiler, sorted(set(collections))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(tree: PatchedTree, store: ArtifactStore, key: str, *, cached: bool) -> KernelBuild | None:
    directory = store.get(KIND, key)
    if directory is None:
        return None
    meta = store.metadata(KIND, key)
    return KernelBuild(
        role=tree.role,
        key=key,
        directory=directory,
        release=meta["release"],
        build_id=meta["build_id"],
        compiler=meta["compiler"],
        warnings=tuple(CompilerMessage(**one) for one in meta["warnings"]),
        cached=cached,
        build_s=meta["build_s"],
        config_hash=meta["config_hash"],
    )


def _expected(tree: PatchedTree, store: ArtifactStore, kbuild: Kbuild, *, copied: bool) -> int:
    """How many objects will be compiled; 0 (unknown) in a tree that was built before."""
    if (kbuild.output / "vmlinux").exists():
        return 0

    def same_role(meta: Mapping[str, Any]) -> bool:
        return meta.get("role") == tree.role.value and "objects" in meta

    if copied:
        recorded = store.newest(KIND, lambda m: same_role(m) and bool(m.get("copied")))
        return int(recorded.get("compiled", _FIRST_ESTIMATE_COPIED))
    recorded = store.newest(KIND, same_role) or store.newest(KIND, lambda m: "objects" in m)
    return max(0, int(recorded.get("objects", _FIRST_ESTIMATE)) - kbuild.count_objects())


def _has_modules(proof: ConfigProof) -> bool:
    return parse_config(proof.final).get("MODULES") == "y"


def _kernel(job: _Job, into: Path, *, modules: bool) -> None:
    try:
        job.make(_TARGETS if modules else _TARGETS[:1], "the kernel")
    finally:
        _remember_warnings(job)
    output = job.kbuild.output
    for source, name in (
        ("arch/x86/boot/bzImage", "bzImage"),
        ("System.map", "System.map"),
        (".config", "config"),
    ):
        shutil.copyfile(output / source, into / name)
    staging = output / ".harness-modules"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    if modules:
        job.make(("modules_install", f"INSTALL_MOD_PATH={staging}"), "modules_install")
    pack(staging, into / "modules.tar.gz", _NOT_PACKED)
    shutil.rmtree(staging)


def _kselftests(job: _Job, into: Path, collections: Sequence[str]) -> None:
    """Built and installed as for a distribution; a program that does not compile is an error."""
    staging = job.kbuild.output / ".harness-kselftests"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    if collections:
        job.progress.say(f"{job.tree.role}: kselftests {' '.join(collections)}")
        job.make(("headers",), "headers")
        targets = (
            "install",
            f"TARGETS={' '.join(collections)}",
            "FORCE_TARGETS=1",  # else a collection that fails is left out without a word
            f"INSTALL_PATH={staging}",
            f"KDIR={job.kbuild.output}",
        )
        where = job.tree.path / "tools/testing/selftests"
        job.make(targets, "the kselftests", directory=where)
    listed = staging / _LIST
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    (into / _LIST).write_text(text, encoding="utf-8")
    pack(staging, into / "kselftests.tar.gz")
    shutil.rmtree(staging)


def _remember_warnings(job: _Job) -> None:
    """A warm build prints only the warnings of what it compiled: keep those of all other files."""
    path = job.kbuild.output / WARNINGS
    fresh = job.output.warnings
    kept = [
        one
        for one in _read_warnings(path)
        if one not in fresh
        and one.file.endswith((".c", ".S"))
        and f"{one.file[:-2]}.o" not in job.output.compiled
        and (job.tree.path / one.file).exists()
    ]
    path.write_text(json.dumps([asdict(one) for one in (*kept, *fresh)]), encoding="utf-8")


def _all_warnings(job: _Job) -> tuple[CompilerMessage, ...]:
    """Of the kernel, remembered ones included, and of the kselftests."""
    remembered = _read_warnings(job.kbuild.output / WARNINGS)
    return tuple(dict.fromkeys((*remembered, *job.output.warnings)))


def _read_warnings(path: Path) -> list[CompilerMessage]:
    try:
        return [CompilerMessage(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _line(message: CompilerMessage) -> str:
    if not message.file:
        return message.text
    line = f":{message.line}" if message.line else ""
    return f"{message.file}{line}: {message.text}"
