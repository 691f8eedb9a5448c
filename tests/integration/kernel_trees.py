# SPDX-License-Identifier: GPL-2.0-only
"""Small fake kernel trees, real git repositories and patches made from them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MAKEFILE = "# SPDX-License-Identifier: GPL-2.0\nVERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\n"
FILES = {
    "Kconfig": "mainmenu\n",
    "drivers/pci/tsm.c": "".join(f"int line{n};\n" for n in range(1, 41)),
    "drivers/pci/Makefile": "obj-y += tsm.o\n",
    "drivers/dos.c": "one\r\ntwo\r\nthree\r\n",
    "include/linux/tsm.h": "#define TSM 1\n",
    "scripts/run.sh": "#!/bin/sh\ntrue\n",
    "tools/testing/selftests/Makefile": "TARGETS += kvm\n",
}


class RecordedProgress:
    """A Progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, note: str = "") -> None:
        self.said.append(f"{name} {note}")

    def say(self, text: str) -> None:
        self.said.append(text)

    def count(self, done: int, total: int, what: str) -> None:
        del done, total, what


def git(tree: Path, *args: str) -> str:
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "@1700000000 +0000",
        "GIT_COMMITTER_DATE": "@1700000000 +0000",
    }
    identity = ("-c", "user.name=A Person", "-c", "user.email=a@example.org")
    argv = ["git", "-C", str(tree), *identity, "-c", "core.autocrlf=false", *args]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout


def write_tree(path: Path, version: tuple[int, int, int] = (7, 3, 4)) -> Path:
    """A directory that looks like a kernel tree."""
    for name, text in {**FILES, "Makefile": MAKEFILE.format(*version)}.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    (path / "scripts/run.sh").chmod(0o755)
    (path / "scripts/link").symlink_to("run.sh")
    return path


def git_tree(path: Path, version: tuple[int, int, int] = (7, 3, 4)) -> Path:
    """The same, committed to a git repository on branch main."""
    write_tree(path, version)
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "base")
    return path


def commit(tree: Path, subject: str) -> str:
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "--quiet", "--allow-empty", "-m", f"{subject}\n\nBecause.")
    return git(tree, "rev-parse", "HEAD").strip()


def edit(tree: Path, name: str, old: str, new: str) -> None:
    file = tree / name
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new, 1).encode())


def format_patch(tree: Path, out: Path, since: str, *options: str) -> list[Path]:
    git(tree, "format-patch", "--quiet", "-o", str(out), *options, since)
    return sorted(out.glob("*.patch"))
