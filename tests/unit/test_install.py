# SPDX-License-Identifier: GPL-2.0-only
"""What of the kselftests goes to a machine: everything, or no program that will not run."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import cast

import pytest

from harness.adapters.pack import pack
from harness.machines.remote import RemoteMachine
from harness.model.kernel import KernelBuild, Role
from harness.stages import selftest

FILES = {
    "run_kselftest.sh": "#!/bin/sh\n",
    "kselftest-list.txt": "tsm:races\ntsm:rebind\niommu:iommufd\n",
    "kselftest/runner.sh": "#",
    "tsm/races": "program",
    "tsm/rebind": "program",
    "tsm/tdi_tool": "no test, but tests start it",
    "tsm/settings": "timeout=1",
    "iommu/iommufd": "program",
    f"iommu/{'long' * 30}": "a name that has no room in a plain tar header",
}


class Sent:
    """A machine that keeps what it is sent."""

    def __init__(self) -> None:
        self.data = b""

    def unpack(self, archive: bytes, directory: str, *, replaced: str) -> None:
        assert (directory, replaced) == ("/", "/opt/kselftest")
        self.data = archive

    def names(self) -> set[str]:
        with tarfile.open(fileobj=io.BytesIO(self.data), ignore_zeros=True) as archive:
            return {entry.name for entry in archive if entry.isfile()}


@pytest.fixture
def build(tmp_path: Path) -> KernelBuild:
    for name, text in FILES.items():
        path = tmp_path / "staging" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    pack(tmp_path / "staging", tmp_path / "kselftests.tar.gz")
    (tmp_path / "kselftest-list.txt").write_text(FILES["kselftest-list.txt"])
    return KernelBuild(Role.GUEST, "k", tmp_path, "7.3", "ab", "gcc", (), True, 1.0, "c")


def install(build: KernelBuild, *wanted: set[str]) -> tuple[set[str], tuple[str, ...]]:
    machine = Sent()
    kit = selftest.kit(build, *wanted)
    selftest.install(cast("RemoteMachine", machine), kit)
    names = machine.names()
    assert all(name.startswith("opt/kselftest/") for name in names)
    return {name.removeprefix("opt/kselftest/") for name in names}, kit.listed


def test_without_a_choice_everything_is_installed(build: KernelBuild) -> None:
    names, listed = install(build)
    assert names == set(FILES)
    assert listed == ("tsm:races", "tsm:rebind", "iommu:iommufd")


def test_programs_that_will_not_run_stay_away_and_nothing_else(build: KernelBuild) -> None:
    names, listed = install(build, {"tsm:races"})
    assert set(FILES) - names == {"tsm/rebind", "iommu/iommufd"}
    assert listed == ("tsm:races",)


def test_a_role_without_a_test_gets_no_program(build: KernelBuild) -> None:
    names, listed = install(build, set())
    assert set(FILES) - names == {"tsm/races", "tsm/rebind", "iommu/iommufd"}
    assert listed == ()


def test_modes_and_contents_survive(build: KernelBuild, tmp_path: Path) -> None:
    machine = Sent()
    selftest.install(cast("RemoteMachine", machine), selftest.kit(build, {"tsm:races"}))
    (tmp_path / "sent.tar.gz").write_bytes(machine.data)
    with tarfile.open(tmp_path / "sent.tar.gz") as archive:
        entry = archive.getmember("opt/kselftest/tsm/races")
        stream = archive.extractfile(entry)
        assert stream is not None
        assert stream.read() == b"program"
        assert entry.mode & 0o111


def test_modules_go_along_to_a_machine_that_is_not_deployed_to(
    build: KernelBuild, tmp_path: Path
) -> None:
    module = tmp_path / "modules/lib/modules/7.3/kernel/demo.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"module")
    pack(tmp_path / "modules", build.modules)
    machine = Sent()
    selftest.install(
        cast("RemoteMachine", machine), selftest.kit(build, {"tsm:races"}, modules=True)
    )
    assert {"lib/modules/7.3/kernel/demo.ko", "opt/kselftest/tsm/races"} <= machine.names()
