# SPDX-License-Identifier: GPL-2.0-only
"""Consoles in files, and streams of them from another machine."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from harness.adapters.console import ConsoleFile, RemoteStream, follow_file
from harness.adapters.ssh import SshConnection
from harness.core.kernel_log import KernelLog
from tests.integration.loopback_sshd import LoopbackSshd


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def wait_content(path: Path, content: bytes, timeout_s: float = 10.0) -> bytes:
    deadline = time.monotonic() + timeout_s
    while path.read_bytes() != content and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.read_bytes()


def test_missing_file_is_an_empty_console(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    assert (console.size(), console.tail(), console.read()) == (0, "", b"")
    assert not console.wait_for(b"x", 0.05)


def test_tail(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    append(console.path, b"".join(b"line %d\r\n" % number for number in range(10_000)))
    assert console.tail(2) == "line 9998\nline 9999"
    append(console.path, b"open \xff end")
    assert console.tail(2) == "line 9999\nopen \ufffd end"
    assert console.tail(40, start=console.size() - 3) == "end"


def test_needle_that_arrives_in_pieces(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    append(console.path, b"noise tdisp-")

    def later() -> None:
        for piece in (b"harness: ss", b"hd rea", b"dy\n"):
            time.sleep(0.1)
            append(console.path, piece)

    thread = threading.Thread(target=later)
    thread.start()
    assert console.wait_for(b"tdisp-harness: sshd ready", 5.0)
    thread.join()


def test_start_hides_what_was_before(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    append(console.path, b"ready\n")
    assert console.wait_for(b"ready", 0.05)
    assert not console.wait_for(b"ready", 0.05, start=console.size())
    assert not console.wait_for(b"ready", 0.05, start=1)


def test_the_first_needle_seen_wins(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    append(console.path, b"... panic")
    assert console.wait_any((b"ready", b"panic"), 1.0) == b"panic"


def test_waiting_stops_at_the_end_but_looks_once_more(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console", ended=lambda: True)
    begin = time.monotonic()
    assert not console.wait_for(b"ready", 20.0)
    append(console.path, b"ready")
    assert console.wait_for(b"ready", 20.0)
    assert time.monotonic() - begin < 2


def test_stream_copies_past_and_future(ssh: SshConnection, tmp_path: Path) -> None:
    remote, local = tmp_path / "re mote{x}", tmp_path / "local"
    append(remote, b"past\n")
    stream = follow_file(ssh, str(remote), local)
    assert wait_content(local, b"past\n") == b"past\n"
    append(remote, b"future\n")
    assert wait_content(local, b"past\nfuture\n") == b"past\nfuture\n"
    stream.close()
    append(remote, b"later\n")
    time.sleep(0.3)
    assert local.read_bytes() == b"past\nfuture\n"


def test_stream_goes_on_after_a_lost_connection(
    sshd: LoopbackSshd, ssh: SshConnection, tmp_path: Path
) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    append(remote, b"one\n")
    stream = follow_file(ssh, str(remote), local)
    assert wait_content(local, b"one\n") == b"one\n"
    sshd.cut()
    append(remote, b"two\n")
    assert local.read_bytes() == b"one\n"
    ssh.run("true", timeout_s=10)  # somebody connects again
    assert ssh.run("true", timeout_s=10).exit_status == 0
    assert wait_content(local, b"one\ntwo\n") == b"one\ntwo\n"
    stream.close()


def test_a_kernel_log_is_copied_once_per_boot(
    sshd: LoopbackSshd, ssh: SshConnection, tmp_path: Path
) -> None:
    boot, remote, local = tmp_path / "boot_id", tmp_path / "remote", tmp_path / "local"
    one, two = b"[    1.000000] WARNING: one\n", b"[    2.000000] two\n"
    boot.write_text("first\n")
    append(remote, one)
    dmesg = f"cat {boot}; exec tail -n +1 -f {remote}"
    stream = RemoteStream(ssh, dmesg, local, KernelLog())
    assert wait_content(local, one) == one
    sshd.cut()
    append(remote, two)
    for _ in range(2):  # somebody connects again
        ssh.run("true", timeout_s=10)
    assert wait_content(local, one + two) == one + two
    sshd.cut()
    boot.write_text("second\n")
    for _ in range(2):
        ssh.run("true", timeout_s=10)
    assert wait_content(local, (one + two) * 2) == (one + two) * 2
    stream.close()


def test_close_waits_for_what_is_under_way(ssh: SshConnection, tmp_path: Path) -> None:
    local = tmp_path / "local"
    stream = RemoteStream(ssh, "echo first; sleep 0.5; echo '{{last}}'; sleep 30", local)
    deadline = time.monotonic() + 20
    while not (local.exists() and local.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    stream.close(settle_s=2.0)
    assert local.read_bytes() == b"first\n{last}\n"
