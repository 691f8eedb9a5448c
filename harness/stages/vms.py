# SPDX-License-Identifier: GPL-2.0-only
"""The VMs of a run, made but not started: the guest alone, the host machine, the guest on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.adapters.rootfs import RootImage
from harness.core import assignment
from harness.core.splat_rules import RuleSet
from harness.errors import InfraError, MachineError
from harness.machines.nested import NestedMachine, image_serial
from harness.machines.platform_process import PlatformProcess
from harness.machines.qemu import QemuMachine
from harness.machines.remote import RemoteMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, Disk, QemuInstall, VmSpec
from harness.model.plan import Plan, VmSize
from harness.model.platform import PlatformCell
from harness.model.progress import Progress
from harness.stages.provision import Provisions

_SHORT_S = 60.0
# a kernel of a distribution has KVM as modules, which nothing else loads without udev
_HAS_KVM = "modprobe -abq kvm_amd kvm_intel 2>/dev/null; test -w /dev/kvm"


@dataclass(frozen=True, slots=True)
class Login:
    """What all VMs of a run have in common: see machines.vm.QemuSetup."""

    run_dir: Path
    user_key: Path
    authorized: str
    rules: RuleSet
    on_temporary: Callable[[Path], None]


class VmMaker:
    """platform: of the machine's cell, started already, or None."""

    def __init__(
        self,
        plan: Plan,
        builds: Mapping[Role, KernelBuild],
        provisions: Provisions,
        login: Login,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._builds = builds
        self._provisions = provisions
        self._login = login
        self._progress = progress

    def guest(self, name: str, accel: Accel, platform: PlatformProcess | None) -> QemuMachine:
        """A guest that is a VM of this machine."""
        build = self._builds[Role.GUEST]
        spec = self._spec(name, Role.GUEST, build.image)
        setup = self._setup(self._provisions.qemu, accel)
        if platform is None:
            return QemuMachine(spec, setup, build)
        append, arguments = platform.cell.append, platform.qemu_arguments
        spec = replace(spec, append=append, extra_args=arguments, shared_memory=True)
        return QemuMachine(spec, setup, build, platform.lost)

    def host(self, accel: Accel, platform: PlatformProcess | None) -> QemuMachine:
        """The host machine, on its own kernel; with a platform it has an IOMMU to assign it by."""
        own, image = self._provisions.own_kernel, self._provisions.host
        if own is None or image is None:
            raise InfraError("pair: the host machine's image was not provided")
        guest = self._provisions.guest
        guest_disk = Disk(str(guest.path), image_serial(guest.path, guest.digest))
        spec = self._spec(Role.HOST.value, Role.HOST, own.image, image)
        spec = replace(spec, initrd=str(own.initrd), disks=(guest_disk,))
        setup = self._setup(self._provisions.qemu, accel)
        if platform is None:
            return QemuMachine(spec, setup)
        spec = replace(
            spec,
            iommu=True,
            shared_memory=True,
            append=assignment.HOST_APPEND,
            extra_args=platform.qemu_arguments,
        )
        return QemuMachine(spec, setup, None, platform.lost)

    def nested(self, host: RemoteMachine, cell: PlatformCell | None) -> NestedMachine:
        """A guest on the host machine; in a cell, with that machine's platform assigned to it."""
        build = self._builds[Role.GUEST]
        spec = self._spec(Role.GUEST.value, Role.GUEST, build.image)
        there = QemuInstall(("qemu-system-x86_64",), (), self._provisions.qemu.version, "system")
        kvm = host.run(_HAS_KVM, timeout_s=_SHORT_S).exit_status == 0
        accel = (
            Accel("kvm", "the host machine has /dev/kvm")
            if kvm
            else Accel("tcg", "the host machine's kernel has no KVM here")
        )
        self._progress.say(f"guest: starting on the host machine with {accel.name.upper()}")
        if cell is not None:
            arguments = self._assign(host, cell, spec.memory_mib)
            spec = replace(spec, append=cell.append, extra_args=arguments, huge_pages=True)
        return NestedMachine(spec, self._setup(there, accel), host, build)

    def _assign(self, host: RemoteMachine, cell: PlatformCell, memory_mib: int) -> tuple[str, ...]:
        """Hand the functions to vfio-pci, and make room for the guest; the guest's arguments."""
        if cell.by_host:
            told = host.run(assignment.connect(), timeout_s=_SHORT_S).stdout.decode()
            tsm = assignment.check_connected(told, cell)
            self._progress.say(f"host: {tsm} has connected the TDIs, vfio-pci binds them")
        bound = host.run(assignment.bind(), timeout_s=_SHORT_S, check=True)
        functions = assignment.parse_bound(bound.stdout.decode(), cell)
        count = assignment.huge_pages(memory_mib)
        have = host.run(assignment.reserve(count), timeout_s=_SHORT_S, check=True).stdout
        if int(have) < count:
            raise MachineError(
                f"host: {int(have)} huge pages of {count} for the guest's memory",
                hint="give the host more memory, or the guest less (machines.*.memory_mib)",
            )
        said = " ".join((functions.guest_port, *functions.tdis))
        self._progress.say(f"host: assigns {said} to the guest with vfio-pci")
        return assignment.assigned(cell, functions)

    def _spec(self, name: str, role: Role, kernel: Path, image: RootImage | None = None) -> VmSpec:
        size: VmSize = self._plan.host if role is Role.HOST else self._plan.guest
        image = image or self._provisions.guest
        return VmSpec(
            name=name,
            role=role,
            memory_mib=size.memory_mib,
            cpus=size.cpus,
            kernel=str(kernel),
            initrd="",
            append="",
            root_image=str(image.path),
            root_sha256=image.digest,
        )

    def _setup(self, install: QemuInstall, accel: Accel) -> QemuSetup:
        login = self._login
        return QemuSetup(
            install=install,
            accel=accel,
            run_dir=login.run_dir,
            user_key=login.user_key,
            authorized=login.authorized,
            rules=login.rules,
            on_temporary=login.on_temporary,
        )
