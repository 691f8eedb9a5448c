# SPDX-License-Identifier: GPL-2.0-only
"""What a topology needs, with a maker of images that makes none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.adapters import accel, rootfs, system_qemu
from harness.adapters.store import ArtifactStore
from harness.model.machine import QemuInstall
from harness.model.plan import Topology
from harness.model.progress import SilentProgress
from harness.stages import provision

QEMU = QemuInstall(("qemu-system-x86_64",), (), "11.1", "a test")


class Maker:
    """Stands for rootfs.RootfsMaker: everything is cached."""

    def __init__(self, store: ArtifactStore, progress: SilentProgress) -> None:
        del store, progress

    def cached(self, recipe: object) -> bool:
        return recipe is not None

    def archive(self, recipe: object, sources: object, log: Path) -> object:
        del sources, log
        return recipe

    def image(self, recipe: object, archive: object, init: Path) -> object:
        del archive, init
        return recipe

    def own_kernel(self, archive: object) -> object:
        del archive
        return SimpleNamespace(image=Path("vmlinuz"))


@pytest.mark.parametrize(
    ("topology", "probed"), [(Topology.PAIR, ["vmlinuz"]), (Topology.SOLO, [])]
)
def test_kvm_is_looked_at_beside_the_compiler_when_there_is_a_kernel_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topology: Topology, probed: list[str]
) -> None:
    asked: list[str] = []

    def probe(*arguments: object) -> None:
        asked.append(str(arguments[1]))

    monkeypatch.setattr(rootfs, "RootfsMaker", Maker)
    monkeypatch.setattr(system_qemu, "find", lambda: QEMU)
    monkeypatch.setattr(accel, "probe", probe)
    store = ArtifactStore(tmp_path / "store")
    found = provision.provision(topology, tmp_path, store, tmp_path, SilentProgress())
    assert found.qemu is QEMU
    assert asked == probed
