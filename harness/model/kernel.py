# SPDX-License-Identifier: GPL-2.0-only
"""Kernel source, series, configuration and builds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Role(StrEnum):
    """Which kernel of the pair."""

    HOST = "host"
    GUEST = "guest"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What the user asked to build. Exactly one of package, tree, tarball is set."""

    package: str = ""  # "linux-source-7.3"
    sha256: str = ""  # of the package, when it must be that very one
    tree: Path | None = None  # a git tree, never written to
    ref: str = "HEAD"
    tarball: Path | None = None


@dataclass(frozen=True, slots=True)
class SourceTree:
    """A pristine, read-only kernel tree in the cache."""

    kind: str  # "package", "git", "tarball"
    version: str  # "7.3.4"
    id: str  # sha256 of the package or tarball, or the git commit
    path: Path
    origin: str  # package and version, tree path and ref, or tarball path


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of a series. text: the mail as `git am` takes it (LF, decoded)."""

    series: str  # "guest/dma-freeze"
    name: str  # file name, or "mbox:3"
    subject: str
    text: str
    files: tuple[str, ...]  # paths touched, relative to the kernel tree, old and new names


@dataclass(frozen=True, slots=True)
class PatchReport:
    """Why a series did not apply."""

    role: str
    series: str
    patch: str
    subject: str
    base: str
    applied: tuple[str, ...]  # patches applied before the failing one
    failed: tuple[HunkFailure, ...]
    output: str  # what git said
    command: str  # repeats it by hand


@dataclass(frozen=True, slots=True)
class HunkFailure:
    """One hunk that found no place. hunk: 1-based within the file; line: first old line."""

    file: str
    hunk: int
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class PatchedTree:
    """A role's kernel tree with its series and the kselftests overlay applied."""

    role: Role
    source: SourceTree
    path: Path  # srctree; O= is path / "build"
    series_hash: str  # of base id, patches and overlay
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One requested option. got: value after olddefconfig, "n" if unset, "" if no such symbol."""

    symbol: str  # without CONFIG_
    requested: str
    got: str
    fragment: str  # file:line
    why: str = ""  # unmet dependency, "no such symbol (did you mean X?)", ...

    @property
    def ok(self) -> bool:
        return self.requested == self.got


@dataclass(frozen=True, slots=True)
class ConfigProof:
    """Every requested option with what it became. final: text of the .config."""

    role: str
    rows: tuple[ConfigRow, ...]
    final: str

    @property
    def broken(self) -> tuple[ConfigRow, ...]:
        return tuple(row for row in self.rows if not row.ok)


@dataclass(frozen=True, slots=True)
class CompilerMessage:
    """A warning or error of the build, file relative to the kernel tree."""

    file: str
    line: int
    text: str
    error: bool


@dataclass(frozen=True, slots=True)
class KernelBuild:
    """A built kernel in the artifact store; all paths lie in `directory`."""

    role: Role
    key: str
    directory: Path
    release: str  # uname -r
    build_id: str  # hex, GNU build id of vmlinux
    compiler: str
    warnings: tuple[CompilerMessage, ...]
    cached: bool
    build_s: float
    config_hash: str

    @property
    def image(self) -> Path:
        return self.directory / "bzImage"

    @property
    def system_map(self) -> Path:
        return self.directory / "System.map"

    @property
    def vmlinux(self) -> Path:
        """The ELF file, kept only when it has debugging information (kernel.debug of a plan)."""
        return self.directory / "vmlinux"

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def modules(self) -> Path:
        """tar.gz of lib/modules/<release>, empty archive when there are none."""
        return self.directory / "modules.tar.gz"

    @property
    def kselftests(self) -> Path:
        """tar.gz of `make -C tools/testing/selftests install`."""
        return self.directory / "kselftests.tar.gz"
