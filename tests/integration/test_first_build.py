# SPDX-License-Identifier: GPL-2.0-only
"""The second role's first build, begun with the objects of the first, by the real make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.adapters.kbuild import WARNINGS
from harness.adapters.role_tree import RoleTree
from harness.adapters.store import ArtifactStore
from harness.errors import BuildError
from harness.model.kernel import KernelBuild, PatchedTree, Role, SourceSpec
from harness.stages import build, config, first_build, patch
from harness.stages import source as source_stage
from tests.integration.fake_kernel import fake_kernel
from tests.integration.kernel_trees import RecordedProgress, commit, edit, format_patch, git

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("make", "gcc", "git")), reason="no make, gcc or git"
)


class Site:
    """Both roles' trees of one source, with a store, as a run has them."""

    def __init__(self, root: Path, name: str = "cache") -> None:
        self.root = root
        self.cache = root / name
        self.user = root / "linux"
        if not self.user.exists():
            fake_kernel(self.user)
        self.fragment = root / "role.config"
        self.fragment.write_text("CONFIG_MODULES=y\n")
        self.heard = RecordedProgress()
        self.source = source_stage.fetch(SourceSpec(tree=self.user), self.cache, self.heard)

    def series(self, name: str, **edits: tuple[str, str]) -> Path:
        """A directory of one patch; edits: main, sort or extra -> what to replace."""
        work = self.root / f"work-{name}"
        git(self.root, "clone", "--quiet", str(self.user), work.name)
        base = git(work, "rev-parse", "HEAD").strip()
        files = {"main": "init/main.c", "sort": "lib/sort.c", "extra": "lib/extra.c"}
        for which, (old, new) in edits.items():
            edit(work, files[which], old, new)
        commit(work, f"demo: {name}")
        out = self.root / f"series-{name}"
        format_patch(work, out, base)
        return out

    def patched(self, role: Role, *series: Path) -> PatchedTree:
        loaded = [one for path in series for one in patch.load(path, role)]
        return patch.apply(role, self.source, loaded, {}, self.cache / "work", self.heard)

    def build(self, tree: PatchedTree) -> KernelBuild:
        store = ArtifactStore(self.cache / "store")
        proof, digest = config.configure(tree, [self.fragment], (), store, self.heard)
        return build.build(
            tree,
            proof,
            digest,
            (),
            store=store,
            progress=self.heard,
            log_dir=self.root,
            jobs=2,
            others=(self.cache / "work").iterdir(),
        )

    def compiled(self, role: Role) -> set[str]:
        """What make compiled for a role since the last call."""
        log = self.root / f"build-{role.value}.log"
        text = log.read_text()
        log.write_text("")
        return {line.split()[-1] for line in text.splitlines() if line.startswith("  CC  ")}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(source_stage, "TREE_BYTES", 1_000_000)
    return Site(tmp_path)


def test_only_what_differs_is_compiled_and_the_bytes_are_those_of_a_build_from_nothing(
    site: Site,
) -> None:
    host = site.series("host", sort=("n + 1", "n + 2"))
    guest = site.series("guest", main=("sort(1)", "sort(3)"))
    site.build(site.patched(Role.HOST, host))
    assert site.compiled(Role.HOST) == {"init/main.o", "lib/sort.o"}
    done = site.build(site.patched(Role.GUEST, guest))
    assert "guest: begins with the objects of the host" in site.heard.said
    assert site.compiled(Role.GUEST) == {"init/main.o", "lib/sort.o"}, "each was another source"

    alone = Site(site.root, "elsewhere")
    same = alone.build(alone.patched(Role.GUEST, guest))
    assert not any("begins with" in line for line in alone.heard.said)
    assert done.image.read_bytes() == same.image.read_bytes()
    assert done.build_id == same.build_id


def test_an_equal_source_is_not_compiled_again(site: Site) -> None:
    site.build(site.patched(Role.HOST))
    site.build(site.patched(Role.GUEST, site.series("guest", main=("sort(1)", "sort(3)"))))
    assert site.compiled(Role.GUEST) == {"init/main.o"}


def test_the_object_of_a_patch_that_the_host_has_dropped_is_not_used(site: Site) -> None:
    """The host's tree is patched, not yet built again; the guest has never had the patch."""
    site.build(site.patched(Role.HOST, site.series("host", sort=("n + 1", "n + 2"))))
    site.patched(Role.HOST)
    done = site.build(site.patched(Role.GUEST))
    assert "lib/sort.o" in site.compiled(Role.GUEST)
    alone = Site(site.root, "elsewhere")
    assert done.build_id == alone.build(alone.patched(Role.GUEST)).build_id


def test_an_interrupted_copy_is_begun_again_and_an_interrupted_build_goes_on(site: Site) -> None:
    site.build(site.patched(Role.HOST))
    tree = site.patched(Role.GUEST, site.series("guest", main=("sort(1);", "sort(1) +;")))
    leftover = tree.path.parent / ".tmp-0123"
    leftover.mkdir()
    with pytest.raises(BuildError):
        site.build(tree)
    assert not leftover.exists()
    site.heard.said.clear()
    tree = site.patched(Role.GUEST, site.series("better", main=("sort(1)", "sort(4)")))
    site.compiled(Role.GUEST)
    site.build(tree)
    assert not any("begins with" in line for line in site.heard.said), "the copy is there"
    assert site.compiled(Role.GUEST) == {"init/main.o"}


def test_a_tree_whose_files_were_half_renewed_is_repaired(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = site.series("host", sort=("n + 1", "n + 2"), main=("sort(1)", "sort(2)"))
    site.build(site.patched(Role.HOST, host))
    tree = site.patched(Role.GUEST)
    with monkeypatch.context() as broken:
        broken.setattr(RoleTree, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            site.build(tree)
    own = RoleTree(tree.path.parent, site.source.path, patch.source_key(site.source))
    assert own.managed() is None, "not to be relied on"
    done = site.build(site.patched(Role.GUEST))
    alone = Site(site.root, "elsewhere")
    assert done.build_id == alone.build(alone.patched(Role.GUEST)).build_id


def test_a_file_that_warned_warns_again(site: Site) -> None:
    warns = site.series("warns", sort=("return", "int unused;\n\treturn"))
    assert site.build(site.patched(Role.HOST, warns)).warnings
    site.compiled(Role.HOST)
    ((warning),) = site.build(site.patched(Role.GUEST, warns)).warnings
    assert (warning.file, "unused" in warning.text) == ("lib/sort.c", True)


_UNFIT = ["never built", "make was killed", "another source", "harmed", "a header warned"]


@pytest.mark.parametrize("why", _UNFIT)
def test_a_tree_that_does_not_fit_is_left_alone(site: Site, why: str) -> None:
    host = site.patched(Role.HOST)
    if why != "never built":
        site.build(host)
    if why == "make was killed":
        (host.path / "build/.harness-make-running").touch()
    if why == "harmed":
        (host.path.parent / "state.json").write_text("{")
    if why == "a header warned":  # whose object was it?
        record = '[{"file": "include/a.h", "line": 1, "text": "unused", "error": false}]'
        (host.path / "build" / WARNINGS).write_text(record)
    if why == "another source":
        (site.user / "lib/extra.c").write_text("int extra = 8;\n")
        commit(site.user, "another")
        site.source = source_stage.fetch(SourceSpec(tree=site.user), site.cache, site.heard)
    tree = site.patched(Role.GUEST)
    assert not first_build.begin(tree, (site.cache / "work").iterdir(), site.heard)
    assert not any("begins with" in line for line in site.heard.said)
