# SPDX-License-Identifier: GPL-2.0-only
"""Whether KVM works: what the probe concludes, and the reason that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.accel import _watch
from harness.model.machine import Accel

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
