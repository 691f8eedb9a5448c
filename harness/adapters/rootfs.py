# SPDX-License-Identifier: GPL-2.0-only
"""Root file systems, and a QEMU, from Debian packages.

mmdebstrap makes a tar archive (as root, or through user namespaces without); tar and mke2fs turn it
into an ext4 image, under fakeroot where we are not root, so no mount is ever made. The QEMU that
the host image carries also serves the controller: it runs through the image's own dynamic loader,
without chroot, on an older Debian too.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.adapters import process
from harness.adapters.store import ArtifactStore
from harness.adapters.tarball import full
from harness.core import cpio
from harness.errors import InfraError, StorageError, UserError
from harness.model.machine import QemuInstall
from harness.model.progress import Progress

RECIPE = 1  # part of every key: raise it when the way of making an image changes
_LIB = "usr/lib/x86_64-linux-gnu"
_QEMU_PARTS = (
    "./usr/bin/qemu-system-x86_64",
    "./usr/lib64",
    f"./{_LIB}",
    "./usr/share/qemu",
    "./usr/share/seabios",
    "./usr/share/ipxe",
    "./usr/lib/ipxe",
)


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """One entry of configs/rootfs/images.toml."""

    name: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    prefer: str  # suite whose packages win, "" for none
    download_mb: int
    free_mb: int
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RootImage:
    """A raw ext4 image. digest: SHA-256 of the file."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """The kernel that the host machine boots by itself, before ours is deployed."""

    image: Path
    initrd: Path
    busybox: Path  # static
    release: str


def load_recipes(path: Path) -> dict[str, ImageRecipe]:
    """Read images.toml; UserError names the file and key."""
    try:
        data = tomllib.loads(path.read_text())
        exclude = tuple(data["exclude"]["paths"])
        return {
            name: ImageRecipe(
                name,
                tuple(entry["suites"]),
                tuple(sorted(entry["packages"])),
                entry.get("prefer", ""),
                entry["download_mb"],
                entry["free_mb"],
                exclude,
            )
            for name, entry in data["image"].items()
        }
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise UserError(f"{path}: {exc}") from exc
    except KeyError as exc:
        raise UserError(
            f"{path}: key {exc} missing", hint="compare with the entry of `guest`"
        ) from exc


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([RECIPE, *map(str, parts)]).encode()).hexdigest()[:32]


class RootfsMaker:
    """Makes and caches images. `sources` are apt source lines per suite (adapters/apt.py)."""

    def __init__(self, store: ArtifactStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress

    def archive_key(self, recipe: ImageRecipe) -> str:
        return _key(recipe.suites, recipe.packages, recipe.prefer, recipe.exclude)

    def cached(self, recipe: ImageRecipe) -> bool:
        return self._store.get("rootfs", self.archive_key(recipe)) is not None

    def archive(self, recipe: ImageRecipe, sources: Sequence[str], log: Path) -> Path:
        """root.tar.zst of the recipe, made when the store does not hold it."""
        key = self.archive_key(recipe)
        found = self._store.get("rootfs", key)
        if found is None:
            self._progress.say(
                f"making the {recipe.name} root file system"
                f" (about {recipe.download_mb} MB of packages to download)"
            )
            with self._store.put("rootfs", key) as draft:
                directory = draft.directory
                self._mmdebstrap(recipe, sources, directory / "root.tar.zst", log)
            found = self._require("rootfs", key)
        return found / "root.tar.zst"

    def _mmdebstrap(
        self, recipe: ImageRecipe, sources: Sequence[str], target: Path, log: Path
    ) -> None:
        argv = ["mmdebstrap", "--variant=minbase", "--format=tar", "--skip=check/empty"]
        if os.geteuid() != 0:
            argv.append("--mode=unshare")
        if recipe.prefer:
            argv.append(f'--aptopt=APT::Default-Release "{recipe.prefer}"')
        argv += [f"--dpkgopt=path-exclude={path}" for path in recipe.exclude]
        argv += [
            f"--include={','.join(recipe.packages)}",
            "--customize-hook=rm -f $1/etc/ssh/ssh_host_*_key*",
            recipe.suites[0],
            str(target),
            *sources,
        ]
        try:
            process.run(argv, log=log, timeout_s=1800, what="mmdebstrap")
        except InfraError as exc:
            raise _explained(exc, recipe, log) from exc

    def image(
        self,
        recipe: ImageRecipe,
        archive: Path,
        init: Path,
    ) -> RootImage:
        """The ext4 image: the archive's content, /sbin/tdisp-init and a poweroff that tells it.

        root's shell is the small one: every command over SSH starts it.
        """
        key = _key(
            self.archive_key(recipe),
            hashlib.sha256(init.read_bytes()).hexdigest(),
            recipe.free_mb,
        )
        found = self._store.get("image", key)
        if found is None:
            self._progress.say(f"making the {recipe.name} disk image")
            with self._store.put("image", key) as draft:
                directory = draft.directory
                self._make_image(recipe, archive, init, directory / "root.img")
                digest = _sha256(directory / "root.img")
                (directory / "digest").write_text(digest)
            found = self._require("image", key)
        return RootImage(found / "root.img", (found / "digest").read_text())

    def _make_image(
        self,
        recipe: ImageRecipe,
        archive: Path,
        init: Path,
        target: Path,
    ) -> None:
        tree = target.parent / "tree"
        quoted = shlex.quote(str(tree))
        script = f"""set -e
mkdir -p {quoted}
tar --zstd -xf {shlex.quote(str(archive))} -C {quoted} --exclude='./dev/*'
install -m 755 {shlex.quote(str(init))} {quoted}/sbin/tdisp-init
[ -e {quoted}/sbin/poweroff ] || cat > {quoted}/sbin/poweroff << 'EOF'
#!/bin/sh
kill -TERM 1
EOF
chmod 755 {quoted}/sbin/poweroff
sed -i '/^root:/s|:/bin/bash$|:/bin/sh|' {quoted}/etc/passwd
rm -f {quoted}/boot/initrd.img-*
kib=$(du -sk {quoted} | cut -f1)
mke2fs -q -F -t ext4 -m 0 -O ^has_journal -d {quoted} {shlex.quote(str(target))} \
    $((kib * 115 / 100 / 1024 + {recipe.free_mb}))M
rm -rf {quoted}
"""
        argv = ["sh", "-c", script] if os.geteuid() == 0 else ["fakeroot", "--", "sh", "-c", script]
        process.run(argv, timeout_s=600, what=f"{recipe.name} disk image", env={"PATH": _path()})

    def own_kernel(self, archive: Path) -> OwnKernel:
        """Debian's kernel out of the host archive, with a minimal initramfs of ours.

        The distribution's initramfs costs several seconds under emulation; ours holds busybox and
        the one driver that the root disk needs.
        """
        key = _key("own-kernel", "busybox", archive.parent.name)
        found = self._store.get("own-kernel", key)
        if found is None:
            with self._store.put("own-kernel", key) as draft:
                directory = draft.directory
                parts = ["./boot", "./usr/bin/busybox", "./usr/lib/modules"]
                tree = directory / "tree"
                _extract(archive, tree, parts, ["./boot/initrd.img-*"])
                release = next((tree / "usr/lib/modules").iterdir()).name
                shutil.copy(tree / f"boot/vmlinuz-{release}", directory / "vmlinuz")
                shutil.copy(tree / "usr/bin/busybox", directory / "busybox")
                (directory / "initrd").write_bytes(_initramfs(tree, release))
                (directory / "release").write_text(release)
                shutil.rmtree(tree)
            found = self._require("own-kernel", key)
        return OwnKernel(
            image=found / "vmlinuz",
            initrd=found / "initrd",
            busybox=found / "busybox",
            release=(found / "release").read_text(),
        )

    def qemu(self, archive: Path, directory: Path) -> QemuInstall:
        """QEMU out of the host archive, run through the archive's own dynamic loader.

        It lies unpacked below `directory`, with a list of its files and sizes: one that lacks a
        file is unpacked again.
        """
        home = directory / _key("qemu", archive.parent.name)
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{home}.lock"):
            version = _intact(home)
            if not version:
                self._progress.say("unpacking QEMU into the cache")
                version = _unpack_qemu(archive, home)
        return _qemu_install(home / "tree", version)

    def _require(self, kind: str, key: str) -> Path:
        found = self._store.get(kind, key)
        if found is None:
            raise StorageError(
                f"{kind}/{key}: the entry just made cannot be read back",
                hint="check the disk that holds the cache",
            )
        return found


def _path() -> str:
    """mke2fs lives in /usr/sbin, which is not on every user's PATH."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def _explained(exc: InfraError, recipe: ImageRecipe, log: Path) -> InfraError:
    """mmdebstrap's failure with its cause, which stands before much else that it says."""
    said = exc.detail.err if isinstance(exc.detail, process.Completed) else ""
    if _is_full(said):
        return StorageError(
            f"{recipe.name} root file system: no space left on the disk",
            hint="free some space; mmdebstrap needs it in $TMPDIR (else /tmp) too",
            command="df -h",
            log=log,
        )
    cause = next((line[3:] for line in said.splitlines() if line.startswith("E: ")), "")
    return InfraError(
        f"{exc.message.splitlines()[0]}: {cause}" if cause else exc.message,
        hint="the packages come over the network; `tdisp-harness doctor` checks the rest",
        command=exc.command,
        log=log,
    )


def _is_full(said: str) -> bool:
    return "No space left" in said or "enough free space" in said


def _extract(archive: Path, target: Path, parts: Sequence[str], exclude: Sequence[str]) -> None:
    target.mkdir()
    argv = ["tar", "--zstd", "-xf", str(archive), "-C", str(target), "--no-same-owner"]
    argv += [f"--exclude={pattern}" for pattern in exclude]
    # parts that this archive does not hold (ipxe, say) make tar complain, not stop
    done = process.run([*argv, *parts], env={"LC_ALL": "C"}, timeout_s=300, check=False)
    if _is_full(done.err):
        raise full(str(target.parent))
    if done.timed_out or not any(target.iterdir()):
        raise InfraError(f"{archive}: nothing could be unpacked", hint="remove it from the cache")


def _qemu_install(tree: Path, version: str) -> QemuInstall:
    prefix = (
        str(tree / "usr/lib64/ld-linux-x86-64.so.2"),
        *("--library-path", f"{tree / _LIB}:{tree / _LIB / 'pulseaudio'}"),
        str(tree / "usr/bin/qemu-system-x86_64"),
        *("-L", str(tree / "usr/share/qemu"), "-L", str(tree / "usr/share/seabios")),
    )
    return QemuInstall(prefix, (("QEMU_MODULE_DIR", str(tree / _LIB / "qemu")),), version, "cache")


def _sizes(tree: Path) -> dict[str, int]:
    files = (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(tree)): path.stat().st_size for path in files}


def _intact(home: Path) -> str:
    """The version of a whole unpacked QEMU, "" when it is absent or damaged."""
    try:
        manifest = json.loads((home / "manifest.json").read_text())
        whole = manifest["files"] == _sizes(home / "tree")
        return str(manifest["version"]) if whole else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _unpack_qemu(archive: Path, home: Path) -> str:
    draft = home.with_name(f"{home.name}.draft")
    for stale in (draft, home):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        draft.mkdir()
        _extract(archive, draft / "tree", _QEMU_PARTS, [])
        install = _qemu_install(draft / "tree", "")
        argv = [*install.argv_prefix, "--version"]
        version = process.run(argv, env=dict(install.env), what="QEMU").out.split()[3]
        manifest = {"version": version, "files": _sizes(draft / "tree")}
        (draft / "manifest.json").write_text(json.dumps(manifest))
        draft.rename(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return version


def _initramfs(tree: Path, release: str) -> bytes:
    module = tree / f"usr/lib/modules/{release}/kernel/drivers/block/virtio_blk.ko.xz"
    busybox = (tree / "usr/bin/busybox").read_bytes()
    init = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
i=0
while [ ! -b /dev/vda ] && [ $i -lt 500 ]; do /bin/busybox usleep 20000; i=$((i + 1)); done
/bin/busybox mount -t ext4 -o rw /dev/vda /newroot
/bin/busybox mount --move /dev /newroot/dev
exec /bin/busybox switch_root /newroot /sbin/tdisp-init
"""
    return cpio.archive(
        [
            cpio.directory("dev"),
            cpio.directory("bin"),
            cpio.directory("newroot"),
            cpio.character_device("dev/console", 5, 1),
            cpio.executable("bin/busybox", busybox),
            cpio.executable("virtio_blk.ko", lzma.decompress(module.read_bytes())),
            cpio.executable("init", init),
        ]
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
