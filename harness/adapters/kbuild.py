# SPDX-License-Identifier: GPL-2.0-only
"""make in a kernel tree, with O= a direct subdirectory of it.

Then kbuild names every file relative to the build directory (srctree is ".."), so neither the
commands nor the objects hold the place of the tree, and ccache shares objects between checkouts
and roles.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import secrets
import shlex
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import layout
from harness.adapters.process import Completed, run
from harness.core.elf_notes import build_id
from harness.errors import StorageError

ARCH = "x86_64"
BUILD = "build"  # O=, inside the tree
WARNINGS = ".harness-warnings.json"  # in the build directory: of what it holds
_RUNNING = ".harness-make-running"
_SUSPECT_S = 30.0  # how long before the last write an object may have been begun
_PT_NOTE = 4

# Settings of a person's shell, or of the `make` that started the harness, must not reach kbuild.
_NEUTRAL = {
    "LC_ALL": "C",
    "MAKEFLAGS": "",
    "MFLAGS": "",
    "MAKELEVEL": "",
    "KBUILD_OUTPUT": "",
    "KCONFIG_CONFIG": ".config",
    "KCFLAGS": "",
    "KCPPFLAGS": "",
    "CROSS_COMPILE": "",
    "LOCALVERSION": "",  # set but empty: scripts/setlocalversion appends no "+"
}
# The same sources give the same image, whoever builds it and when.
_REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "tdisp",
    "KBUILD_BUILD_HOST": "harness",
    "KBUILD_BUILD_VERSION": "1",
}


class Kbuild:
    """make for one tree. ccache_dir: used when ccache is installed."""

    def __init__(self, tree: Path, ccache_dir: Path, jobs: int = 1) -> None:
        self.tree = tree
        self.output = tree / BUILD
        self._ccache_dir = ccache_dir
        self._jobs = max(1, jobs)
        self._ccache = shutil.which("ccache") is not None
        # in the cache, so that it has the same name in each checkout: kbuild compares commands
        self._wrapper = ccache_dir / "cc"

    def argv(self, targets: Sequence[str], directory: Path | None = None) -> tuple[str, ...]:
        """The command line; directory: where make starts, the tree by default."""
        host, cc = ("ccache gcc", str(self._wrapper)) if self._ccache else ("gcc", "gcc")
        where, out = (self.tree, BUILD) if directory is None else (directory, str(self.output))
        return (
            "make",
            *("-C", str(where)),
            f"-j{self._jobs}",
            f"O={out}",
            f"ARCH={ARCH}",
            f"CC={cc}",
            f"HOSTCC={host}",
            *targets,
        )

    def env(self) -> dict[str, str]:
        # a git repository around the cache must not name this kernel (git describe)
        env = {
            **_NEUTRAL,
            **_REPRODUCIBLE,
            "GIT_CEILING_DIRECTORIES": str(self.tree.parent),
        }
        if self._ccache:
            env |= {
                "CCACHE_DIR": str(self._ccache_dir),
                # absolute names (objtool, kselftests) become relative, so that they do not differ
                "CCACHE_BASEDIR": str(self.tree),
                "CCACHE_NOHASHDIR": "1",
                # generated headers are always younger than ccache likes
                "CCACHE_SLOPPINESS": "time_macros,include_file_mtime,include_file_ctime",
                "CCACHE_MAXSIZE": "10G",
                # objtool changes objects in place
                "CCACHE_NOHARDLINK": "1",
            }
        return env

    def command(self, argv: Sequence[str]) -> str:
        """What a person types to repeat it."""
        settings = " ".join(f"{k}={shlex.quote(v)}" for k, v in _REPRODUCIBLE.items())
        return f"{settings} {shlex.join(argv)}"

    def make(
        self,
        targets: Sequence[str],
        *,
        log: Path,
        on_line: Callable[[str], None],
        directory: Path | None = None,
    ) -> Completed:
        """Run make to its end, whatever its exit status. log: both outputs are appended."""
        argv = self.argv(targets, directory)
        with self._storage():
            self.output.mkdir(exist_ok=True)
            self._ccache_dir.mkdir(parents=True, exist_ok=True)
            _write_if_other(self._wrapper, (layout.CONFIGS / "build" / "cc.sh").read_bytes(), 0o755)
            self._drop_suspects()
            (self.output / _RUNNING).touch()
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"+ {self.command(argv)}\n")
        done = run(argv, env=self.env(), check=False, on_line=on_line, log=log, what="make")
        (self.output / _RUNNING).unlink(missing_ok=True)
        return done

    def write_config(self, text: str) -> bool:
        """Make `text` the .config; an equal one keeps its time, and so its objects. True: wrote."""
        with self._storage():
            self.output.mkdir(exist_ok=True)
            return _write_if_other(self.output / ".config", text.encode(), 0o644)

    def release(self) -> str:
        """uname -r of the kernel that was built."""
        return (self.output / "include/config/kernel.release").read_text(encoding="utf-8").strip()

    def count_objects(self) -> int:
        """Objects in the build directory: kbuild keeps a .cmd file for each."""
        return sum(
            name.endswith(".o.cmd") for _, _, names in os.walk(self.output) for name in names
        )

    def _drop_suspects(self) -> None:
        """After a make that was killed: remove the objects it may have left half-written.

        make itself removes its targets on SIGTERM, but nobody does after SIGKILL or a power cut,
        and kbuild would take a cut-off object that is younger than its sources for a good one.
        """
        if not (self.output / _RUNNING).exists():
            return
        times: dict[str, float] = {}
        for directory, _, names in os.walk(self.output):
            for name in names:
                if name.endswith((".o", ".a", ".ko", ".h", ".c", ".S")) or name == "vmlinux":
                    path = f"{directory}/{name}"
                    with contextlib.suppress(OSError):
                        times[path] = os.lstat(path).st_mtime
        last = max(times.values(), default=0.0)
        for path, written in times.items():
            if written >= last - _SUSPECT_S:
                Path(path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StorageError(f"{exc.filename or self.output}: {exc.strerror}") from exc


def _write_if_other(path: Path, data: bytes, mode: int) -> bool:
    """Make `data` the file's content in one step; an equal one keeps its time. True: wrote."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return False
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    scratch.write_bytes(data)
    scratch.chmod(mode)
    scratch.replace(path)
    return True


def is_whole(output: Path) -> bool:
    """Whether a kernel was linked in this build directory, and no make was killed since."""
    return (output / "vmlinux").exists() and not (output / _RUNNING).exists()


def compiler_identity() -> str:
    """Compiler and linker, by the first lines of their --version."""
    return _identity(*(shutil.which(tool) for tool in ("gcc", "ld")))


@functools.lru_cache(maxsize=8)
def _identity(*places: str | None) -> str:
    """Asked once per process: a cached run needs it several times. places: the tools' files."""
    del places
    lines = []
    for tool in ("gcc", "ld"):
        done = run((tool, "--version"), env={"LC_ALL": "C"}, what=f"{tool} --version")
        lines.append(done.out.partition("\n")[0].strip())
    return ", ".join(lines)


def child_cpu_s() -> float:
    """User and system time of all children that ended so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def elf_build_id(path: Path) -> str:
    """Hex GNU build id from the note segments of a 64-bit little-endian ELF file, "" if none."""
    with path.open("rb") as stream:
        head = stream.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return ""
        (table_at,) = struct.unpack_from("<Q", head, 32)
        entry_size, entries = struct.unpack_from("<HH", head, 54)
        for number in range(entries):
            stream.seek(table_at + number * entry_size)
            entry = stream.read(56)
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", entry)
            if kind == _PT_NOTE:
                stream.seek(offset)
                if found := build_id(stream.read(size)):
                    return found
    return ""


def kselftest_collections(tree: Path) -> tuple[str, ...]:
    """The names in TARGETS of tools/testing/selftests/Makefile, and directories with a Makefile."""
    root = tree / "tools/testing/selftests"
    found = {p.parent.name for p in root.glob("*/Makefile")}
    with contextlib.suppress(OSError):
        text = (root / "Makefile").read_text(encoding="utf-8", errors="replace")
        found |= set(re.findall(r"^TARGETS \+= (\S+)", text, re.MULTILINE))
    return tuple(sorted(found))
