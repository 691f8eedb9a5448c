# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own benchmark of DMA mappings, with our guest series and without it.

No confidential vendor is present, and no device is accounted: what is measured is what the series
costs everybody. QEMU counts instructions (-icount): the guest's clock then is the number of
instructions executed, whatever else the machine does. What is left is the guest's own: interrupts
and caches of the allocators make two boots of one kernel differ by up to a twentieth, so several
are made of each. The benchmark rounds to 100 ns; with _SHIFT each instruction takes 2**_SHIFT ns,
so that this is less than one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import layout
from harness.adapters import process
from harness.adapters.store import ArtifactStore
from harness.core import cpio
from harness.model.kernel import KernelBuild, PatchedTree, Role, SourceSpec
from harness.model.machine import QemuInstall
from harness.model.plan import Topology
from harness.model.progress import SilentProgress
from harness.stages import build, config, patch, source
from harness.stages.kernels import OVERLAYS
from harness.stages.provision import provision
from tests.bench.machines import BARE_QEMU
from tests.bench.rows import Row

_QUIET = SilentProgress()
_FRAGMENT = Path(__file__).with_name("dma_map.config")
# what only the series has, as in a guest kernel; the rest it selects
_OURS = {"TDISP_EMU": "y", "TDISP_EMU_IOMMU": "y"}
_SHIFT = 7
_BOOT_S = 600.0
_REACH = 1.03

# name -> the benchmark's options: mode 0 is dma_map_single(), 1 dma_map_sg(); pages or entries
CASES = {
    "1 page": ("-m", "0", "-g", "1"),
    "64 KiB": ("-m", "0", "-g", "16"),
    "sg of 16": ("-m", "1", "-g", "16"),
}
# how the device's DMA is translated -> QEMU's options, words for the kernel
_PATHS: dict[str, tuple[tuple[str, ...], str]] = {
    "direct": ((), ""),
    "vIOMMU": (("-device", "amd-iommu"), "iommu.passthrough=0"),
}

# QEMU's `edu`: a PCI device for which the kernel has no driver
_INIT = """#!/bin/busybox sh
PATH=/bin
busybox mount -t sysfs sys /sys
busybox mount -t debugfs debug /sys/kernel/debug
for device in /sys/bus/pci/devices/*; do
	read -r id < $device/device
	[ $id = 0x11e8 ] && break
done
echo dma_map_benchmark > $device/driver_override
echo ${device##*/} > /sys/bus/pci/drivers/dma_map_benchmark/bind
read -r clock < /sys/devices/system/clocksource/clocksource0/current_clocksource
domain=none
[ ! -e $device/iommu_group/type ] || read -r domain < $device/iommu_group/type
echo "bench: clock $clock, domain $domain"
CASES
echo "bench: done"
busybox poweroff -f
"""
_LATENCY = re.compile(r"average (map|unmap) latency\(us\):([\d.]+)")


@dataclass(frozen=True, slots=True)
class Latency:
    """Instructions per map and per unmap."""

    map: float
    unmap: float


def parse(console: str, shift: int = _SHIFT) -> dict[str, Latency]:
    """Case to latency, from the console of a guest that ran _INIT; failed cases are left out."""
    per_us = 1000 / (1 << shift)
    found = {}
    for section in console.split("bench: case ")[1:]:
        name = section.splitlines()[0]
        figures = {what: float(us) * per_us for what, us in _LATENCY.findall(section)}
        if len(figures) == 2:
            found[name] = Latency(**figures)
    return found


def _kernel(workdir: Path, ours: bool, jobs: int) -> tuple[PatchedTree, KernelBuild]:
    """The guest's kernel with the benchmark, in a tree of its own; the store is shared."""
    cache = layout.cache_directory()
    store = ArtifactStore(cache / "store")
    role = Role.GUEST
    tree = patch.apply(
        role,
        source.fetch(SourceSpec(package="linux-source-7.3"), cache, _QUIET),
        patch.load(layout.SERIES / role.value, role) if ours else (),
        OVERLAYS,
        workdir / ("ours" if ours else "stock"),
        _QUIET,
    )
    proof, digest = config.configure(
        tree,
        (_FRAGMENT,),
        (),
        store,
        _QUIET,
        options=_OURS if ours else {},
    )
    return tree, build.build(
        tree,
        proof,
        digest,
        (),
        store=store,
        progress=_QUIET,
        log_dir=workdir,
        jobs=jobs,
        others=workdir.glob(f"*/{role.value}"),
    )


def _initramfs(directory: Path, busybox: Path, tree: PatchedTree) -> Path:
    """busybox, the tree's own program for its benchmark, and an init that runs all cases."""
    program = directory / "dma_map_benchmark"
    process.run(
        [
            *("gcc", "-static", "-O2", "-D_GNU_SOURCE"),
            *("-idirafter", str(tree.path / "include/uapi")),
            *("-o", str(program), str(tree.path / "tools/dma/dma_map_benchmark.c")),
        ],
        what="gcc",
    )
    # -d 2: from the device, which spares the filling of the buffer between two maps
    cases = "\n".join(
        f'echo "bench: case {name}"\ndma_map_benchmark -s 1 -d 2 {" ".join(options)}'
        for name, options in CASES.items()
    )
    path = directory / "dma-map.cpio"
    path.write_bytes(
        cpio.archive(
            [
                *(cpio.directory(name) for name in ("dev", "bin", "sys")),
                cpio.character_device("dev/console", 5, 1),
                cpio.executable("bin/busybox", busybox.read_bytes()),
                cpio.executable("bin/dma_map_benchmark", program.read_bytes()),
                cpio.executable("init", _INIT.replace("CASES", cases).encode()),
            ]
        )
    )
    return path


def _boot(
    install: QemuInstall, kernel: Path, initramfs: Path, serial: Path, way: str
) -> dict[str, Latency]:
    """What the benchmark tells in a guest whose clock counts instructions."""
    options, words = _PATHS[way]
    argv = [
        *install.argv_prefix,
        *BARE_QEMU,
        *("-machine", "q35", "-accel", "tcg", "-icount", f"shift={_SHIFT},sleep=off"),
        *("-cpu", "EPYC-Rome", "-smp", "1", "-m", "512", "-serial", f"file:{serial}"),
        *(*options, "-device", "edu"),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", f"console=ttyS0 panic=-1 clocksource=tsc tsc=reliable {words}"),
    ]
    serial.write_bytes(b"")
    begin = time.monotonic()
    child = process.TABLE.start(argv, env=dict(install.env))
    try:
        while child.alive() and time.monotonic() - begin < _BOOT_S:
            time.sleep(0.1)
    finally:
        child.end()
    text = serial.read_text(errors="replace")
    found = parse(text)
    if list(found) != list(CASES) or "bench: done" not in text:
        raise RuntimeError(f"the guest of the DMA benchmark said: {text[-800:]}")
    return found


def rows(directory: Path, jobs: int, runs: int = 5) -> list[Row]:
    """Instructions per map and unmap on our kernel, beside the kernel without our series.

    runs: boots of each.
    """
    cache = layout.cache_directory()
    store = ArtifactStore(cache / "store")
    found = provision(Topology.PAIR, cache, store, directory, _QUIET)
    assert found.own_kernel is not None
    tree, ours = _kernel(directory, True, jobs)
    _, stock = _kernel(directory, False, jobs)
    initramfs = _initramfs(directory, found.own_kernel.busybox, tree)
    serial = directory / "dma-map.log"
    table: list[Row] = []
    for way in _PATHS:
        seen = {
            name: [_boot(found.qemu, built.image, initramfs, serial, way) for _ in range(runs)]
            for name, built in (("ours", ours), ("stock", stock))
        }
        table += ratio_rows(way, seen)
    return table


def ratio_rows(way: str, seen: Mapping[str, Sequence[Mapping[str, Latency]]]) -> list[Row]:
    return [
        Row(
            f"dma {way}, {case}: {what}",
            [getattr(one[case], what) for one in seen["ours"]],
            [getattr(one[case], what) for one in seen["stock"]],
            "without our series",
            _REACH,
            "insn",
        )
        for case in CASES
        for what in ("map", "unmap")
    ]
