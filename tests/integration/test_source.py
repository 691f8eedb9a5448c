# SPDX-License-Identifier: GPL-2.0-only
"""Stage source with real git, tar and apt."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.adapters.apt import PrivateApt, compare_versions, mirror_of, parse_stanzas
from harness.adapters.source_cache import load_manifest
from harness.errors import HarnessError, InfraError, NetworkError, StorageError, UserError
from harness.model.kernel import SourceSpec, SourceTree
from harness.stages import source as stage
from harness.stages.source import fetch
from tests.integration.kernel_trees import (
    MAKEFILE,
    RecordedProgress,
    commit,
    git,
    git_tree,
    write_tree,
)


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture
def user_tree(tmp_path: Path) -> Path:
    return git_tree(tmp_path / "linux")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake tree needs less room than a kernel."""
    monkeypatch.setattr(stage, "TREE_BYTES", 1_000_000)


pytestmark = pytest.mark.usefixtures("small")


def snapshot(tree: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def leftovers(cache: Path) -> list[str]:
    return [p.name for p in (cache / "source").iterdir() if not p.name.endswith(".lock")]


def from_tree(tree: Path, cache: Path, progress: RecordedProgress, ref: str = "HEAD") -> SourceTree:
    return fetch(SourceSpec(tree=tree, ref=ref), cache, progress)


def test_git_tree_is_exported_whole(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    source = from_tree(user_tree, tmp_path / "cache", progress)
    assert (source.kind, source.version) == ("git", "7.3.4")
    assert source.id == git(user_tree, "rev-parse", "HEAD").strip()
    assert (source.path / "drivers/dos.c").read_bytes() == b"one\r\ntwo\r\nthree\r\n"
    assert os.readlink(source.path / "scripts/link") == "run.sh"  # noqa: PTH115
    assert os.access(source.path / "scripts/run.sh", os.X_OK)
    assert not (source.path / "Makefile").stat().st_mode & 0o222
    # the second time nothing is unpacked
    said = len(progress.said)
    assert from_tree(user_tree, tmp_path / "cache", progress) == source
    assert len(progress.said) == said


def test_user_tree_is_not_touched(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    # an index whose stat data is out of date: a careless `git status` would rewrite it
    os.utime(user_tree / "Kconfig", (1, 1))
    (user_tree / "include/linux/tsm.h").write_text("#define TSM 2\n")
    (user_tree / "untracked").write_text("x")
    before = snapshot(user_tree)
    source = from_tree(user_tree, tmp_path / "cache", progress)
    assert snapshot(user_tree) == before
    assert (source.path / "include/linux/tsm.h").read_text() == "#define TSM 1\n"
    assert any("uncommitted changes" in line for line in progress.said)
    assert git(user_tree, "status", "--porcelain").split() == [
        "M",
        "include/linux/tsm.h",
        "??",
        "untracked",
    ]


def test_refs_worktree_and_bare(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    git(user_tree, "tag", "-a", "-m", "x", "v7.3.4")
    (user_tree / "Makefile").write_text(MAKEFILE.format(7, 3, 5))
    newer = commit(user_tree, "next")
    git(user_tree, "worktree", "add", "--quiet", "--detach", str(tmp_path / "wt"), "v7.3.4")
    git(tmp_path, "clone", "--quiet", "--bare", str(user_tree), "bare.git")
    cache = tmp_path / "cache"
    assert from_tree(user_tree, cache, progress, "v7.3.4").version == "7.3.4"
    # the same commit by another way: one entry, but errors name the tree that was asked for
    other = from_tree(tmp_path / "wt", cache, progress)
    assert (other.version, other.origin) == ("7.3.4", f"{tmp_path / 'wt'} HEAD")
    assert from_tree(user_tree / "drivers", cache, progress).id == newer
    assert from_tree(tmp_path / "bare.git", cache, progress, newer[:12]).version == "7.3.5"


def test_git_variables_of_a_hook_do_not_lead_astray(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert from_tree(user_tree, tmp_path / "cache", progress).version == "7.3.4"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a tree to another user")
def test_tree_of_another_user(user_tree: Path, tmp_path: Path, progress: RecordedProgress) -> None:
    for path in (user_tree, *user_tree.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert from_tree(user_tree, tmp_path / "cache", progress).version == "7.3.4"


def test_bad_refs_and_trees(user_tree: Path, tmp_path: Path, progress: RecordedProgress) -> None:
    git(user_tree, "tag", "v7.3.4")
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=r"--ref v7\.3\.5: no such commit") as caught:
        from_tree(user_tree, cache, progress, "v7.3.5")
    assert "v7.3.4" in caught.value.hint
    with pytest.raises(UserError, match="no such commit"):
        from_tree(user_tree, cache, progress, "--output=/x")
    with pytest.raises(UserError, match="no such directory"):
        from_tree(tmp_path / "none", cache, progress)
    with pytest.raises(UserError, match="not a git repository") as caught:
        from_tree(write_tree(tmp_path / "plain"), cache, progress)
    assert "tar -caf" in caught.value.command
    (user_tree / "Makefile").unlink()
    commit(user_tree, "no makefile")
    with pytest.raises(UserError, match="is not a kernel tree: no Makefile"):
        from_tree(user_tree, cache, progress)
    with pytest.raises(UserError, match="exactly one"):
        fetch(SourceSpec(package="a", tree=user_tree), cache, progress)
    assert leftovers(cache) == []


def test_a_partial_clone_is_not_filled_up(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    """git would fetch what is missing, and write it into the user's tree."""
    git(user_tree, "config", "uploadpack.allowFilter", "true")
    git(user_tree, "config", "uploadpack.allowAnySHA1InWant", "true")
    first = git(user_tree, "rev-parse", "HEAD").strip()
    for name, text in (("Makefile", MAKEFILE.format(7, 3, 5)), ("Kconfig", "mainmenu 2\n")):
        (user_tree / name).write_text(text)
        commit(user_tree, name)
    url = f"file://{user_tree}"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", url, "partial")
    partial, cache = tmp_path / "partial", tmp_path / "cache"
    before = snapshot(partial)
    assert from_tree(partial, cache, progress).version == "7.3.5"
    for ref in ("HEAD~1", first):  # without its Kconfig, without its Makefile too
        with pytest.raises(UserError, match="is not all there: a partial clone") as caught:
            from_tree(partial, cache, progress, ref)
        assert snapshot(partial) == before
    subprocess.run(caught.value.command, shell=True, check=True, capture_output=True)
    assert from_tree(partial, cache, progress, first).version == "7.3.4"
    assert len(leftovers(cache)) == 2


def test_empty_repository(tmp_path: Path, progress: RecordedProgress) -> None:
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(UserError, match="--ref HEAD: no such commit"):
        from_tree(tmp_path / "empty", tmp_path / "cache", progress)


@pytest.mark.parametrize("damage", ["manifest", "missing", "changed", "added", "truncated"])
def test_damaged_entry_is_made_again(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress, damage: str
) -> None:
    source = from_tree(user_tree, tmp_path / "cache", progress)
    victim = source.path / "drivers/pci/tsm.c"
    match damage:
        case "manifest":
            (source.path.parent / "COMPLETE").write_text('{"kind": "git"')
        case "missing":
            victim.unlink()
        case "changed":
            victim.chmod(0o644)
            victim.write_text("changed")
        case "added":
            (source.path / "new").write_text("")
        case "truncated":
            shutil.rmtree(source.path / "drivers")
    assert from_tree(user_tree, tmp_path / "cache", progress) == source
    assert any("is damaged" in line for line in progress.said)
    assert victim.read_text().startswith("int line1;")
    assert not (source.path / "new").exists()
    manifest = load_manifest(source.path.parent)
    assert manifest is not None
    assert manifest.files == sum(1 for p in source.path.rglob("*") if not p.is_dir())


def test_concurrent_fetches_unpack_once(user_tree: Path, tmp_path: Path) -> None:
    recorders = [RecordedProgress() for _ in range(4)]
    trees: list[SourceTree] = []
    threads = [
        threading.Thread(target=lambda p=p: trees.append(from_tree(user_tree, tmp_path / "c", p)))
        for p in recorders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trees) == 4
    assert len(set(trees)) == 1
    assert sum("exporting" in line for p in recorders for line in p.said) == 1


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.zst"])
@pytest.mark.parametrize("nested", [True, False])
def test_tarball(tmp_path: Path, progress: RecordedProgress, suffix: str, nested: bool) -> None:
    write_tree(tmp_path / "linux-7.3.4")
    archive = tmp_path / f"l{suffix}"
    inside = (
        ["-C", str(tmp_path), "linux-7.3.4"] if nested else ["-C", f"{tmp_path}/linux-7.3.4", "."]
    )
    subprocess.run(["tar", "-caf", str(archive), *inside], check=True)
    source = fetch(SourceSpec(tarball=archive), tmp_path / "cache", progress)
    assert (source.kind, source.version, len(source.id)) == ("tarball", "7.3.4", 64)
    assert (source.path / "drivers/pci/tsm.c").is_file()


def make_tar(path: Path, members: dict[str, str | tuple[str, str]]) -> Path:
    """members: name -> text, or ("link", target)."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[1]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"../evil": "x"},
        {"linux/../../evil": "x"},
        {"/tmp/tdisp-harness-evil": "x"},
        {"linux/out": ("link", "../../../evil")},
        {"linux/out": ("link", "/tmp"), "linux/out/tdisp-harness-evil": "x"},
    ],
)
def test_hostile_tarball_is_refused(
    tmp_path: Path, progress: RecordedProgress, members: dict[str, str | tuple[str, str]]
) -> None:
    archive = make_tar(tmp_path / "x.tar", {"linux/Makefile": MAKEFILE.format(7, 3, 4), **members})
    with pytest.raises(UserError):
        fetch(SourceSpec(tarball=archive), tmp_path / "cache", progress)
    assert leftovers(tmp_path / "cache") == []
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/tmp/tdisp-harness-evil").exists()


def test_bad_tarballs(tmp_path: Path, progress: RecordedProgress) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match="No such file"):
        fetch(SourceSpec(tarball=tmp_path / "none.tar"), cache, progress)
    with pytest.raises(UserError, match="not an archive"):
        fetch(SourceSpec(tarball=tmp_path / "x.zip"), cache, progress)
    empty = make_tar(tmp_path / "e.tar", {"linux/README": "x"})
    with pytest.raises(UserError, match="no Makefile"):
        fetch(SourceSpec(tarball=empty), cache, progress)
    other = make_tar(tmp_path / "o.tar", {"x/Makefile": "all:\n"})
    with pytest.raises(UserError, match="its Makefile has no VERSION"):
        fetch(SourceSpec(tarball=other), cache, progress)
    write_tree(tmp_path / "linux")
    whole = tmp_path / "w.tar.xz"
    subprocess.run(["tar", "-caf", str(whole), "-C", str(tmp_path), "linux"], check=True)
    whole.write_bytes(whole.read_bytes()[:-60])
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch(SourceSpec(tarball=whole), cache, progress)
    assert leftovers(cache) == []


def test_no_room_is_said_before_starting(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TREE_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="GB free"):
        from_tree(user_tree, tmp_path / "cache", progress)
    assert progress.said == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs here (needs root)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_leaves_nothing_behind(
    user_tree: Path, tmp_path: Path, small_disk: Path, progress: RecordedProgress
) -> None:
    (user_tree / "big").write_bytes(b"\0" * 3_000_000)
    commit(user_tree, "big")
    packed = tmp_path / "big.tar.xz"
    subprocess.run(["tar", "-caf", str(packed), "-C", str(tmp_path), "linux"], check=True)
    for spec in (SourceSpec(tree=user_tree), SourceSpec(tarball=packed)):
        with pytest.raises(StorageError, match="no space left") as caught:
            fetch(spec, small_disk, progress)
        assert caught.value.exit_code == 2
        assert leftovers(small_disk) == []


def test_stale_scratch_of_a_killed_run_is_removed(
    user_tree: Path, tmp_path: Path, progress: RecordedProgress
) -> None:
    head = git(user_tree, "rev-parse", "HEAD").strip()
    stale = tmp_path / f"cache/source/.tmp-git-{head[:16]}-0badcafe"
    (stale / "unpack").mkdir(parents=True)
    from_tree(user_tree, tmp_path / "cache", progress)
    assert not stale.exists()


# --- apt


INDEXTARGETS = """\
MetaKey: main/binary-amd64/Packages
URI: http://mirror.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages
Codename: bookworm-security
Origin: Debian
Component: main
Created-By: Packages
Repo-URI: http://mirror.example/debian-security/

MetaKey: main/binary-amd64/Packages
Codename: bookworm-backports
Origin: Debian
Component: main
Created-By: Packages
Repo-URI: http://backports.example/debian/

MetaKey: main/i18n/Translation-en
Codename: bookworm
Origin: Debian
Component: main
Created-By: Translations
Repo-URI: http://translations.example/debian/

MetaKey: main/binary-amd64/Packages
Description: several
 lines
Codename: bookworm
Origin: Debian
Component: main
Created-By: Packages
Repo-URI: http://mirror.example/debian/

MetaKey: main/binary-amd64/Packages
Codename: nodistro
Origin: . nodistro
Component: main
Created-By: Packages
Repo-URI: https://elsewhere.example/
"""


def test_mirror_is_taken_from_the_main_archive() -> None:
    assert mirror_of(INDEXTARGETS) == "http://mirror.example/debian"
    assert mirror_of(INDEXTARGETS.replace("Origin: Debian", "Origin: Ubuntu")) == ""
    assert mirror_of("") == ""
    stanzas = list(parse_stanzas(INDEXTARGETS))
    assert len(stanzas) == 5
    assert stanzas[3]["Description"] == "several\nlines"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("7.3.4-1~bpo13+1", "7.3.4-1"),
        ("7.3.4-1~bpo13+1", "7.3.10-1~bpo13+1"),
        ("7.3~rc1-1", "7.3-1"),
        ("9", "1:1"),
        ("1.0", "1.0a"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0", "1.0-1"),
        ("1.0a", "1.0+"),
    ],
)
def test_versions_compare_as_dpkg_does(left: str, right: str) -> None:
    for one, other in ((left, right), (right, left), (left, left)):
        expected = 0 if one == other else (-1 if one == left else 1)
        found = compare_versions(one, other)
        assert (found > 0) - (found < 0) == expected
        argv = ["dpkg", "--compare-versions", one, {-1: "lt", 0: "eq", 1: "gt"}[expected], other]
        assert subprocess.run(argv, check=False).returncode == 0


class Archive:
    """A signed Debian archive in a directory, read through file:."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "gnupg"
        self.home.mkdir(parents=True, mode=0o700)
        self.keyring = root / "keyring.gpg"
        key = ["--quick-gen-key", "Test <test@example.org>", "rsa2048", "sign", "never"]
        self._gpg("--passphrase", "", *key)
        self._gpg("--output", str(self.keyring), "--export")
        (root / "pool").mkdir()

    def add(self, package: str, version: str, tree: Path) -> Path:
        """A package with the tree's tarball below usr/src, as linux-source-* has it."""
        build = self.root / "build"
        (build / "DEBIAN").mkdir(parents=True)
        (build / "usr/src").mkdir(parents=True)
        (build / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: Test <test@example.org>\nDescription: kernel source\n"
        )
        tar = build / f"usr/src/{package}.tar.xz"
        subprocess.run(["tar", "-caf", str(tar), "-C", str(tree.parent), tree.name], check=True)
        deb = self.root / f"pool/{package}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(build), str(deb)], check=True, capture_output=True)
        shutil.rmtree(build)
        self.publish()
        return deb

    def publish(self) -> None:
        dist = self.root / "dists/test"
        packages = dist / "main/binary-amd64/Packages"
        packages.parent.mkdir(parents=True, exist_ok=True)
        argv = ["dpkg-scanpackages", "--multiversion", "pool"]
        listed = subprocess.run(argv, cwd=self.root, check=True, capture_output=True).stdout
        packages.write_bytes(listed)
        digest = subprocess.run(
            ["sha256sum", str(packages)], check=True, capture_output=True, text=True
        ).stdout.split()[0]
        (dist / "Release").write_text(
            "Origin: Debian\nSuite: test\nCodename: test\nArchitectures: amd64\n"
            "Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n"
            f" {digest} {len(listed)} main/binary-amd64/Packages\n"
        )
        (dist / "InRelease").unlink(missing_ok=True)
        self._gpg("--output", f"{dist}/InRelease", "--clearsign", f"{dist}/Release")

    def _gpg(self, *args: str) -> None:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--pinentry-mode", "loopback"]
        subprocess.run([*argv, *args], check=True, capture_output=True)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    for tool in ("apt-get", "dpkg-scanpackages", "gpg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if (
        "amd64"
        not in subprocess.run(
            ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
        ).stdout
    ):
        pytest.skip("the test archive is for amd64")
    made = Archive(tmp_path / "archive")
    monkeypatch.setenv("TDISP_HARNESS_MIRROR", f"file:{made.root}")
    monkeypatch.setattr("harness.adapters.apt.KEYRING", made.keyring)
    monkeypatch.setattr(stage, "SUITES", ("test",))
    yield made
    argv = ["gpgconf", "--homedir", str(made.home), "--kill", "all"]
    subprocess.run(argv, check=False)


PACKAGE = SourceSpec(package="linux-source-7.3")


def test_package_newest_version_and_then_offline(
    archive: Archive, tmp_path: Path, progress: RecordedProgress
) -> None:
    tree = write_tree(tmp_path / "linux-source-7.3")
    for last in (9, 10):
        (tree / "Makefile").write_text(MAKEFILE.format(7, 3, last))
        archive.add("linux-source-7.3", f"7.3.{last}-1~bpo13+1", tree)
    source = fetch(PACKAGE, tmp_path / "cache", progress)
    assert (source.kind, source.version) == ("package", "7.3.10")
    assert source.origin == "linux-source-7.3 7.3.10-1~bpo13+1"
    assert any(
        line.startswith("downloading linux-source-7.3 7.3.10-1~bpo13+1 (") for line in progress.said
    )
    # offline: the archive is gone, the tree is there, nothing is asked of apt
    shutil.rmtree(archive.root / "dists")
    shutil.rmtree(archive.root / "pool")
    said = len(progress.said)
    assert fetch(PACKAGE, tmp_path / "cache", progress) == source
    assert len(progress.said) == said


def test_offline_with_an_old_record_is_a_warning(
    archive: Archive, tmp_path: Path, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    source = fetch(PACKAGE, tmp_path / "cache", progress)
    shutil.rmtree(archive.root / "dists")
    shutil.rmtree(tmp_path / "cache/apt/test")
    monkeypatch.setattr(stage, "_FRESH_S", 0.0)
    assert fetch(PACKAGE, tmp_path / "cache", progress) == source
    assert any(line.startswith("warning: no newer linux-source-7.3") for line in progress.said)


def test_offline_without_a_tree_is_a_network_error(
    archive: Archive, tmp_path: Path, progress: RecordedProgress
) -> None:
    assert not (archive.root / "dists").exists()
    with pytest.raises(NetworkError, match="package lists: ") as caught:
        fetch(PACKAGE, tmp_path / "cache", progress)
    assert "apt-get" in caught.value.command
    assert "TDISP_HARNESS_MIRROR" in caught.value.hint


def apt_of_the_machine() -> dict[Path, tuple[int, int]]:
    """Size and time of everything that apt keeps for the machine itself."""
    found = {}
    for top in ("/etc/apt", "/var/lib/apt", "/var/lib/dpkg", "/var/cache/apt", "/var/log/apt"):
        for path in (Path(top), *Path(top).rglob("*")):
            with contextlib.suppress(OSError):  # partial/ is closed to whoever is not root
                state = path.stat()
                found[path] = (state.st_size, state.st_mtime_ns)
    return found


def test_the_machines_own_apt_is_not_touched(
    archive: Archive, tmp_path: Path, progress: RecordedProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    before = apt_of_the_machine()
    assert Path("/etc/apt") in before
    fetch(PACKAGE, tmp_path / "cache", progress)
    monkeypatch.delenv("TDISP_HARNESS_MIRROR")
    with contextlib.suppress(InfraError):  # a machine without a mirror
        PrivateApt(tmp_path / "other", ("test",)).mirror()
    assert apt_of_the_machine() == before
    config = ("--config-file", str(next((tmp_path / "cache/apt").glob("*/apt.conf"))))
    dump = subprocess.run(["apt-config", *config, "dump"], check=True, capture_output=True)
    own = dict(re.findall(r'^Dir::(\S+) "(.*)";$', dump.stdout.decode(), re.MULTILINE))
    state = str(tmp_path / "cache/apt")
    for name in ("State", "State::lists", "State::status", "Cache", "Cache::archives", "Log"):
        assert own[name].startswith(state), name


def test_update_failure_with_lists_is_a_warning(
    archive: Archive, tmp_path: Path, progress: RecordedProgress
) -> None:
    archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    apt = PrivateApt(tmp_path / "apt", ("test",))
    apt.update(progress)
    apt.update(progress)
    assert len(progress.said) == 1
    shutil.rmtree(archive.root / "dists")
    apt.update(progress, force=True)
    assert progress.said[-1].startswith("warning: package lists not updated")
    version, size, sha256 = apt.newest("linux-source-7.3")
    deb = archive.root / "pool/linux-source-7.3_7.3.4-1_all.deb"
    assert (version, size, len(sha256)) == ("7.3.4-1", deb.stat().st_size, 64)


@pytest.mark.parametrize("harm", ["truncated", "lost"])
def test_harmed_package_lists_are_fetched_again(
    archive: Archive, tmp_path: Path, progress: RecordedProgress, harm: str
) -> None:
    """apt itself looks at the signed index only, and finds nothing new there."""
    archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    cache = tmp_path / "cache"
    fetch(PACKAGE, cache, progress)
    (packages,) = cache.glob("apt/test/lists/*_Packages*")
    if harm == "truncated":
        packages.write_bytes(b"")
    else:
        packages.unlink()
    for entry in (cache / "source").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    assert fetch(PACKAGE, cache, progress).version == "7.3.4"
    assert any("package lists are fetched anew" in line for line in progress.said)


def test_altered_package_and_signature_are_refused(
    archive: Archive, tmp_path: Path, progress: RecordedProgress
) -> None:
    deb = archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    apt = PrivateApt(tmp_path / "apt", ("test",))
    apt.update(progress)
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NetworkError):
        apt.download("linux-source-7.3", tmp_path, "7.3.4-1", progress)
    assert not list(tmp_path.glob("*.deb"))
    assert not list(tmp_path.glob(".apt-*"))
    signed = archive.root / "dists/test/InRelease"
    signed.write_text(signed.read_text().replace("Suite: test", "Suite: evil"))
    with pytest.raises(NetworkError):
        PrivateApt(tmp_path / "fresh", ("test",)).update(progress)


def test_unknown_package_and_sources_lines(
    archive: Archive, tmp_path: Path, progress: RecordedProgress
) -> None:
    archive.add("linux-source-7.3", "7.3.4-1", write_tree(tmp_path / "linux-source-7.3"))
    apt = PrivateApt(tmp_path / "apt", ("test",))
    apt.update(progress)
    with pytest.raises(InfraError, match=r"package linux-source-9\.9: not in test"):
        apt.newest("linux-source-9.9")
    assert apt.sources_lines() == (
        f"deb [signed-by={archive.keyring}] file:{archive.root} test main",
    )


@pytest.mark.vm
def test_the_machines_own_mirror(tmp_path: Path, progress: RecordedProgress) -> None:
    apt = PrivateApt(tmp_path / "apt", stage.SUITES)
    try:
        apt.update(progress)
        version, size, sha256 = apt.newest("linux-source-7.3")
    except HarnessError as exc:
        pytest.skip(f"no Debian mirror: {exc.message}")
    assert version.startswith("7.3.")
    assert size > 100_000_000
    assert len(sha256) == 64
