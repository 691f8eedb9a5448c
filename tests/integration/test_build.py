# SPDX-License-Identifier: GPL-2.0-only
"""Configuring and building with the real make, gcc and ccache, on a kernel tree in small."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.adapters.store import ArtifactStore
from harness.adapters.symbols import Decoder
from harness.core.symbols import read_nm
from harness.errors import BuildError, ConfigError, UserError
from harness.model.kernel import (
    CompilerMessage,
    ConfigProof,
    KernelBuild,
    PatchedTree,
    Role,
    SourceTree,
)
from harness.stages import build, config

FAKELINUX = Path(__file__).parent / "fakelinux"
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("make", "gcc", "awk")), reason="no make, gcc or awk"
)


@dataclass
class Heard:
    """A Progress that remembers."""

    said: list[str] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, name: str, note: str = "") -> None:
        del name, note

    def say(self, text: str) -> None:
        self.said.append(text)

    def count(self, done: int, total: int, what: str) -> None:
        assert what == "objects"
        self.counts.append((done, total))


class Bench:
    """One role's tree with a store, as a run has them."""

    def __init__(self, directory: Path, name: str = "linux") -> None:
        self.directory = directory
        self.tree = directory / name
        pristine = directory / "pristine"
        if not pristine.exists():
            shutil.copytree(FAKELINUX, pristine)
        shutil.copytree(pristine, self.tree)
        self.source = SourceTree("git", "1.0", "0" * 40, pristine, "fakelinux")
        self.store = ArtifactStore(directory / "cache" / "store")
        self.fragment = directory / "role.config"
        self.fragment.write_text('CONFIG_MODULES=y\nCONFIG_LOCALVERSION="-demo"\n')
        self.series_hash = "s1"
        self.heard = Heard()
        self.collections: tuple[str, ...] = ("demo",)
        self.logs = directory / "logs"
        self.logs.mkdir(exist_ok=True)

    def patched(self) -> PatchedTree:
        return PatchedTree(Role.GUEST, self.source, self.tree, self.series_hash, ())

    def configure(self) -> tuple[ConfigProof, str]:
        return config.configure(
            self.patched(), [self.fragment], self.collections, self.store, self.heard
        )

    def build(self) -> KernelBuild:
        proof, digest = self.configure()
        return build.build(
            self.patched(),
            proof,
            digest,
            self.collections,
            store=self.store,
            progress=self.heard,
            log_dir=self.logs,
            jobs=2,
        )

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file the way the patch stage does: a new file with a new time, a new hash."""
        target = self.tree / path
        text = target.read_text()
        assert old in text
        scratch = target.with_suffix(".tmp")
        scratch.write_text(text.replace(old, new))
        scratch.replace(target)
        self.series_hash += "x"

    @property
    def log(self) -> str:
        return (self.logs / "build-guest.log").read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes()), mode="r:gz") as tar:
        return {entry.name: entry for entry in tar}


def test_a_build_holds_everything_a_machine_needs(bench: Bench) -> None:
    done = bench.build()
    assert not done.cached
    assert done.release == "1.0-demo"
    notes = subprocess.run(
        ["readelf", "-n", str(bench.tree / "build/vmlinux")], capture_output=True, check=True
    ).stdout.decode()
    assert f"Build ID: {done.build_id}" in notes
    assert done.image.read_bytes() == (bench.tree / "build/vmlinux").read_bytes()
    assert "start_kernel" in done.system_map.read_text()
    assert "CONFIG_MODULES=y" in done.config.read_text()
    assert "lib/modules/1.0/kernel/demo.ko" in members(done.modules)
    assert "lib/modules/1.0/build" not in members(done.modules)
    installed = members(done.kselftests)
    assert {"run_kselftest.sh", "kselftest-list.txt", "demo/test"} <= set(installed)
    assert installed["demo/test"].mode & 0o111
    assert build.kselftest_list(done) == ("demo:test",)
    assert [count for count, _ in bench.heard.counts] == [1, 2, 3]
    assert list((bench.directory / "cache/store/.drafts").iterdir()) == []


def test_vmlinux_is_kept_when_it_has_debugging_information(bench: Bench) -> None:
    assert not bench.build().vmlinux.exists()
    with bench.fragment.open("a") as file:
        file.write("CONFIG_DEBUG_INFO=y\n")
    done = bench.build()
    listed = subprocess.run(
        ["nm", "--format=sysv", str(done.vmlinux)], check=True, capture_output=True, text=True
    )
    size = read_nm(listed.stdout)["start_kernel"][0].size
    ((found,),) = Decoder(done.vmlinux, None, done.modules).decode(
        [(f"start_kernel+0x1/{size:#x}",)]
    )
    assert re.fullmatch(r"start_kernel\+0x1/0x[0-9a-f]+ \(init/main\.c:\d+\)", found)


def test_an_unchanged_build_starts_no_make(bench: Bench) -> None:
    first = bench.build()
    before = (bench.log, (bench.tree / "build/.config").stat().st_mtime_ns)
    second = bench.build()
    assert second.cached
    assert (second.build_id, second.directory) == (first.build_id, first.directory)
    assert (bench.log, (bench.tree / "build/.config").stat().st_mtime_ns) == before


def test_a_changed_line_compiles_one_object(bench: Bench) -> None:
    first = bench.build()
    bench.heard.counts.clear()
    bench.edit("lib/sort.c", "n + 1", "n + 2")
    second = bench.build()
    assert second.build_id != first.build_id
    log = bench.log.split("bzImage modules\n")[-1]
    assert "CC      lib/sort.o" in log
    assert "init/main.o" not in log


def test_a_lost_store_entry_costs_a_warm_make_only(bench: Bench) -> None:
    first = bench.build()
    bench.store.remove("kernel", first.key)
    second = bench.build()
    assert not second.cached
    assert second.build_id == first.build_id
    assert bench.log.count("CC      lib/sort.o") == 1


def test_an_altered_store_entry_is_built_again(bench: Bench) -> None:
    first = bench.build()
    first.image.write_bytes(first.image.read_bytes()[:-1])
    second = bench.build()
    assert not second.cached
    assert second.image.read_bytes() == (bench.tree / "build/vmlinux").read_bytes()


def test_two_trees_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one = Bench(tmp_path / "a").build()
    two = Bench(tmp_path / "b", "elsewhere").build()
    for name in ("bzImage", "modules.tar.gz", "kselftests.tar.gz", "config"):
        assert (one.directory / name).read_bytes() == (two.directory / name).read_bytes(), name
    assert (one.key, one.build_id) == (two.key, two.build_id)


@pytest.mark.skipif(shutil.which("ccache") is None, reason="no ccache")
def test_another_tree_compiles_from_ccache(tmp_path: Path) -> None:
    Bench(tmp_path).build()
    other = Bench(tmp_path, "other")
    other.series_hash = "s2"
    other.build()
    env = {**os.environ, "CCACHE_DIR": str(tmp_path / "cache/ccache")}
    stats = subprocess.run(["ccache", "--print-stats"], env=env, capture_output=True, check=True)
    numbers = dict(line.split("\t") for line in stats.stdout.decode().splitlines())
    hits = int(numbers["direct_cache_hit"]) + int(numbers["preprocessed_cache_hit"])
    assert hits == 2, numbers


def test_the_first_compile_error_is_shown_with_file_and_line(bench: Bench) -> None:
    bench.edit("lib/sort.c", "return n + 1;", "return m + 1;")
    with pytest.raises(BuildError) as caught:
        bench.build()
    error = caught.value
    assert isinstance(error.detail, CompilerMessage)
    assert (error.detail.file, error.detail.line, error.detail.error) == ("lib/sort.c", 6, True)
    assert "lib/sort.c:6: " in error.message
    assert re.search("m. undeclared", error.message)
    assert error.log == bench.logs / "build-guest.log"
    assert subprocess.run(error.command, shell=True, check=False, capture_output=True).returncode
    bench.edit("lib/sort.c", "return m + 1;", "return n + 1;")
    assert bench.build().release == "1.0-demo"


def test_a_link_error_names_the_symbol(bench: Bench) -> None:
    bench.edit("lib/sort.c", "int sort(int n)\n{", "int other(int n)\n{")
    with pytest.raises(BuildError, match=r"undefined reference to .sort'"):
        bench.build()


def test_a_kselftest_that_does_not_compile_is_an_error(bench: Bench) -> None:
    bench.collections = ("demo", "broken")
    with pytest.raises(BuildError) as caught:
        bench.build()
    assert "the kselftests" in caught.value.message
    assert "nonsense" in caught.value.message


def test_warnings_survive_a_warm_build(bench: Bench) -> None:
    bench.edit("init/main.c", "for (;;)", "int unused;\n\tfor (;;)")
    first = bench.build()
    assert [(w.file, w.line, w.error) for w in first.warnings] == [("init/main.c", 6, False)]
    bench.edit("lib/sort.c", "n + 1", "n + 2")
    assert bench.build().warnings == first.warnings
    bench.edit("init/main.c", "int unused;\n\tfor (;;)", "for (;;)")
    assert bench.build().warnings == ()


def test_the_callers_environment_does_not_reach_kbuild(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKEFLAGS", "n")  # a `make -n` that started the harness
    monkeypatch.setenv("LOCALVERSION", "-mine")
    monkeypatch.setenv("KCONFIG_CONFIG", "/nowhere")
    assert bench.build().release == "1.0-demo"


def test_an_object_cut_off_by_a_kill_is_not_trusted(bench: Bench) -> None:
    first = bench.build()
    bench.store.remove("kernel", first.key)
    (bench.tree / "build/lib/sort.o").write_bytes(b"\x7fELF half")
    (bench.tree / "build/.harness-make-running").touch()
    assert bench.build().build_id == first.build_id


def test_ctrl_c_leaves_no_process_and_a_tree_that_goes_on(bench: Bench) -> None:
    bench.edit("Makefile", "@$(CC) $(flags)", "@sleep $${SLOW:-0}; $(CC) $(flags)")
    child = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(bench.directory), str(bench.tree)],
        env={**os.environ, "SLOW": "30"},
        stderr=subprocess.DEVNULL,
    )
    marker = bench.tree / "build/.harness-make-running"
    deadline = time.monotonic() + 30
    while not (bench.tree / "build/lib").is_dir():  # made just before the slow compile
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert marker.exists()
    child.send_signal(signal.SIGINT)
    assert child.wait(10) != 0
    alive = subprocess.run(["pgrep", "-f", str(bench.tree)], check=False, capture_output=True)
    assert alive.stdout == b""
    bench.store = ArtifactStore(bench.directory / "cache" / "store")
    assert bench.build().release == "1.0-demo"


_INTERRUPTED = """
import sys
from pathlib import Path
from harness.adapters.store import ArtifactStore
from harness.model.kernel import PatchedTree, Role, SourceTree
from harness.model.progress import SilentProgress
from harness.stages import build, config
base, path = Path(sys.argv[1]), Path(sys.argv[2])
source = SourceTree("git", "1.0", "0" * 40, base / "pristine", "fakelinux")
tree = PatchedTree(Role.GUEST, source, path, "s1x", ())
store = ArtifactStore(base / "cache" / "store")
quiet = SilentProgress()
proof, digest = config.configure(tree, [base / "role.config"], ("demo",), store, quiet)
build.build(
    tree, proof, digest, ("demo",), store=store, progress=quiet, log_dir=base / "logs", jobs=2
)
"""


def test_the_proof_shows_what_became_of_each_request(bench: Bench) -> None:
    proof, _ = bench.configure()
    got = {row.symbol: (row.requested, row.got) for row in proof.rows}
    assert got == {
        "MODULES": ("y", "y"),
        "LOCALVERSION": ('"-demo"', '"-demo"'),
        "BUS": ("y", "y"),  # config says m, config.guest says y
        "WISH": ("n", "n"),  # the kernel's own kselftest may go without
    }
    wish = next(row for row in proof.rows if row.symbol == "WISH")
    assert wish.ok
    assert wish.why.startswith("asked for y, not needed: depends on EXTRA, which is n")


def test_a_request_of_our_own_kselftest_binds(bench: Bench) -> None:
    wishes = bench.tree / "tools/testing/selftests/demo/config"
    wishes.write_text("CONFIG_WISH=y\n")
    with pytest.raises(ConfigError, match=r"WISH=y .*demo/config:1.*depends on EXTRA"):
        bench.configure()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CONFIG_EXTRAA=y\n", r"EXTRAA=y \(.*:1\): no such symbol \(did you mean CONFIG_EXTRA\?\)"),
        ("CONFIG_MODLUES=n\n", r"MODLUES=n \(.*:1\): no such symbol"),
        ("# CONFIG_BUS is not set\nCONFIG_EXTRA=y\n", r"EXTRA=y .*depends on BUS, which is n"),
    ],
)
def test_a_broken_request_stops_the_run(bench: Bench, text: str, message: str) -> None:
    bench.collections = ()
    bench.fragment.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        bench.configure()
    assert isinstance(caught.value.detail, ConfigProof)
    assert len(caught.value.detail.broken) == 1
    assert not (bench.tree / "build/.config").exists()


def test_a_changed_fragment_is_a_new_configuration(bench: Bench) -> None:
    first = bench.build()
    bench.fragment.write_text(bench.fragment.read_text() + "CONFIG_BUS=y\nCONFIG_EXTRA=y\n")
    second = bench.build()
    assert (second.key, second.config_hash) != (first.key, first.config_hash)
    assert (bench.tree / "build/lib/extra.o").exists()


def test_an_unknown_collection_is_the_users_error(bench: Bench) -> None:
    bench.collections = ("dmeo",)
    with pytest.raises(UserError, match="collection dmeo") as caught:
        bench.configure()
    assert caught.value.hint == "did you mean demo?"


def test_a_fragment_that_is_not_there(bench: Bench) -> None:
    bench.fragment.unlink()
    with pytest.raises(UserError, match=r"role\.config: cannot be read"):
        bench.configure()
