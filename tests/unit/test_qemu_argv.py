# SPDX-License-Identifier: GPL-2.0-only
"""The QEMU command line, the seed, the user network and the ELF notes: all pure."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from harness.core.elf_notes import build_id
from harness.core.head_tail import HeadTail
from harness.core.qemu_argv import VmWiring, kernel_append, qemu_argv
from harness.core.seed import Seed, seed_archive
from harness.core.user_net import (
    UserNet,
    choose_user_net,
    parse_ip_route,
    parse_listening_ports,
    parse_proc_net_route,
)
from harness.errors import InfraError
from harness.model.kernel import Role
from harness.model.machine import Accel, Disk, VmSpec

TCG = Accel("tcg", "test")
SPEC = VmSpec(
    name="guest",
    role=Role.GUEST,
    memory_mib=512,
    cpus=2,
    kernel="/k/bzImage",
    initrd="",
    append="quiet",
    root_image="/images/root.img",
)
WIRING = VmWiring(
    console="/run/console.log",
    qmp="path=/tmp/x/qmp",
    seed="/tmp/x/seed.tar",
    ssh_port=2222,
    network=UserNet(IPv4Network("10.201.7.0/24")),
)


def values(argv: list[str], option: str) -> list[str]:
    """The values of every occurrence of one option."""
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def test_nothing_that_was_not_asked_for() -> None:
    argv = qemu_argv(SPEC, TCG, WIRING)
    assert "-nodefaults" in argv
    assert "-no-user-config" in argv
    assert values(argv, "-display") == ["none"]
    assert values(argv, "-vga") == ["none"]
    assert "-daemonize" not in argv


def test_root_disk_comes_first_and_is_thrown_away() -> None:
    argv = qemu_argv(SPEC, TCG, WIRING)
    disks = [device for device in values(argv, "-device") if device.startswith("virtio-blk-pci")]
    assert "drive=root0" in disks[0]
    assert "serial=seed" in disks[1]
    root, seed = values(argv, "-drive")
    assert "file=/images/root.img" in root
    assert "snapshot=on" in root
    assert "readonly=on" in seed


@pytest.mark.parametrize(
    ("accel", "cpu", "expected"),
    [
        ("tcg", "", "EPYC-Rome,-svm"),
        ("kvm", "", "host"),
        ("kvm", "qemu64", "qemu64"),
    ],
)
def test_cpu_model(accel: str, cpu: str, expected: str) -> None:
    argv = qemu_argv(replace(SPEC, cpu=cpu), Accel(accel, ""), WIRING)
    assert values(argv, "-cpu") == [expected]


def test_memory_is_shared_with_device_models_outside_and_only_then() -> None:
    argv = qemu_argv(replace(SPEC, shared_memory=True), TCG, WIRING)
    assert values(argv, "-object") == ["memory-backend-memfd,id=ram0,size=512M,share=on"]
    assert values(argv, "-machine") == ["q35,memory-backend=ram0"]
    argv = qemu_argv(SPEC, TCG, WIRING)
    assert "-object" not in argv
    assert values(argv, "-machine") == ["q35"]
    assert values(argv, "-m") == ["512M"]


def test_a_vm_with_an_iommu_has_it_before_its_devices() -> None:
    argv = qemu_argv(replace(SPEC, iommu=True), TCG, WIRING)
    assert values(argv, "-device")[0] == "intel-iommu,intremap=on,caching-mode=on"
    assert values(argv, "-machine") == ["q35,kernel-irqchip=split"]
    assert not any("iommu," in device for device in values(qemu_argv(SPEC, TCG, WIRING), "-device"))


def test_memory_on_huge_pages_is_there_before_the_guest_starts() -> None:
    (backend,) = values(qemu_argv(replace(SPEC, huge_pages=True), TCG, WIRING), "-object")
    assert backend.endswith("share=on,hugetlb=on,hugetlbsize=2M,prealloc=on")


def test_virtio_goes_through_the_dma_api() -> None:
    devices = [d for d in values(qemu_argv(SPEC, TCG, WIRING), "-device") if "virtio" in d]
    assert len(devices) == 4
    assert all("iommu_platform=on" in d and "disable-legacy=on" in d for d in devices)


def test_network_reaches_the_guest_only_over_loopback() -> None:
    (network,) = values(qemu_argv(SPEC, TCG, WIRING), "-netdev")
    assert "net=10.201.7.0/24,host=10.201.7.2" in network
    assert "hostfwd=tcp:127.0.0.1:2222-10.201.7.15:22" in network
    assert "restrict=on" in network


def test_commas_in_paths_are_doubled() -> None:
    argv = qemu_argv(replace(SPEC, root_image="/a,b/root.img"), TCG, WIRING)
    assert "file=/a,,b/root.img," in values(argv, "-drive")[0]


def test_extra_disks_and_arguments() -> None:
    spec = replace(
        SPEC,
        disks=(Disk("/images/guest.img", "0123456789abcdef0123"),),
        extra_args=("-device", "intel-iommu"),
    )
    argv = qemu_argv(spec, TCG, replace(WIRING, pidfile="/run/pid"))
    assert "readonly=on" in values(argv, "-drive")[2]
    assert any("serial=0123456789abcdef0123" in device for device in values(argv, "-device"))
    assert argv[-2:] == ["-device", "intel-iommu"]
    assert values(argv, "-pidfile") == ["/run/pid"]


def test_kernel_command_line_ends_with_the_specs_own_options() -> None:
    append = kernel_append(replace(SPEC, append="panic=5 quiet"))
    words = append.split()
    assert words.index("panic=-1") < words.index("panic=5")
    assert "init=/sbin/tdisp-init" in words
    argv = qemu_argv(replace(SPEC, initrd="/k/initrd"), TCG, WIRING)
    assert values(argv, "-initrd") == ["/k/initrd"]
    assert values(argv, "-append") == [kernel_append(SPEC)]


def test_seed_holds_what_the_init_script_reads(tmp_path: Path) -> None:
    seed = Seed("guest", b"KEY", ("ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"), WIRING.network)
    data = seed_archive(seed)
    assert len(data) % 512 == 0
    assert data == seed_archive(seed)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path, filter="tar")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run/tdisp").iterdir()} == {
        "ssh_host_key": b"KEY",
        "authorized_keys": b"ssh-ed25519 AAAA a\nssh-ed25519 BBBB b\n",
        "hostname": b"guest\n",
        "network": b"address=10.201.7.15 netmask=255.255.255.0 gateway=10.201.7.2\n",
    }
    assert (tmp_path / "run/tdisp/ssh_host_key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dev/stdout").readlink() == Path("/proc/self/fd/1")
    assert (tmp_path / "dev/pts").is_dir()


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_user_net_avoids_routes() -> None:
    assert choose_user_net(nets("0.0.0.0/0")).network == IPv4Network("10.201.0.0/24")
    taken = nets("0.0.0.0/0", "10.201.0.0/24", "10.201.1.128/25")
    assert choose_user_net(taken).network == IPv4Network("10.201.2.0/24")
    assert choose_user_net(nets("10.0.0.0/8")).network == IPv4Network("172.29.0.0/24")
    net = choose_user_net(nets("10.0.0.0/8", "172.16.0.0/12"))
    assert (net.gateway, net.guest, net.netmask) == (
        "192.168.0.2",
        "192.168.0.15",
        "255.255.255.0",
    )


def test_user_net_says_when_all_are_taken() -> None:
    with pytest.raises(InfraError, match="no free private IPv4 range"):
        choose_user_net(nets("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def test_proc_net_route() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0200C90A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000C90A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert parse_proc_net_route(text) == tuple(nets("0.0.0.0/0", "10.201.0.0/24"))
    assert parse_proc_net_route("") == ()


def test_routes_of_all_tables() -> None:
    text = """[{"dst":"default","gateway":"10.0.0.1","dev":"eth0","flags":[]},
        {"dst":"100.64.0.0/10","dev":"wg0","table":"51820"},
        {"type":"local","dst":"127.0.0.1","dev":"lo","table":"local"}]"""
    assert parse_ip_route(text) == tuple(nets("0.0.0.0/0", "100.64.0.0/10", "127.0.0.1/32"))
    assert parse_ip_route("") == ()


def test_listening_ports() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        "   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n"
        "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n"
        "   2: 0F02000A:0016 0202000A:C350 01 00000000:00000000\n"
        "   0: 00000000000000000000000000000000:0017 0:0000 0A 0\n"
    )
    assert parse_listening_ports(text) == {22, 8080, 23}


def note(name: bytes, kind: int, data: bytes) -> bytes:
    def padded(value: bytes) -> bytes:
        return value + bytes(-len(value) % 4)

    return struct.pack("<III", len(name), len(data), kind) + padded(name) + padded(data)


def test_build_id_among_other_notes() -> None:
    notes = (
        note(b"Xen\0", 6, b"linux") + note(b"GNU\0", 3, bytes(range(20))) + note(b"L\0", 3, b"x")
    )
    assert build_id(notes) == bytes(range(20)).hex()


@pytest.mark.parametrize(
    "notes", [b"", b"\x04", note(b"Xen\0", 3, b"no"), note(b"GNU\0", 3, bytes(20))[:-4]]
)
def test_build_id_missing_or_cut(notes: bytes) -> None:
    assert build_id(notes) == ""


def test_head_tail_keeps_everything_up_to_the_limit() -> None:
    kept = HeadTail(10)
    kept.add(b"01234")
    kept.add(b"56789")
    assert kept.value() == b"0123456789"
    assert not kept.truncated


def test_head_tail_drops_the_middle() -> None:
    kept = HeadTail(10)
    for start in range(0, 100, 7):
        kept.add(bytes(range(start, min(start + 7, 100))))
    assert kept.truncated
    assert kept.value() == bytes(range(5)) + b"\n[90 bytes left out]\n" + bytes(range(95, 100))
