# SPDX-License-Identifier: GPL-2.0-only
"""From source to a built kernel, for each role, with a record of everything that went in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import layout
from harness.adapters.store import ArtifactStore
from harness.core.kconfig import render_proof
from harness.core.series import SeriesInput
from harness.errors import ConfigError
from harness.model.kernel import ConfigProof, KernelBuild, PatchedTree, Role, SourceTree
from harness.model.options import RunOptions
from harness.model.progress import Progress
from harness.model.results import KernelRecord
from harness.stages import build, config, patch
from harness.stages.recorder import Recorder

OVERLAYS = {"tools/testing/selftests/tsm": layout.KSELFTESTS / "tsm"}


def load_series(role: Role, options: RunOptions) -> tuple[SeriesInput, ...]:
    """The built-in series of a role, unless left out, then the user's, in the order given."""
    found: list[SeriesInput] = []
    if role not in options.without_builtin:
        found += patch.load(layout.SERIES / role.value, role)
    for wanted, path in options.extra_series:
        if wanted is role:
            found += patch.load(path, role)
    return tuple(found)


def fragments(role: Role, debug: bool) -> tuple[Path, ...]:
    names = ["base", role.value, *(["debug"] if debug else [])]
    return tuple(layout.KERNEL_CONFIGS / f"{name}.config" for name in names)


class KernelMaker:
    """Patches, configures and builds one role's kernel after the other."""

    def __init__(
        self, options: RunOptions, store: ArtifactStore, recorder: Recorder, progress: Progress
    ) -> None:
        self._options = options
        self._store = store
        self._recorder = recorder
        self._progress = progress
        self._workdir = options.cache / "work"

    def patched(self, source: SourceTree) -> Mapping[Role, PatchedTree]:
        """Every role's tree, before anything is built: a bad series stops the run early."""
        trees = {}
        for role in self._options.roles:
            with self._recorder.stage(self._progress, f"patch {role.value}"):
                trees[role] = patch.apply(
                    role,
                    source,
                    load_series(role, self._options),
                    OVERLAYS,
                    self._workdir,
                    self._progress,
                )
                self._recorder.pins.pin(
                    f"series of the {role.value}",
                    f"{len(trees[role].patches)} patches, sha256 {trees[role].series_hash}",
                    "the hash is over the source, our series, yours and the kselftests: use the "
                    "harness that reproduce.sh names, and the series beside it",
                )
        return trees

    def configured(self, tree: PatchedTree) -> tuple[ConfigProof, str]:
        """The role's configuration and its proof, written to config-proof-<role>.txt."""
        name = f"config {tree.role.value}"
        with self._recorder.stage(self._progress, name):
            try:
                proof, digest = config.configure(
                    tree,
                    (*fragments(tree.role, self._options.plan.debug), *self._lab_fragment(tree)),
                    self._options.plan.collections,
                    self._store,
                    self._progress,
                    own_series=tree.role not in self._options.without_builtin,
                    options={
                        symbol: value
                        for role, symbol, value in self._options.plan.options
                        if role is tree.role
                    },
                )
            except ConfigError as exc:
                if isinstance(exc.detail, ConfigProof):
                    self._write_proof(tree.role, exc.detail)
                raise
            self._write_proof(tree.role, proof)
        self._recorder.pins.pin(
            f"configuration of the {tree.role.value}",
            f"hash {digest}",
            "it also names the compiler: another version is another configuration",
        )
        return proof, digest

    def _lab_fragment(self, tree: PatchedTree) -> tuple[Path, ...]:
        lab = self._options.lab
        return (lab.fragment,) if lab and lab.fragment and lab.role is tree.role else ()

    def _write_proof(self, role: Role, proof: ConfigProof) -> None:
        (self._recorder.run_dir / proof_name(role)).write_text(render_proof(proof))

    def built(self, tree: PatchedTree, proof: ConfigProof, digest: str) -> KernelBuild:
        role = tree.role.value
        with self._recorder.stage(self._progress, f"build {role}") as note:
            done = build.build(
                tree,
                proof,
                digest,
                self._options.plan.collections,
                store=self._store,
                progress=self._progress,
                log_dir=self._recorder.run_dir,
                jobs=self._options.jobs,
                others=self._workdir.iterdir(),
            )
            note.cached = done.cached
            note.text = f"{done.release}, build id {done.build_id[:12]}"
        self._recorder.kernel(
            KernelRecord(
                role=role,
                source_kind=tree.source.kind,
                source_version=tree.source.version,
                source_id=tree.source.id,
                series=tuple(f"{p.series}/{p.name}: {p.subject}" for p in tree.patches),
                config_hash=digest,
                release=done.release,
                build_id=done.build_id,
                compiler=done.compiler,
                warnings=tuple(f"{w.file}:{w.line}: {w.text}" for w in done.warnings),
                cached=done.cached,
                build_s=round(done.build_s, 1),
                config_proof=proof_name(tree.role),
                config_rows=proof.rows,
            )
        )
        return done


def proof_name(role: Role) -> str:
    return f"config-proof-{role.value}.txt"
