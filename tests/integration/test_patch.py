# SPDX-License-Identifier: GPL-2.0-only
"""Stage patch with real git, make and hard links."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.adapters.role_tree import RoleTree
from harness.core.series import SeriesInput
from harness.errors import PatchError, StorageError, UserError
from harness.model.kernel import PatchedTree, PatchReport, Role, SourceSpec, SourceTree
from harness.stages import source as source_stage
from harness.stages.patch import apply, load
from harness.stages.source import fetch
from tests.integration.kernel_trees import (
    RecordedProgress,
    commit,
    edit,
    format_patch,
    git,
    git_tree,
)

TSM = "drivers/pci/tsm.c"


class Bench:
    """A fake kernel, a clone to make patches in, and the directories of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.progress = RecordedProgress()
        self.user = git_tree(root / "linux")
        git(root, "clone", "--quiet", str(self.user), "work")
        self.work = root / "work"
        self.base = git(self.work, "rev-parse", "HEAD").strip()
        self.out = root / "out"
        self.source = self.fetch()

    def fetch(self) -> SourceTree:
        return fetch(SourceSpec(tree=self.user), self.root / "cache", self.progress)

    def change(self, subject: str, **edits: tuple[str, str]) -> None:
        """A commit that replaces one string per file; `tsm` and `header` name the files."""
        names = {"tsm": TSM, "header": "include/linux/tsm.h", "dos": "drivers/dos.c"}
        for name, (old, new) in edits.items():
            edit(self.work, names[name], old, new)
        commit(self.work, subject)

    def patches(self, *options: str) -> list[Path]:
        return format_patch(self.work, self.out, self.base, *options)

    def apply(
        self, *series: SeriesInput, overlays: Mapping[str, Path] | None = None
    ) -> PatchedTree:
        work = self.root / "roles"
        return apply(Role.GUEST, self.source, series, overlays or {}, work, self.progress)

    def loaded(self) -> SeriesInput:
        self.patches()
        return load(self.out, Role.GUEST)[0]

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file of the role's tree: mode, mtime, content."""
        return tree_state(self.root / "roles/guest/linux")


def tree_state(tree: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(tree))] = (status.st_mode, 0, os.fsencode(path.readlink()))
        elif path.is_file():
            found[str(path.relative_to(tree))] = (
                status.st_mode,
                status.st_mtime_ns,
                path.read_bytes(),
            )
    return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(source_stage, "TREE_BYTES", 1_000_000)
    return Bench(tmp_path)


def three_patches(bench: Bench) -> list[Path]:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    bench.change("tsm: two", tsm=("int line20;\n", "int twenty;\n"), header=("TSM 1", "TSM 2"))
    bench.change("tsm: three", tsm=("int line38;\n", "long line38;\n"))
    return bench.patches()


def same_as_work(bench: Bench, result: PatchedTree) -> None:
    """The role's tree equals what git itself has after the series."""
    listed = git(bench.work, "ls-files", "-z").split("\0")[:-1]
    assert {p for p in tree_state(result.path) if not p.startswith("build/")} == set(listed)
    for name in listed:
        ours, theirs = result.path / name, bench.work / name
        assert ours.is_symlink() == theirs.is_symlink()
        if ours.is_symlink():
            assert ours.readlink() == theirs.readlink()
        else:
            assert ours.read_bytes() == theirs.read_bytes(), name
            assert os.access(ours, os.X_OK) == os.access(theirs, os.X_OK), name


def test_series_is_applied_and_nothing_else_is_touched(bench: Bench) -> None:
    three_patches(bench)
    pristine, user = tree_state(bench.source.path), tree_state(bench.user)
    result = bench.apply(bench.loaded())
    same_as_work(bench, result)
    assert [p.subject for p in result.patches] == ["tsm: one", "tsm: two", "tsm: three"]
    assert tree_state(bench.source.path) == pristine
    assert tree_state(bench.user) == user
    # hard links where nothing changed
    assert (result.path / "Kconfig").samefile(bench.source.path / "Kconfig")
    assert not (bench.root / "roles/guest/am").exists()


def test_second_run_writes_nothing(bench: Bench) -> None:
    three_patches(bench)
    first = bench.apply(bench.loaded())
    before = bench.state()
    second = bench.apply(bench.loaded())
    assert second == first
    assert bench.state() == before
    assert bench.progress.said[-1] == "guest: 3 patches already applied"


def test_changed_series_writes_only_what_differs(bench: Bench) -> None:
    three_patches(bench)
    first = bench.apply(bench.loaded())
    before = bench.state()
    edit(bench.work, "include/linux/tsm.h", "TSM 2", "TSM 3")
    commit(bench.work, "tsm: four")
    second = bench.apply(bench.loaded())
    after = bench.state()
    assert second.series_hash != first.series_hash
    assert {name for name in after if after[name] != before[name]} == {"include/linux/tsm.h"}


def test_dropped_series_is_undone_and_make_notices(bench: Bench) -> None:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    (bench.work / "drivers/new").mkdir()
    (bench.work / "drivers/new/file.c").write_text("new\n")
    commit(bench.work, "add")
    result = bench.apply(bench.loaded())
    build = result.path / "build"
    build.mkdir()
    rule = f"{build}/tsm.o: {result.path}/{TSM}\n\tcp $< $@\n"
    (build / "Makefile").write_text(rule)
    make = ["make", "-s", "-C", str(build), f"{build}/tsm.o"]
    subprocess.run(make, check=True)
    assert "int three" in (build / "tsm.o").read_text()
    pristine = tree_state(bench.source.path)
    bench.apply()
    assert not (result.path / "drivers/new").exists()
    assert (result.path / TSM).read_bytes() == (bench.source.path / TSM).read_bytes()
    # restored with a new time stamp: an object of the patched file is rebuilt
    subprocess.run(make, check=True)
    assert "int three" not in (build / "tsm.o").read_text()
    assert tree_state(bench.source.path) == pristine
    # and back again
    same_as_work(bench, bench.apply(bench.loaded()))


def test_renames_modes_links_deletions_and_binary(bench: Bench) -> None:
    work = bench.work
    git(work, "mv", TSM, "drivers/pci/core.c")
    edit(work, "drivers/pci/core.c", "int line3;\n", "int three;\n")
    commit(work, "rename")
    (work / "scripts/run.sh").chmod(0o644)
    (work / "Kconfig").chmod(0o755)
    commit(work, "modes")
    (work / "scripts/link").unlink()
    (work / "scripts/link").symlink_to("../Kconfig")
    (work / "scripts/other link").symlink_to("run.sh")
    commit(work, "links")
    (work / "blob").write_bytes(bytes(range(256)))
    (work / "für\ttab.txt").write_bytes(b"caf\xe9\n")
    (work / "empty").touch()
    (work / ".gitattributes").write_text("*.txt eol=crlf\n*.c filter=x\n")
    (work / ".gitignore").write_text("*.o\nempty\n")
    commit(work, "binary, odd names")
    git(work, "rm", "-q", "-r", "include")
    (work / "include").write_text("a file where a directory was\n")
    commit(work, "directory to file")
    (work / "drivers/dos.c").unlink()
    (work / "drivers/dos.c").mkdir()
    (work / "drivers/dos.c/inner").write_text("x\n")
    commit(work, "file to directory")
    before = tree_state(bench.source.path)
    same_as_work(bench, bench.apply(load_patches(bench)))
    assert tree_state(bench.source.path) == before
    bench.apply()
    assert {n: v[2] for n, v in bench.state().items()} == {n: v[2] for n, v in before.items()}


def load_patches(bench: Bench) -> SeriesInput:
    bench.patches("--binary", "-M")
    return load(bench.out, Role.GUEST)[0]


def test_file_that_a_patch_adds_and_a_later_one_changes_or_removes(bench: Bench) -> None:
    (bench.work / "a.c").write_text("one\n")
    (bench.work / "b.c").write_text("two\n")
    commit(bench.work, "add")
    edit(bench.work, "a.c", "one", "1")
    (bench.work / "b.c").unlink()
    commit(bench.work, "change")
    result = bench.apply(bench.loaded())
    assert (result.path / "a.c").read_text() == "1\n"
    assert not (result.path / "b.c").exists()


def test_real_crlf_file_and_crlf_mail(bench: Bench) -> None:
    bench.change("dos", dos=("two\r\n", "zwei\r\n"))
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    for file in bench.patches():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    same_as_work(bench, bench.apply(load(bench.out, Role.GUEST)[0]))


def test_real_crlf_file_in_plain_patches(bench: Bench) -> None:
    bench.change("dos", dos=("two\r\n", "zwei\r\n"))
    same_as_work(bench, bench.apply(bench.loaded()))


def test_mbox_with_base64_cover_and_wrong_order(bench: Bench) -> None:
    mails = [file.read_bytes() for file in three_patches(bench)]
    head, _, body = mails[1].partition(b"\n\n")
    mails[1] = head + b"\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(body)
    cover = mails[0].partition(b"\nSubject: ")[0] + b"\nSubject: [PATCH 0/3] all\n\nHello\n"
    mbox = bench.root / "series.mbox"
    mbox.write_bytes(b"\n".join([mails[2], cover, mails[1], mails[0]]))
    (series,) = load(mbox, Role.GUEST)
    assert series.name == "guest/series"
    assert series.left_out == ("mbox:2: cover letter: all",)
    same_as_work(bench, bench.apply(series))


def test_single_patch_and_bare_diff(bench: Bench) -> None:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    file = bench.root / "bare.diff"
    file.write_text(git(bench.work, "diff", bench.base))
    same_as_work(bench, bench.apply(*load(file, Role.GUEST)))


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_failing_patch_is_reported_and_the_tree_is_kept(bench: Bench, bad: int) -> None:
    files = three_patches(bench)
    bench.apply(bench.loaded())
    before = bench.state()
    line = {1: "int line4;", 2: "int line21;", 3: "int line39;"}[bad]
    text = files[bad - 1].read_text()
    files[bad - 1].write_text(text.replace(f" {line}\n", " int other;\n"))
    series = load(bench.out, Role.GUEST)
    with pytest.raises(PatchError) as caught:
        bench.apply(*series)
    report = caught.value.detail
    assert isinstance(report, PatchReport)
    assert report.patch == files[bad - 1].name
    assert report.subject == f"tsm: {['one', 'two', 'three'][bad - 1]}"
    assert len(report.applied) == bad - 1
    assert "7.3.4" in report.base
    (failed,) = report.failed
    assert (failed.file, failed.hunk) == (TSM, 1)
    assert failed.line == {1: 1, 2: 17, 3: 35}[bad]
    assert failed.reason.endswith(f"is '{line}', the patch expects 'int other;'")
    assert caught.value.exit_code == 1
    assert bench.state() == before
    # the command repeats it: same refusal, and it works with the user's own git set-up
    again = subprocess.run(shlex.split(report.command), capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert f"patch failed: {TSM}:{failed.line}" in again.stderr + again.stdout
    # mended, it goes on
    files[bad - 1].write_text(text)
    same_as_work(bench, bench.apply(*load(bench.out, Role.GUEST)))


def test_no_fuzz(bench: Bench) -> None:
    """A hunk with one wrong context line is refused although patch(1) would take it."""
    bench.change("x", tsm=("int line20;", "int x;"))
    (file,) = bench.patches()
    text = file.read_text().replace(" int line17;\n", " int odd;\n")
    file.write_text(text)
    argv = ["patch", "-p1", "--dry-run", "-d", str(bench.user), "-i", str(file)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    with pytest.raises(PatchError):
        bench.apply(*load(bench.out, Role.GUEST))


def test_every_failed_hunk_and_file_is_named(bench: Bench) -> None:
    edit(bench.work, TSM, "int line3;", "int x;")
    edit(bench.work, TSM, "int line20;", "int y;")
    edit(bench.work, TSM, "int line38;", "int z;")
    edit(bench.work, "Kconfig", "mainmenu", "menu")
    commit(bench.work, "many")
    (file,) = bench.patches()
    text = file.read_text().replace(" int line19;\n", " odd\n").replace("-mainmenu", "-odd")
    file.write_text(text.replace("-int line38;", "-odd"))
    with pytest.raises(PatchError) as caught:
        bench.apply(*load(bench.out, Role.GUEST))
    failed = {(f.file, f.hunk) for f in caught.value.detail.failed}
    assert failed == {(TSM, 2), (TSM, 3), ("Kconfig", 1)}


def test_already_applied_and_missing_file(bench: Bench) -> None:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    series = bench.loaded()
    with pytest.raises(PatchError, match="already applied") as caught:
        bench.apply(series, series)
    assert "already holds this patch" in caught.value.hint
    (bench.work / "later.c").write_text("x\n")
    bench.base = commit(bench.work, "base has it")
    edit(bench.work, "later.c", "x", "y")
    commit(bench.work, "needs later.c")
    for old in bench.out.iterdir():
        old.unlink()
    with pytest.raises(PatchError) as caught:
        bench.apply(bench.loaded())
    (failed,) = caught.value.detail.failed
    assert failed.file == "later.c"
    assert failed.reason.startswith(("No such file", "does not exist"))


def test_patch_through_a_link_is_refused(bench: Bench, tmp_path: Path) -> None:
    (bench.work / "outside").symlink_to(tmp_path)
    commit(bench.work, "link")
    first = bench.patches()[0]
    evil = first.read_text().replace("outside", "outside/evil").replace("120000", "100644")
    (bench.out / "0002-evil.patch").write_text(evil.replace("1/1", "2/2"))
    with pytest.raises(PatchError):
        bench.apply(*load(bench.out, Role.GUEST))
    assert not (tmp_path / "evil").exists()


def test_corrupt_patch(bench: Bench) -> None:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    (file,) = bench.patches()
    file.write_text(file.read_text().replace("@@ -1,6 +1,6 @@", "@@ -1,60 +1,60 @@"))
    with pytest.raises(PatchError, match="corrupt patch"):
        bench.apply(*load(bench.out, Role.GUEST))


TABLE = """\
[series.dma-freeze]
title = "x"
why = "y"
drop_when = "z"
kernel = ["{}", "{}"]
patches = ["dma/0001-tsm-one.patch"]
"""


def series_directory(bench: Bench, low: str = "7.3", high: str = "7.4") -> Path:
    bench.change("tsm: one", tsm=("int line3;\n", "int three;\n"))
    directory = bench.root / "guest"
    format_patch(bench.work, directory / "dma", bench.base)
    (directory / "series.toml").write_text(TABLE.format(low, high))
    return directory


@pytest.mark.parametrize(("low", "high"), [("7.4", "7.5"), ("6.12", "7.3")])
def test_kernel_outside_the_range(bench: Bench, low: str, high: str) -> None:
    series = load(series_directory(bench, low, high), Role.GUEST)
    message = f"series dma-freeze wants Linux {low} ≤ v < {high}, the tree is 7.3.4"
    with pytest.raises(PatchError) as caught:
        bench.apply(*series)
    assert caught.value.message == message
    assert isinstance(caught.value.detail, PatchReport)
    assert not (bench.root / "roles/guest/linux").exists()


def test_series_toml_directory(bench: Bench) -> None:
    directory = series_directory(bench)
    (series,) = load(directory, Role.GUEST)
    assert (series.name, series.kernel) == ("guest/dma-freeze", ("7.3", "7.4"))
    same_as_work(bench, bench.apply(series))
    (directory / "dma/0002-stray.patch").write_text("x")
    with pytest.raises(UserError, match=r"dma/0002-stray\.patch is not listed"):
        load(directory, Role.GUEST)


def test_load_errors(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"neither series\.toml nor a \*\.patch"):
        load(tmp_path / "none", Role.GUEST)
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "nothing.mbox", Role.GUEST)
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(UserError, match="no diff in it"):
        load(tmp_path / "text", Role.GUEST)
    with pytest.raises(UserError, match=r"overlay .*: no such directory"):
        bench.apply(overlays={"tools/x": tmp_path / "nowhere"})


def test_overlay_is_synced_by_content(bench: Bench) -> None:
    dest = "tools/testing/selftests/tsm"
    overlay = bench.root / "kselftests"
    (overlay / "lib").mkdir(parents=True)
    (overlay / "Makefile").write_text("TEST_PROGS := a.sh\n")
    (overlay / "a.sh").write_text("#!/bin/sh\n")
    (overlay / "a.sh").chmod(0o755)
    (overlay / "lib/x.c").write_text("x\n")
    (overlay / "lib/x.o").write_text("object\n")
    first = bench.apply(overlays={dest: overlay})
    assert os.access(first.path / dest / "a.sh", os.X_OK)
    assert not (first.path / dest / "lib/x.o").exists()
    before = bench.state()
    os.utime(overlay / "Makefile")
    assert bench.apply(overlays={dest: overlay}).series_hash == first.series_hash
    assert bench.state() == before
    (overlay / "lib/x.c").unlink()
    (overlay / "a.sh").write_text("#!/bin/sh\ntrue\n")
    second = bench.apply(overlays={dest: overlay})
    assert second.series_hash != first.series_hash
    assert not (second.path / dest / "lib").exists()
    after = bench.state()
    assert after[f"{dest}/Makefile"] == before[f"{dest}/Makefile"]
    assert after[f"{dest}/a.sh"][2] == b"#!/bin/sh\ntrue\n"


class StoppedError(Exception):
    """Stands for a power cut in the middle of a sync."""


def test_interrupted_sync_is_repaired(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.apply()
    three_patches(bench)
    (bench.work / "zz.c").write_text("last\n")
    commit(bench.work, "add zz.c")
    written: list[str] = []
    real = RoleTree._write

    def stop_at_second(self: RoleTree, path: str, content: object) -> None:
        if written:
            raise StoppedError
        written.append(path)
        real(self, path, content)  # type: ignore[arg-type]

    series = bench.loaded()
    with monkeypatch.context() as patch:
        patch.setattr(RoleTree, "_write", stop_at_second)
        with pytest.raises(StoppedError):
            bench.apply(series)
    state = json.loads((bench.root / "roles/guest/state.json").read_text())
    assert state["status"] == "syncing"
    assert written[0] in state["managed"]
    # without the series: the half-written file returns to what it was
    bench.apply()
    assert {n: v[2] for n, v in bench.state().items()} == {
        n: v[2] for n, v in tree_state(bench.source.path).items()
    }
    same_as_work(bench, bench.apply(series))


@pytest.mark.parametrize("damage", ["edit", "delete", "state"])
def test_tampered_role_tree_is_mended(bench: Bench, damage: str) -> None:
    three_patches(bench)
    series = bench.loaded()
    result = bench.apply(series)
    match damage:
        case "edit":
            (result.path / TSM).write_text("tampered\n")
        case "delete":
            (result.path / TSM).unlink()
        case "state":
            (bench.root / "roles/guest/state.json").write_text("{")
    same_as_work(bench, bench.apply(series))


def test_write_through_a_hard_link_is_found(bench: Bench) -> None:
    result = bench.apply()
    victim = result.path / "Kconfig"
    assert not victim.stat().st_mode & 0o222
    victim.chmod(0o644)
    victim.write_text("a build wrote here\n")
    with pytest.raises(StorageError, match=r"the pristine tree was altered: Kconfig was changed"):
        bench.apply()
    bench.source = bench.fetch()
    bench.apply()
    assert (result.path / "Kconfig").read_text() == "mainmenu\n"


def test_new_base_makes_a_new_tree(bench: Bench) -> None:
    bench.apply()
    edit(bench.user, "Makefile", "SUBLEVEL = 4", "SUBLEVEL = 5")
    commit(bench.user, "next")
    bench.source = bench.fetch()
    result = bench.apply()
    assert "SUBLEVEL = 5" in (result.path / "Makefile").read_text()


def test_user_configuration_of_git_has_no_say(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[commit]\n\tgpgsign = true\n[core]\n\tautocrlf = true\n\thooksPath = /nonexistent\n"
        "[apply]\n\twhitespace = fix\n[am]\n\tthreeWay = true\n[init]\n\tdefaultBranch = x\n"
    )
    monkeypatch.setenv("HOME", str(home))
    bench.change("trailing blank", tsm=("int line3;\n", "int three;  \n"))
    series = bench.loaded()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    result = bench.apply(series)
    assert "int three;  \n" in (result.path / TSM).read_text()
