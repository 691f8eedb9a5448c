# SPDX-License-Identifier: GPL-2.0-only
"""Kernel builds, with an empty ccache and fresh trees: about half an hour on two cores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import layout
from harness.adapters import process
from harness.adapters.kbuild import Kbuild
from harness.adapters.store import ArtifactStore
from harness.core.series import SeriesInput, patch_from_file
from harness.model.kernel import PatchedTree, Role, SourceSpec, SourceTree
from harness.model.progress import SilentProgress
from harness.stages import build, config, patch, source
from harness.stages.kernels import OVERLAYS, fragments
from tests.bench.rows import Row

_COLLECTIONS = ("tsm", "iommu")
_QUIET = SilentProgress()
_CHANGED = "kernel/dma/mapping.c"


@dataclass(frozen=True, slots=True)
class Site:
    """A scratch cache of its own, on the pristine source of the user's cache."""

    root: Path
    tree: SourceTree
    jobs: int

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root / "store")


def site(root: Path, jobs: int) -> Site:
    spec = SourceSpec(package="linux-source-7.3")
    return Site(root, source.fetch(spec, layout.cache_directory(), _QUIET), jobs)


def _build(where: Site, role: Role, extra: tuple[SeriesInput, ...] = ()) -> tuple[PatchedTree, str]:
    """Patch, configure and build as a run does; the tree and the key of the build."""
    work = where.root / "work"
    series = (*patch.load(layout.SERIES / role.value, role), *extra)
    tree = patch.apply(role, where.tree, series, OVERLAYS, work, _QUIET)
    proof, digest = config.configure(
        tree, fragments(role, False), _COLLECTIONS, where.store, _QUIET
    )
    made = build.build(
        tree,
        proof,
        digest,
        _COLLECTIONS,
        store=where.store,
        progress=_QUIET,
        log_dir=where.root,
        jobs=where.jobs,
        others=work.iterdir(),
    )
    return tree, made.key


def _timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def _bare_make(where: Site, tree: PatchedTree) -> None:
    kbuild = Kbuild(tree.path, where.root / "ccache", where.jobs)
    process.run(kbuild.argv(["bzImage", "modules"]), env=kbuild.env(), what="make")


def fresh_row(directory: Path, jobs: int) -> Row:
    """`run` with empty caches, beside a bare make of both of its kernels without ccache."""
    cache = directory / "fresh"
    argv = [sys.executable, "-m", "harness", "run", "--runs-dir", str(directory / "fresh-runs")]
    environment = {**os.environ, layout.CACHE_VARIABLE: str(cache)}

    def run() -> None:
        # 1: a test failed, which costs no less time
        done = subprocess.run(argv, cwd=layout.REPOSITORY, env=environment, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the fresh run ended with {done.returncode}")

    def make(role: Role) -> None:
        output = directory / f"bare-{role.value}"
        output.mkdir()
        tree = cache / "work" / role.value / "linux"
        shutil.copy(tree / "build" / ".config", output)
        bare = ["make", "-C", str(tree), f"O={output}", f"-j{jobs}", "bzImage", "modules"]
        process.run(bare, what="make")

    ours = _timed(run)
    reference = sum(_timed(lambda role=role: make(role)) for role in (Role.HOST, Role.GUEST))  # type: ignore[misc]
    return Row("fresh `run`, empty caches", [ours], [reference], "two bare kernel builds", 1.5)


def _one_line(tree: PatchedTree) -> SeriesInput:
    """A series of one patch that adds a comment line to a file that the guest series touches."""
    text = (tree.path / _CHANGED).read_text().splitlines()
    head = "\n".join(f" {line}" for line in text[:3])
    mail = (
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        "From: bench <bench@example.org>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n"
        "Subject: [PATCH] bench: one line\n\nOne line.\n---\n"
        f"diff --git a/{_CHANGED} b/{_CHANGED}\n--- a/{_CHANGED}\n+++ b/{_CHANGED}\n"
        f"@@ -1,3 +1,4 @@\n+/* one line */\n{head}\n-- \n2.0\n"
    )
    one = patch_from_file(mail.encode(), "guest/bench", "one-line.patch", "bench")
    return SeriesInput("guest/bench", "bench", (one,))


def _from_nothing(where: Site, begun: Path | None, cpu_s: float) -> Row:
    """The second role again, beside no other; RuntimeError unless it has the same bytes."""
    alone = Site(where.root / "alone", where.tree, where.jobs)
    _, key = _build(alone, Role.GUEST)
    made = alone.store.get(build.KIND, key)
    for name in ("bzImage", "modules.tar.gz", "kselftests.tar.gz"):
        if not begun or not made or (begun / name).read_bytes() != (made / name).read_bytes():
            raise RuntimeError(f"{name} of a build begun with another's objects is another one")
    reference = float(alone.store.metadata(build.KIND, key)["cpu_s"])
    return Row("the same, same bytes (CPU)", [cpu_s], [reference], "from nothing", None)


def rows(where: Site) -> list[Row]:
    """Second role after the first and from nothing; an unchanged build; a one-line change."""
    store = where.store
    _, host_key = _build(where, Role.HOST)
    tree, guest_key = _build(where, Role.GUEST)
    first = float(store.metadata(build.KIND, host_key)["cpu_s"])
    second = float(store.metadata(build.KIND, guest_key)["cpu_s"])
    found = [Row("second role's build (CPU)", [second], [first], "first role", 0.6)]
    found.append(_from_nothing(where, store.get(build.KIND, guest_key), second))

    warm = _timed(lambda: _bare_make(where, tree))
    unchanged = _timed(lambda: _build(where, Role.GUEST))
    found.append(Row("unchanged build", [unchanged], [warm], "bare make, warm tree", 1.1))

    changed = _timed(lambda: _build(where, Role.GUEST, (_one_line(tree),)))
    path = tree.path / _CHANGED
    path.write_text("/* another line */\n" + path.read_text())
    bare = _timed(lambda: _bare_make(where, tree))
    found.append(Row("one-line change in one .c", [changed], [bare], "bare make", 1.3))
    return found
