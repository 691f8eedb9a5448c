# SPDX-License-Identifier: GPL-2.0-only
"""Root file systems and QEMU from an archive: what goes wrong is told, and nothing half made stays.

The archive is a small one; a program that fails as mmdebstrap does takes its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.adapters.rootfs import ImageRecipe, RootfsMaker
from harness.adapters.store import ArtifactStore
from harness.errors import HarnessError, InfraError, StorageError
from tests.integration.kernel_trees import RecordedProgress

RECIPE = ImageRecipe("guest", ("trixie",), ("busybox",), "", 55, 64, ())
# the loader of the archive: it is run with QEMU as its argument
LOADER = "#!/bin/sh\necho 'QEMU emulator version 11.1.3 (Debian)'\n"
NO_NETWORK = """I: automatically chosen mode: root
Ign:1 http://mirror.example/debian trixie InRelease
E: Failed to fetch http://mirror.example/debian/InRelease  Temporary failure resolving
E: Some index files failed to download.
E: mmdebstrap failed to run"""
FULL = """E: You don't have enough free space in /var/cache/apt/archives/.
E: mmdebstrap failed to run"""
FULL_LATER = """dpkg: error: failed to write: No space left on device
E: mmdebstrap failed to run"""
_UNPACK = """
import sys
from pathlib import Path
from harness.adapters.rootfs import RootfsMaker
from harness.adapters.store import ArtifactStore
from harness.errors import StorageError
from harness.model.progress import SilentProgress
archive, cache = map(Path, sys.argv[1:])
try:
    RootfsMaker(ArtifactStore(cache / "store"), SilentProgress()).qemu(archive, cache / "qemu")
except StorageError as exc:
    print(exc.message)
print([path.name for path in (cache / "qemu").iterdir() if path.suffix != ".lock"])
"""


@pytest.fixture
def maker(tmp_path: Path) -> RootfsMaker:
    return RootfsMaker(ArtifactStore(tmp_path / "store"), RecordedProgress())


def archive(root: Path, rom: bytes = b"rom") -> Path:
    """A root.tar.zst that holds a QEMU."""
    tree, made = root / "tree", root / "entry" / "root.tar.zst"
    files = {
        "usr/bin/qemu-system-x86_64": b"qemu",
        "usr/lib64/ld-linux-x86-64.so.2": LOADER.encode(),
        "usr/lib/x86_64-linux-gnu/qemu/accel.so": b"so",
        "usr/share/qemu/rom.bin": rom,
    }
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
        (tree / name).chmod(0o755)
    made.parent.mkdir()
    subprocess.run(["tar", "--zstd", "-cf", str(made), "-C", str(tree), "."], check=True)
    return made


@pytest.mark.parametrize("harm", ["truncated", "lost", "added", "no manifest"])
def test_a_harmed_qemu_is_unpacked_again(tmp_path: Path, maker: RootfsMaker, harm: str) -> None:
    packed = archive(tmp_path)
    found = maker.qemu(packed, tmp_path / "qemu")
    assert found.version == "11.1.3"
    home = next(path for path in (tmp_path / "qemu").iterdir() if path.suffix != ".lock")
    rom = home / "tree/usr/share/qemu/rom.bin"
    untouched = rom.stat().st_ino
    maker.qemu(packed, tmp_path / "qemu")
    assert rom.stat().st_ino == untouched, "the second time nothing is unpacked"
    if harm == "truncated":
        rom.write_bytes(b"")
    elif harm == "lost":
        rom.unlink()
    elif harm == "added":
        rom.with_name("stray").touch()
    else:
        (home / "manifest.json").unlink()
    assert maker.qemu(packed, tmp_path / "qemu") == found
    assert rom.read_bytes() == b"rom"
    assert not rom.with_name("stray").exists()


def test_a_disk_that_fills_up_under_qemu_leaves_none(tmp_path: Path) -> None:
    """tar goes on with the next file: what it left would be taken for whole."""
    packed = archive(tmp_path, os.urandom(1 << 20))
    cache = tmp_path / "cache"
    cache.mkdir()
    script = 'mount -t tmpfs -o size=600k none "$0" || exit 99; exec "$@"'
    python = [sys.executable, "-c", _UNPACK, str(packed), str(cache)]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(cache), *python],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "Operation not permitted" in done.stderr:
        pytest.skip("mounting needs root")
    said = done.stdout.splitlines()
    assert "no space left" in said[0], done.stdout + done.stderr
    assert said[-1] == "[]"


@pytest.mark.parametrize(
    ("says", "kind", "message"),
    [
        (NO_NETWORK, InfraError, r"^mmdebstrap: exit status 25: Failed to fetch .* resolving$"),
        (FULL, StorageError, "^guest root file system: no space left"),
        (FULL_LATER, StorageError, "^guest root file system: no space left"),
        ("it only says this", InfraError, "it only says this"),
    ],
)
def test_why_no_root_file_system_could_be_made(  # noqa: PLR0917
    tmp_path: Path,
    maker: RootfsMaker,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    kind: type[HarnessError],
    message: str,
) -> None:
    (tmp_path / "says").write_text(says)
    fake = tmp_path / "bin" / "mmdebstrap"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ncat '{tmp_path}/says' >&2\nexit 25\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(kind, match=message) as caught:
        maker.archive(RECIPE, ["deb x"], tmp_path / "log")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert caught.value.log == tmp_path / "log"
    assert not list((tmp_path / "store" / ".drafts").iterdir())
