# SPDX-License-Identifier: GPL-2.0-only
"""Missing system packages, with programs that take the places of apt-get and sudo; `doctor`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from harness import doctor, layout
from harness.adapters import system_packages
from harness.adapters.system_packages import Requirement, ensure
from harness.errors import InfraError, UserError
from tests.integration.kernel_trees import RecordedProgress

WANTED = (
    Requirement("there", "is there", program="sh"),
    Requirement("dwarf-tools", "finds dwarfs", program="find-dwarfs"),
)
BY_HAND = "apt-get install -y --no-install-recommends dwarf-tools"
# Knows the package after `update` only, and installs a program into its own directory.
APT_GET = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
case "$*" in
*--print-uris*) [ ! -e "$here/lists" ] || echo "'file:/dwarf' dwarf.deb 12345678 SHA256:ab" ;;
update) touch "$here/lists" ;;
install*)
	[ -e "$here/lists" ] || { echo "E: Unable to locate package dwarf-tools" >&2; exit 100; }
	cp "$0" "$here/find-dwarfs" ;;
esac
"""


def program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first directory of PATH, with an apt-get that changes nothing elsewhere."""
    program(tmp_path, "apt-get", APT_GET)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


@pytest.fixture
def nobody(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for somebody who is not root and has a sudo that wants a password."""
    program(programs, "sudo", '#!/bin/sh\n[ "$1" != -n ]\n')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return programs


@pytest.mark.parametrize(("size", "said"), [("12345678", "12"), ("234567", "0.2")])
def test_what_is_missing_is_installed_and_said_before(programs: Path, size: str, said: str) -> None:
    (programs / "lists").touch()
    program(programs, "apt-get", APT_GET.replace("12345678", size))
    progress = RecordedProgress()
    ensure(WANTED, progress)
    want = f"installing missing system packages ({said} MB to download): {BY_HAND}"
    assert progress.said == [want]
    # another apt may be at work, that of a second run or of a machine that updates itself
    (asked,) = (programs / "asked").read_text().splitlines()[1:]
    assert asked == f"{BY_HAND.partition(' ')[2]} -o DPkg::Lock::Timeout=300"
    ensure(WANTED, progress)
    assert len(progress.said) == 1, "nothing is missing any more"


def test_without_package_lists_they_are_fetched_first(programs: Path) -> None:
    progress = RecordedProgress()
    ensure(WANTED, progress)
    assert progress.said == [f"installing missing system packages: {BY_HAND}"]
    assert "update" in (programs / "asked").read_text().splitlines()
    assert WANTED[1].found()


def test_an_installation_that_fails_is_infrastructure(programs: Path) -> None:
    program(programs, "apt-get", '#!/bin/sh\necho "E: Temporary failure resolving" >&2\nexit 100\n')
    with pytest.raises(InfraError, match="Temporary failure resolving") as caught:
        ensure(WANTED, RecordedProgress())
    assert caught.value.command.startswith(BY_HAND)


def test_an_installation_that_brings_nothing_is_told(programs: Path) -> None:
    program(programs, "apt-get", "#!/bin/sh\n")
    with pytest.raises(InfraError, match=r"still missing .*: find-dwarfs \(dwarf-tools\)"):
        ensure(WANTED, RecordedProgress())


def test_without_root_and_sudo_the_command_is_told_and_nothing_done(nobody: Path) -> None:
    progress = RecordedProgress()
    with pytest.raises(UserError, match="missing packages: dwarf-tools") as caught:
        ensure(WANTED, progress)
    assert caught.value.command == f"sudo {BY_HAND}"
    assert "sudo does not work without a password" in caught.value.hint
    assert not progress.said
    assert not (nobody / "asked").exists()


def test_with_sudo_it_is_used(nobody: Path) -> None:
    program(nobody, "sudo", '#!/bin/sh\n[ "$1" != -n ] || shift\nexec "$@"\n')
    (nobody / "lists").touch()
    progress = RecordedProgress()
    ensure(WANTED, progress)
    assert progress.said[0].endswith(f": sudo {BY_HAND}")
    assert WANTED[1].found()


def test_who_is_not_root_needs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmdebstrap only recommends uidmap, and says `cannot find newuidmap` without it."""
    file = layout.CONFIGS / "requirements.toml"
    for uid, needed in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        packages = {requirement.package for requirement in system_packages.load(file)}
        assert ("uidmap" in packages) is needed
        assert "gcc" in packages


# doctor


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of WANTED, in the place of the real ones."""
    (tmp_path / "requirements.toml").write_text(
        "".join(
            f'[[requirement]]\nprogram = "{one.program}"\npackage = "{one.package}"\n'
            f'why = "{one.why}"\n'
            for one in WANTED
        )
    )
    monkeypatch.setattr(layout, "CONFIGS", tmp_path)
    monkeypatch.setenv(layout.CACHE_VARIABLE, str(tmp_path))


@pytest.mark.usefixtures("requirements")
def test_the_doctor_names_what_is_missing_and_what_mends_it(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.examine(install=False, quiet=False) == 2
    said = capsys.readouterr().out
    assert "ok       sh: " in said
    assert (
        f"missing  find-dwarfs (package dwarf-tools): finds dwarfs\n         mend: {BY_HAND}\n"
    ) in said
    for what in ("disk: ", "memory: ", "kvm", "QEMU"):
        assert what in said
    assert not (programs / "asked").exists(), "it only looks"


@pytest.mark.usefixtures("requirements")
def test_the_doctor_installs_when_asked(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (programs / "lists").touch()
    assert doctor.examine(install=True, quiet=True) == 0
    assert WANTED[1].found()
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok")]


@pytest.mark.usefixtures("requirements", "programs")
def test_the_doctor_looks_at_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """mmdebstrap unpacks there, and VMs write there; on Debian 13 it lies in memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    doctor.examine(install=False, quiet=False)
    assert f"GB free for temporary files in {tmp_path}" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_TEMPORARY_GB", 1_000_000)
    doctor.examine(install=False, quiet=True)
    said = capsys.readouterr().out
    assert f"GB free for temporary files in {tmp_path}" in said
    assert "mend: export TMPDIR=" in said


@pytest.mark.parametrize(
    ("uids", "gids", "mend"),
    [
        ("somebody:100000:65536\n", "other:1:2\nsomebody:100000:65536\n", ""),
        ("other:100000:65536\n", "somebody:100000:65536\n", "--add-subuids 100000-165535"),
        ("somebody:100000:65536\n", None, "--add-subgids 100000-165535"),
        (None, "", "--add-subuids 100000-165535 --add-subgids 100000-165535"),
    ],
)
def test_who_is_not_root_needs_ranges_of_their_own(
    nobody: Path, uids: str | None, gids: str | None, mend: str
) -> None:
    for name, text in (("subuid", uids), ("subgid", gids)):
        if text is not None:
            (nobody / name).write_text(text)
    finding = doctor.ranges("somebody", nobody)
    assert finding.state == ("missing" if mend else "ok")
    assert finding.mend == (f"sudo usermod {mend} somebody" if mend else "")
