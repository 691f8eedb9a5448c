# SPDX-License-Identifier: GPL-2.0-only
"""Pins: what is the same from run to run, and what is refused."""

from __future__ import annotations

import pytest

from harness.core.pins import PinBook, difference, load, qemu_line
from harness.errors import UserError

ARGV = [
    "/home/me/.cache/tdisp-harness/qemu/ac66/lib64/ld-linux-x86-64.so.2",
    "--library-path",
    "/a/b:/c/d",
    "/home/me/.cache/tdisp-harness/qemu/ac66/bin/qemu-system-x86_64",
    "-nodefaults",
    "-accel",
    "tcg,thread=multi",
    "-m",
    "768M",
    "-chardev",
    "file,id=console0,path=/runs/20261122T194241Z-default/console-host.log,append=on",
    "-chardev",
    "socket,id=qmp0,host=127.0.0.1,port=30310,server=on",
    "-drive",
    "if=none,file=/home/me/.cache/tdisp-harness/store/image/de1a7e3b4e5c4ef5/root.img,format=raw",
    "-device",
    "virtio-blk-pci,drive=disk0,serial=27db3da3af7a070b38fc,disable-legacy=on",
    "-netdev",
    "user,id=net0,net=10.201.1.0/24,hostfwd=tcp:127.0.0.1:31585-10.201.1.15:22",
    "-kernel",
    "/var/cache/x/4bea6055584e28c0537b39418c3e5219567a4f08d3fc12b117533abde3696771",
    "-append",
    "console=ttyS0 earlyprintk=serial,ttyS0,115200 root=/dev/vda rw init=/sbin/tdisp-init",
]


def test_a_qemu_line_is_the_same_elsewhere() -> None:
    there = [
        word.replace("/home/me", "/root")
        .replace("20261122T194241Z", "20270101T000000Z")
        .replace("30310", "1024")
        .replace("31585", "65535")
        .replace("27db3da3af7a070b38fc", "00db3da3af7a070b38fc")
        .replace("4bea6055", "00000000")
        for word in ARGV
    ]
    assert qemu_line(there[3:]) == qemu_line(ARGV)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tcg,thread=multi", "kvm"),
        ("768M", "769M"),
        ("root.img", "other.img"),
        ("disable-legacy=on", "disable-legacy=off"),
        ("10.201.1.0/24", "10.201.2.0/24"),
        ("115200", "9600"),
        ("rw init", "ro init"),
        ("-nodefaults", "-no-user-config"),
    ],
)
def test_what_matters_to_a_machine_stays_in_the_line(old: str, new: str) -> None:
    assert qemu_line([word.replace(old, new) for word in ARGV]) != qemu_line(ARGV)


@pytest.mark.parametrize("argv", [[], ["qemu"], ["qemu", "-m", "1"]])
def test_short_lines(argv: list[str]) -> None:
    assert qemu_line(argv) == " ".join(argv[1:])


def test_the_same_again_is_fine() -> None:
    book = PinBook({"source": "a"})
    book.pin("source", "a")
    book.pin("plan", "new pins are noted")
    assert book.found == {"source": "a", "plan": "new pins are noted"}


def test_a_difference_is_refused_with_both_values() -> None:
    with pytest.raises(UserError) as caught:
        PinBook({"source": "commit a"}).pin("source", "commit b", "fetch it")
    said = caught.value.render()
    assert "source differs: the original run had commit a, this one finds commit b" in said
    assert "fetch it; REPRODUCE_ANYWAY=1" in said
    assert caught.value.exit_code == 64


def test_a_difference_that_is_allowed_is_said_once() -> None:
    said: list[str] = []
    book = PinBook({"source": "a"}, allow=True, say=said.append)
    for _ in range(2):
        book.pin("source", "b")
    assert said == ["note: reproduce: source differs: the original run had a, this one finds b"]


def test_of_a_long_line_only_the_difference_is_told() -> None:
    wanted = qemu_line(ARGV)
    found = wanted.replace("tcg,thread=multi", "kvm")
    assert difference(wanted, found) == "tcg,thread=multi became kvm"


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": 1}', "{", "[" * 100_000])
def test_bad_pins_name_the_file(text: str) -> None:
    with pytest.raises(UserError, match=r"^--pins x\.json: "):
        load(text, "--pins x.json")
