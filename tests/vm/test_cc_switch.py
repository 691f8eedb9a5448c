# SPDX-License-Identifier: GPL-2.0-only
"""The switch cc_emulated=on where it does not belong."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.model.machine import VmSpec
from tests.vm import gdb_stub
from tests.vm.conftest import Assets, MakeVm

# enum cc_vendor of arch/x86/include/asm/coco.h
CC_VENDOR_NONE = (0).to_bytes(4, "little")
CC_VENDOR_AMD = (1).to_bytes(4, "little")
CC_VENDOR_INTEL = (2).to_bytes(4, "little")
TAINT_TEST = 1 << 18
ACTIVE = b"emulated confidential platform, for testing"


@pytest.fixture(autouse=True)
def _with_platform_code(assets: Assets) -> None:
    if "CONFIG_TDISP_EMU=y" not in assets.build.config.read_text():
        pytest.skip("the guest kernel has no emulated confidential platform")


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="gdb-"))
    yield path
    shutil.rmtree(path)


def symbol(assets: Assets, name: str) -> int:
    for line in assets.build.system_map.read_text().splitlines():
        address, _, found = line.split()
        if found == name:
            return int(address, 16)
    raise AssertionError(f"{name} is not in System.map")


def test_without_a_platform_it_is_told_and_boots(
    assets: Assets, make_vm: MakeVm, spec: VmSpec
) -> None:
    machine = make_vm(replace(spec, append="cc_emulated=on"), assets.build)
    machine.start()
    console = machine.console.read()
    assert b"cc_emulated=on, but there is no security processor" in console
    assert ACTIVE in console
    tainted = int(machine.read("/proc/sys/kernel/tainted"))
    assert tainted & TAINT_TEST, "an emulated platform protects nothing, and the kernel says so"


def test_on_real_confidential_hardware_it_is_refused(
    assets: Assets, make_vm: MakeVm, spec: VmSpec, short: Path
) -> None:
    """The kernel believes to be a TDX guest, from the call of the switch's code to its end.

    No longer, since the rest of it would then speak to a TDX module that is not there.
    """
    path = short / "s"
    wired = replace(
        spec,
        append="cc_emulated=on nokaslr",
        extra_args=(*spec.extra_args, *gdb_stub.arguments(path)),
    )
    machine = make_vm(wired, assets.build)
    vendor = symbol(assets, "cc_vendor")
    seen: list[bytes] = []

    def pretend() -> None:
        with gdb_stub.attached(path) as stub:
            stub.stop_at(symbol(assets, "cc_emulated_init"))
            seen.append(stub.read(vendor, 4))
            stub.write(vendor, CC_VENDOR_INTEL)
            stub.stop_at(stub.return_address())
            seen.append(stub.read(vendor, 4))
            stub.write(vendor, seen[0])
            stub.go()

    thread = threading.Thread(target=pretend)
    thread.start()
    machine.start()
    thread.join(10)
    # an AMD processor is its own vendor, also where nothing is confidential
    assert seen[0] in (CC_VENDOR_NONE, CC_VENDOR_AMD)
    assert seen[1] == CC_VENDOR_INTEL
    console = machine.console.read()
    assert b"refused: this is a real confidential platform" in console
    assert ACTIVE not in console
    assert not int(machine.read("/proc/sys/kernel/tainted")) & TAINT_TEST
