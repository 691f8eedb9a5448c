# SPDX-License-Identifier: GPL-2.0-only
"""The artifact store on a real file system, with real processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.adapters.store import MANIFEST, ArtifactStore
from harness.errors import StorageError

_WRITER = """
import sys, time
from pathlib import Path
from harness.adapters.store import ArtifactStore
store = ArtifactStore(Path(sys.argv[1]))
with store.lock("kernel", "k1"):
    if store.get("kernel", "k1") is None:
        time.sleep(0.4)
        with store.put("kernel", "k1") as draft:
            (draft.directory / "bzImage").write_bytes(b"image")
        print("made")
    else:
        print("found")
"""


def put(store: ArtifactStore, key: str, data: bytes = b"image") -> None:
    with store.put("kernel", key) as draft:
        (draft.directory / "bzImage").write_bytes(data)
        draft.metadata["objects"] = 7


def test_an_entry_comes_back_whole(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.get("kernel", "k1") is None
    put(store, "k1")
    found = store.get("kernel", "k1")
    assert found is not None
    assert (found / "bzImage").read_bytes() == b"image"
    assert store.metadata("kernel", "k1") == {"objects": 7}
    assert store.newest("kernel", lambda meta: meta.get("objects") == 7) == {"objects": 7}
    assert store.newest("kernel", lambda meta: meta.get("objects") == 8) == {}
    assert list((tmp_path / ".drafts").iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "note"),
    [
        (lambda p: (p / "bzImage").write_bytes(b"imag"), "has 4 bytes instead of 5"),
        (lambda p: (p / "bzImage").write_bytes(b"imagE"), "was altered"),
        (lambda p: (p / "bzImage").unlink(), "bzImage is missing"),
        (lambda p: (p / MANIFEST).write_text("{"), "manifest.json is missing or unreadable"),
        (lambda p: (p / MANIFEST).unlink(), "manifest.json is missing or unreadable"),
    ],
)
def test_a_harmed_entry_is_removed_with_a_note(tmp_path: Path, harm, note: str) -> None:  # type: ignore[no-untyped-def]
    notes: list[str] = []
    store = ArtifactStore(tmp_path, notes.append)
    put(store, "k1")
    harm(tmp_path / "kernel" / "k1")
    assert store.get("kernel", "k1") is None
    assert not (tmp_path / "kernel" / "k1").exists()
    assert len(notes) == 1
    assert note in notes[0]
    put(store, "k1")
    assert store.get("kernel", "k1") is not None


def test_a_copied_entry_is_hashed_again(tmp_path: Path) -> None:
    """Same size and mtime, another inode: the remembered hash must not vouch for it."""
    store = ArtifactStore(tmp_path)
    put(store, "k1")
    file = tmp_path / "kernel" / "k1" / "bzImage"
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"imagE")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert store.get("kernel", "k1") is None


def test_nothing_appears_when_making_fails(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError), store.put("kernel", "k1") as draft:
        (draft.directory / "bzImage").write_bytes(b"half")
        raise RuntimeError
    assert store.get("kernel", "k1") is None
    assert list((tmp_path / ".drafts").iterdir()) == []


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """/dev/full answers every write with ENOSPC."""
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("no /dev/full")
    yield path


def test_a_full_disk_is_a_storage_error(tmp_path: Path, full_disk: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(StorageError, match="no space left"), store.put("kernel", "k1") as draft:
        (draft.directory / "bzImage").write_bytes(b"image")
        with full_disk.open("wb", buffering=0) as stream:
            stream.write(b"x")
    assert store.get("kernel", "k1") is None
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_a_file_size_limit_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError), store.put("kernel", "k1") as draft:
            (draft.directory / "bzImage").write_bytes(b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not (tmp_path / "kernel" / "k1").exists()
    assert list((tmp_path / ".drafts").iterdir()) == []


def test_prune_drops_the_longest_unused_first(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    now = time.time()
    for age, key in ((50, "k1"), (40, "k2"), (30, "k3")):
        put(store, key, b"x" * 10_000)
        os.utime(tmp_path / "kernel" / key / "verified.json", (now - age, now - age))
    os.utime(tmp_path / "kernel" / "k1" / "verified.json")  # used just now
    size = sum(f.stat().st_size for f in (tmp_path / "kernel" / "k1").iterdir())
    assert store.prune(2 * size + 100, keep_s=20) >= 10_000
    assert store.get("kernel", "k2") is None
    assert store.get("kernel", "k1") is not None
    assert store.get("kernel", "k3") is not None
    assert store.prune(0, keep_s=3600) == 0  # all of them were used just now


def test_names_cannot_leave_the_store(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for key in ("../k1", "", ".locks", "a/b"):
        with pytest.raises(ValueError, match="cannot name"):
            store.get("kernel", key)


def test_two_processes_make_an_entry_once(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _WRITER, str(tmp_path)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(child.communicate(timeout=30)[0].strip() for child in children)
    assert [child.returncode for child in children] == [0, 0]
    assert said == ["found", "made"]
    assert ArtifactStore(tmp_path).get("kernel", "k1") is not None


def test_a_killed_maker_leaves_no_lock_and_no_entry(tmp_path: Path) -> None:
    slow = _WRITER.replace("time.sleep(0.4)", "print('in', flush=True); time.sleep(60)")
    child = subprocess.Popen(
        [sys.executable, "-c", slow, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    child.kill()
    child.communicate()
    store = ArtifactStore(tmp_path)
    with store.lock("kernel", "k1"):
        assert store.get("kernel", "k1") is None
        put(store, "k1")
    assert store.get("kernel", "k1") is not None


def test_the_verb_prune_says_what_goes_before_it_goes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    for key in ("k1", "k2"):
        put(store, key, b"x" * 3_000_000)
    day_ago = time.time() - 86400
    os.utime(store.root / "kernel" / "k1" / "verified.json", (day_ago, day_ago))
    environment = {**os.environ, "TDISP_HARNESS_CACHE": str(tmp_path)}
    said = []
    for arguments in (
        ("show",),
        ("prune", "--keep-gb", "0", "--dry-run"),
        ("prune", "--keep-gb=0"),
    ):
        argv = [sys.executable, "-m", "harness", "cache", *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stdout)
        assert ((store.root / "kernel" / "k1").exists()) == (len(said) < 3)
    show, dry_run, prune = said
    assert f"0.01 GB  {store.root}" in show
    assert "0.01 GB, of which 0.00 GB (1 entries) would go" in dry_run
    assert "kernel/k1" in dry_run
    assert prune.splitlines()[-1] == "removed 0.00 GB"
    assert (store.root / "kernel" / "k2").exists(), "it was used just now"
    argv = [sys.executable, "-m", "harness", "cache", "prune", "--keep-gb", "-1"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "--keep-gb -1" in done.stderr
