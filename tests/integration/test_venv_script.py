# SPDX-License-Identifier: GPL-2.0-only
""".ci/venv.sh, what a fresh machine runs first; a script takes the place of its Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.layout import REPOSITORY

# answers the three questions that are asked of it, and makes an environment with a pip
PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$2" in
*'< (3, 11)'*) [ ! -e "$here/old" ] ;;
*ensurepip*) [ -e "$here/has-venv" ] ;;
*print*) echo 3.11 ;;
venv)
	mkdir -p "$3/bin"
	printf '#!/bin/sh\\necho "pip $*"\\n' > "$3/bin/pip"
	chmod 755 "$3/bin/pip"
	;;
esac
"""
# only an apt-get that waits for others gets anywhere
APT_GET = """#!/bin/sh
case "$*" in *Lock::Timeout=*) touch "$(dirname "$0")/has-venv" ;; esac
"""
NO_APT_GET = "#!/bin/sh\nexit 100\n"
SUDO = '#!/bin/sh\nshift\nexec "$@"\n'  # always called with -n
INSTALL = "apt-get install -y --no-install-recommends python3.11-venv"


def program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    argv = ["sh", ".ci/venv.sh", str(directory / "python"), str(directory / "venv")]
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    return subprocess.run(
        argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for name, text in (("python", PYTHON), ("apt-get", APT_GET), ("sudo", SUDO)):
        program(tmp_path, name, text)
    return tmp_path


def test_a_python_with_venv_installs_the_harness_and_nothing_else(machine: Path) -> None:
    (machine / "has-venv").touch()
    program(machine, "apt-get", NO_APT_GET)
    done = run(machine)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("making ")
    assert said[1].startswith("pip install")
    assert len(said) == 2


def test_a_missing_venv_module_is_installed_and_said_before(machine: Path) -> None:
    done = run(machine)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(INSTALL)
    assert (machine / "venv/bin/pip").exists()


def test_a_venv_module_that_cannot_be_had_is_told(machine: Path) -> None:
    program(machine, "apt-get", NO_APT_GET)
    done = run(machine)
    assert done.returncode == 2
    assert f"repeat by hand: sudo {INSTALL}" in done.stderr
    assert not (machine / "venv").exists()


def test_a_python_too_old_is_told(machine: Path) -> None:
    (machine / "old").touch()
    done = run(machine)
    assert done.returncode == 64
    assert "is older than 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr
