# SPDX-License-Identifier: GPL-2.0-only
"""The QEMU command line of a VM, and the command line of its kernel.

What happens when a guest ends is chosen so that the harness sees it at once and can tell the cases
apart: the kernel gets panic=-1 (reset at once instead of a silent wait) and QEMU
`-action reboot=shutdown`, so that a panic, a triple fault and a reboot all end QEMU with the QMP
event SHUTDOWN, reason guest-reset; the console says which of them it was. A clean power-off has
reason guest-shutdown. A kexec is no reset and goes unnoticed by QEMU, as it must. (With panic=0 in
the spec a panicked machine stands still; the machines then go by the panic on the console.)
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.user_net import UserNet
from harness.model.kernel import Role
from harness.model.machine import Accel, VmSpec

SEED_SERIAL = "seed"
INIT = "/sbin/tdisp-init"

# EPYC-Rome with SVM under TCG: a nested guest works. `-cpu max` outside with `-cpu host` inside
# dies early in the nested guest (XSAVE CPUID, 5-level paging).
_CPU = {"tcg": "EPYC-Rome", "kvm": "host"}
# Only a host machine has guests; the start of KVM in the kernel costs a fifth of a second under TCG
_TCG_SVM = {Role.HOST: ",+svm,+npt", Role.GUEST: ",-svm"}
# a nested guest under KVM on TCG-emulated SVM
NESTED_CPU = "qemu64"

# Virtio through the DMA API: needed as soon as the guest's memory is private.
_VIRTIO = "disable-legacy=on,iommu_platform=on"


@dataclass(frozen=True, slots=True)
class VmWiring:
    """Paths and ports, on the machine that runs QEMU, chosen for one start of a VM."""

    console: str  # file that receives the serial console
    qmp: str  # "path=/run/x/qmp" or "host=127.0.0.1,port=4444"
    seed: str  # tar archive
    ssh_port: int  # on 127.0.0.1, forwarded to the guest's port 22
    network: UserNet
    pidfile: str = ""  # not "": QEMU goes to the background and writes its pid there


def kernel_append(spec: VmSpec) -> str:
    """The whole kernel command line. The spec's own options come last, so that they win."""
    own = (
        "console=ttyS0",
        "earlyprintk=serial,ttyS0,115200",
        "root=/dev/vda rw rootfstype=ext4",
        f"init={INIT}",
        "panic=-1",
        "printk.devkmsg=on",  # markers must not fall to the rate limit
    )
    return " ".join((*own, spec.append)).strip()


def qemu_argv(spec: VmSpec, accel: Accel, wiring: VmWiring) -> list[str]:
    """The arguments that follow QemuInstall.argv_prefix."""
    return [
        *_machine(spec, accel),
        *_control(wiring),
        *_disks(spec, wiring),
        *_network(wiring),
        *_buses(),
        *_kernel(spec),
        *spec.extra_args,
    ]


def _memory(spec: VmSpec) -> list[str]:
    """The object `ram0`, or nothing for plain memory.

    The kernel gives plain memory transparent huge pages, which a file has not: a guest under
    emulated nested paging boots in five sixths of the time.
    """
    if not (spec.shared_memory or spec.huge_pages):
        return []
    # prealloc: a page that is missing is told now, not by a SIGBUS of the guest's QEMU later
    pages = ",hugetlb=on,hugetlbsize=2M,prealloc=on" if spec.huge_pages else ""
    return ["-object", f"memory-backend-memfd,id=ram0,size={spec.memory_mib}M,share=on{pages}"]


def _machine(spec: VmSpec, accel: Accel) -> list[str]:
    memory = _memory(spec)
    backend = ",memory-backend=ram0" if memory else ""
    # one thread for all CPUs makes a nested guest hang at once (seen with QEMU 11.1.3)
    kind = "tcg,thread=multi" if accel.name == "tcg" else accel.name
    return [
        # nothing that was not asked for
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *("-name", f"{_value(spec.name)},process=tdisp-{_value(spec.name)}"),
        *memory,
        # split: KVM's own interrupt controller knows no interrupt remapping, which vfio-pci needs
        *("-machine", f"q35{backend}{',kernel-irqchip=split' if spec.iommu else ''}"),
        *("-accel", kind, "-cpu", spec.cpu or cpu_model(spec.role, accel)),
        *("-m", f"{spec.memory_mib}M", "-smp", str(spec.cpus)),
        # before all devices, which are to be behind it. caching-mode: every mapping is told, also
        # those of what was not present, so that the platform gets them
        *(("-device", "intel-iommu,intremap=on,caching-mode=on") if spec.iommu else ()),
    ]


def cpu_model(role: Role, accel: Accel) -> str:
    """What -cpu takes, when the spec names none."""
    return _CPU[accel.name] + (_TCG_SVM[role] if accel.name == "tcg" else "")


def _control(wiring: VmWiring) -> list[str]:
    return [
        # serial console to a file, from the first byte on and independent of the harness
        *("-chardev", f"file,id=console0,path={_value(wiring.console)},append=on"),
        *("-serial", "chardev:console0"),
        # QMP
        *("-chardev", f"socket,id=qmp0,{wiring.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp0,mode=control"),
        # how the guest's end shows: see above
        *("-action", "reboot=shutdown"),
        *(("-daemonize", "-pidfile", wiring.pidfile) if wiring.pidfile else ()),
    ]


def _disks(spec: VmSpec, wiring: VmWiring) -> list[str]:
    # the root disk comes first: it must be /dev/vda
    return [
        *("-drive", _throw_away(spec.root_image)),
        *("-device", f"virtio-blk-pci,drive=root0,{_VIRTIO}"),
        *_read_only_disk("seed0", wiring.seed, SEED_SERIAL),
        *(
            argument
            for number, disk in enumerate(spec.disks)
            for argument in _read_only_disk(f"disk{number}", disk.path, disk.serial)
        ),
    ]


def _throw_away(image: str) -> str:
    # snapshot=on: writes go to an unlinked file in QEMU's $TMPDIR
    return f"if=none,id=root0,file={_value(image)},format=raw,snapshot=on,cache=unsafe"


def _read_only_disk(name: str, path: str, serial: str) -> list[str]:
    return [
        *("-drive", f"if=none,id={name},file={_value(path)},format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive={name},serial={_value(serial)},{_VIRTIO}"),
    ]


def _network(wiring: VmWiring) -> list[str]:
    net = wiring.network
    forward = f"hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-{net.guest}:22"
    return [
        # restrict=on: the guest reaches nothing; only SSH reaches the guest
        "-netdev",
        f"user,id=net0,net={net.network},host={net.gateway},ipv6=off,restrict=on,{forward}",
        # no boot ROM: saves its start-up time
        *("-device", f"virtio-net-pci,netdev=net0,romfile=,{_VIRTIO}"),
    ]


def _buses() -> list[str]:
    return [
        *("-device", f"virtio-rng-pci,{_VIRTIO}"),
        # hotplug by the kernel's pciehp instead of ACPI
        *("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"),
    ]


def _kernel(spec: VmSpec) -> list[str]:
    initrd = ("-initrd", spec.initrd) if spec.initrd else ()
    return ["-kernel", spec.kernel, *initrd, "-append", kernel_append(spec)]


def _value(text: str) -> str:
    """A value inside a comma-separated QEMU option."""
    return text.replace(",", ",,")
