# SPDX-License-Identifier: GPL-2.0-only
"""A git tree of tests/integration/fakelinux that takes every option of configs/kernel, and a plan
for it: `tdisp-harness build` goes through all of its stages on it within a second or two."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness import layout
from tests.integration.kernel_trees import commit, git

FAKELINUX = Path(__file__).parent / "fakelinux"
_VERSION = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n"
_PLAN = """title = "the fake kernel"
topology = "solo"
[source]
package = "linux-source-7.3"
[machines.guest]
memory_mib = 512
cpus = 1
[[tests]]
role = "guest"
collection = "demo"
timeout_s = 10
"""


def _symbols() -> dict[str, str]:
    """Symbol to kind, of all that the fragments of a guest name."""
    found: dict[str, str] = {}
    for name in ("base", "guest"):
        text = (layout.KERNEL_CONFIGS / f"{name}.config").read_text()
        for symbol, value in re.findall(r"^CONFIG_(\w+)=(\S+)", text, re.MULTILINE):
            kind = "string" if value.startswith('"') else "int" if value.isdigit() else "bool"
            found[symbol] = kind
        found |= dict.fromkeys(re.findall(r"^# CONFIG_(\w+) is not set", text, re.M), "bool")
    return found


def frozen_harness(path: Path) -> Path:
    """A copy of the checkout, for tests of what a second run finds in the cache.

    The fragments and kselftests of the checkout are part of the keys: whoever edits it while such a
    test runs would have its second run build anew.
    """
    for name in ("harness", "configs", "kernel_patches", "kselftests"):
        shutil.copytree(layout.REPOSITORY / name, path / name)
    return path


def fake_kernel(path: Path) -> Path:
    """The tree, committed to a git repository of its own."""
    shutil.copytree(FAKELINUX, path)
    makefile = path / "Makefile"
    makefile.write_text(makefile.read_text().replace("ifeq", f"{_VERSION}ifeq", 1))
    kconfig = path / "Kconfig"
    text = kconfig.read_text()
    known = set(re.findall(r"^config (\w+)", text, re.MULTILINE))
    more = "".join(
        f'\nconfig {symbol}\n\t{kind} "{symbol.lower()}"\n'
        for symbol, kind in _symbols().items()
        if symbol not in known
    )
    kconfig.write_text(text.replace('source "lib/Kconfig"', f'{more}\nsource "lib/Kconfig"'))
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "base")
    return path


@dataclass
class Site:
    """A directory with a fake kernel, a plan, a cache and runs: what a command line names.

    harness: the checkout that is run, see frozen_harness().
    """

    root: Path
    harness: Path = layout.REPOSITORY
    cache: Path = field(init=False)
    runs: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tree = fake_kernel(self.root / "linux")
        self.plan = self.root / "plan.toml"
        self.plan.write_text(_PLAN)
        self.cache = self.root / "cache"
        self.runs = self.root / "runs"

    def argv(self, *arguments: str, verb: str = "build") -> list[str]:
        options = ["--no-builtin-series", "guest", "--runs-dir", str(self.runs), "-j", "2"]
        return [sys.executable, "-m", "harness", verb, str(self.plan), *options, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, layout.CACHE_VARIABLE: str(self.cache), **more}

    def run(
        self, *arguments: str, inside: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`tdisp-harness build` on the fake tree. inside: a command that runs it, e.g. unshare."""
        argv = [*inside, *self.argv("--tree", str(self.tree), *arguments)]
        return self.call(argv, **environment)

    def call(self, argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run what argv() made, or a command around it."""
        return subprocess.run(
            argv,
            cwd=self.harness,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def kernels(self) -> list[Path]:
        """The kernels in the store."""
        return sorted((self.cache / "store" / "kernel").glob("*"))
