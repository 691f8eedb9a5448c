# SPDX-License-Identifier: GPL-2.0-only
"""QEMU, root file systems and the host machine's own kernel, from the cache or from Debian."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import layout
from harness.adapters import accel, rootfs, system_qemu
from harness.adapters.apt import PrivateApt
from harness.adapters.store import ArtifactStore
from harness.model.machine import QemuInstall
from harness.model.plan import Topology
from harness.model.progress import Progress
from harness.stages.lab import OWN_QEMU


@dataclass(frozen=True, slots=True)
class Provisions:
    """What machines are made of.

    host and own_kernel are None in solo, and with a lab machine. qemu: of this machine; that of
    the lab machine where no VM of this machine is needed.
    """

    qemu: QemuInstall
    guest: rootfs.RootImage
    host: rootfs.RootImage | None
    own_kernel: rootfs.OwnKernel | None


def provision(
    topology: Topology,
    cache: Path,
    store: ArtifactStore,
    log_dir: Path,
    progress: Progress,
    *,
    lab: bool = False,
    solo: bool = False,
) -> Provisions:
    """Everything a topology needs. What the cache holds is neither fetched nor made again.

    Whether KVM works is found out here already when there is a kernel for it.

    lab: a lab machine is the host or the guest. solo: there are guests that are VMs of this machine
    beside it.
    """
    recipes = rootfs.load_recipes(layout.CONFIGS / "rootfs" / "images.toml")
    init = layout.CONFIGS / "rootfs" / "init.sh"
    maker = rootfs.RootfsMaker(store, progress)

    def archive(name: str) -> Path:
        recipe = recipes[name]
        sources: tuple[str, ...] = ()
        if not maker.cached(recipe):
            apt = PrivateApt(cache / "apt" / "-".join(recipe.suites), recipe.suites)
            sources = apt.sources_lines()
        return maker.archive(recipe, sources, log_dir / f"rootfs-{name}.log")

    guest = maker.image(recipes["guest"], archive("guest"), init)
    if lab and not solo:
        return Provisions(OWN_QEMU, guest, None, None)
    system = system_qemu.find()
    need_host = topology is Topology.PAIR and not lab
    if not need_host and system is not None:
        return Provisions(system, guest, None, None)
    host_archive = archive("host")
    qemu = system or maker.qemu(host_archive, cache / "qemu")
    if not need_host:
        return Provisions(qemu, guest, None, None)
    host = maker.image(recipes["host"], host_archive, init)
    own_kernel = maker.own_kernel(host_archive)
    # where KVM does not work that takes its time, which costs nothing beside the compiler
    accel.probe(qemu, own_kernel.image, cache)
    return Provisions(qemu, guest, host, own_kernel)
