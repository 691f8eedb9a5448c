# SPDX-License-Identifier: GPL-2.0-only
"""Whether KVM works: what the probe concludes, and the reason that it gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.adapters import accel
from harness.adapters.accel import _watch
from harness.model.machine import Accel, QemuInstall

_DUMP = "KVM internal error. Suberror: 1\nRAX=0000 RBX=0000\nRIP=fff0\n"
_NO = "/dev/kvm is there, but"


@pytest.mark.parametrize(
    ("serial", "errors", "alive", "expected"),
    [
        (b"[ 0.0] Linux version 7.3", "", True, Accel("kvm", "a kernel boots under KVM")),
        # it may print, and end, between two looks
        (b"[ 0.0] Linux version 7.3", "", False, Accel("kvm", "a kernel boots under KVM")),
        (b"", _DUMP, True, Accel("tcg", f"{_NO} QEMU says: KVM internal error. Suberror: 1")),
        (
            b"",
            "warning: x\nqemu: failed to initialize kvm: Permission denied\n",
            False,
            Accel("tcg", f"{_NO} QEMU says: qemu: failed to initialize kvm: Permission denied"),
        ),
        (b"", "", False, Accel("tcg", f"{_NO} QEMU ended under KVM: no message")),
        (b"", "", True, Accel("tcg", f"{_NO} a kernel printed nothing under it within 0 s")),
        (
            b"early",
            "warning: cpu\n",
            True,
            Accel(
                "tcg",
                f"{_NO} a kernel printed 5 bytes and no banner under it within 0 s; "
                "QEMU says: warning: cpu",
            ),
        ),
    ],
)
def test_the_probe(
    tmp_path: Path, serial: bytes, errors: str, alive: bool, expected: Accel
) -> None:
    (tmp_path / "serial").write_bytes(serial)
    (tmp_path / "errors").write_text(errors)
    found = _watch(lambda: alive, tmp_path / "serial", tmp_path / "errors", limit_s=0.1)
    assert found == expected


# finds the file behind "-serial file:" and does there what a kernel does
QEMU = """#!/bin/sh
echo "$*" >> '{directory}/started'
for word; do case "$word" in file:*) serial=${{word#file:}} ;; esac; done
{does}
"""


def fake_qemu(directory: Path, does: str, version: str = "11.1.3") -> QemuInstall:
    path = directory / "qemu"
    path.write_text(QEMU.format(directory=directory, does=does))
    path.chmod(0o755)
    return QemuInstall((str(path),), (), version, "system")


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ('echo "Linux version 7.3" > "$serial"; sleep 60', "kvm"),
        ("echo 'qemu: failed to initialize kvm: x' >&2; exit 1", "tcg"),
    ],
)
def test_kvm_is_tried_once_and_the_answer_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, expected: str
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    qemu = fake_qemu(tmp_path, does)
    found = accel.probe(qemu, tmp_path / "bzImage", tmp_path / "cache")
    assert found.name == expected
    assert found.reason
    started = (tmp_path / "started").read_text().splitlines()
    assert "-accel kvm" in started[0]
    assert accel.probe(qemu, tmp_path / "bzImage", tmp_path / "cache") == found
    assert len(started) == len((tmp_path / "started").read_text().splitlines()) == 1
    # another QEMU, or a record that was cut off, is another question
    accel.probe(fake_qemu(tmp_path, does, "12.0.0"), tmp_path / "bzImage", tmp_path / "cache")
    for record in (tmp_path / "cache/accel").iterdir():
        record.write_text('{"name": "kv')
    assert accel.probe(qemu, tmp_path / "bzImage", tmp_path / "cache") == found
    assert len((tmp_path / "started").read_text().splitlines()) == 3


def test_without_access_to_kvm_nothing_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = accel.probe(fake_qemu(tmp_path, "exit 1"), tmp_path / "bzImage", tmp_path / "cache")
    assert found.name == "tcg"
    assert found.reason in ("no /dev/kvm", "no permission for /dev/kvm")
    assert not (tmp_path / "started").exists()
