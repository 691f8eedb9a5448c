# SPDX-License-Identifier: GPL-2.0-only
"""SSH against a real sshd on loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from harness.adapters import transfer
from harness.adapters.network import free_port
from harness.adapters.pack import pack
from harness.adapters.ssh import SshConnection, SshEndpoint, SshRefusedError
from harness.adapters.ssh_keys import generate_key
from harness.errors import MachineError
from tests.integration.loopback_sshd import LoopbackSshd


def test_status_and_both_outputs(ssh: SshConnection) -> None:
    result = ssh.run("echo out; echo err >&2; exit 7", timeout_s=10)
    assert (result.exit_status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert not (result.timed_out or result.lost or result.truncated)


def test_a_list_is_quoted(ssh: SshConnection) -> None:
    result = ssh.run(["printf", "%s|", "a b", "$HOME", "'"], timeout_s=10)
    assert result.stdout == b"a b|$HOME|'|"


def test_stdin_larger_than_every_buffer_while_output_flows(ssh: SshConnection) -> None:
    data = os.urandom(8 << 20)
    result = ssh.run("tee /dev/stderr | sha256sum", timeout_s=60, stdin=data)
    assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert result.stderr == data


def test_stdin_that_nobody_reads(ssh: SshConnection) -> None:
    result = ssh.run("exit 3", timeout_s=20, stdin=bytes(16 << 20))
    assert result.exit_status == 3


def test_output_is_passed_on_while_it_appears(ssh: SshConnection) -> None:
    seen: list[tuple[float, bytes]] = []
    begin = time.monotonic()
    ssh.run(
        "echo one; sleep 1; echo two",
        timeout_s=10,
        on_output=lambda data: seen.append((time.monotonic() - begin, data)),
    )
    assert b"".join(data for _, data in seen) == b"one\ntwo\n"
    assert seen[0][0] < 0.8


def test_flood_keeps_head_and_tail_and_little_memory(ssh: SshConnection) -> None:
    before = psutil.Process().memory_info().rss
    peak = [before]
    command = "echo HEAD; head -c 100000000 /dev/zero; echo; echo TAIL"
    result = ssh.run(
        command,
        timeout_s=100,
        max_output_bytes=1 << 20,
        on_output=lambda _: peak.append(max(peak.pop(), psutil.Process().memory_info().rss)),
    )
    assert result.exit_status == 0
    assert result.truncated
    assert result.stdout.startswith(b"HEAD\n")
    assert result.stdout.endswith(b"\nTAIL\n")
    assert len(result.stdout) < 1_100_000
    assert b"bytes left out]" in result.stdout
    assert peak[0] - before < 50 << 20


def test_timeout_ends_the_remote_process_group(ssh: SshConnection) -> None:
    mark = f"{os.getpid()}{time.time_ns() % 1000}"
    begin = time.monotonic()
    result = ssh.run(f"sleep 7{mark} & sleep 7{mark}; echo never", timeout_s=1)
    assert result.timed_out
    assert result.exit_status is None
    assert b"never" not in result.stdout
    assert time.monotonic() - begin < 8
    deadline = time.monotonic() + 5
    while sleeping(f"7{mark}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not sleeping(f"7{mark}")


def test_long_command(ssh: SshConnection) -> None:
    result = ssh.run(f"# {'x' * 20000}\nread -r line; echo got:$line", timeout_s=20)
    assert (result.exit_status, result.stdout) == (0, b"got:\n")
    with pytest.raises(MachineError, match="a command of 20000 characters and an input"):
        ssh.run("x" * 20000, timeout_s=20, stdin=b"input")


def sleeping(argument: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] == ["sleep", argument]:
            found.append(process.pid)
    return found


def test_output_before_a_timeout_is_kept(ssh: SshConnection) -> None:
    result = ssh.run("echo begun; sleep 30", timeout_s=1)
    assert (result.timed_out, result.stdout) == (True, b"begun\n")


def test_background_process_does_not_hold_the_command(ssh: SshConnection) -> None:
    begin = time.monotonic()
    result = ssh.run("sleep 5 & echo done", timeout_s=20)
    assert (result.exit_status, result.stdout) == (0, b"done\n")
    assert time.monotonic() - begin < 4


def test_shell_that_dies_of_a_signal_is_not_a_lost_connection(ssh: SshConnection) -> None:
    result = ssh.run("kill -KILL $$", timeout_s=10)
    assert (result.exit_status, result.lost) == (-1, False)


def test_connection_cut_in_the_middle(sshd: LoopbackSshd, ssh: SshConnection) -> None:
    threading.Timer(0.7, sshd.cut).start()
    begin = time.monotonic()
    result = ssh.run("echo begun; sleep 30", timeout_s=20)
    assert result.lost
    assert result.exit_status is None
    assert result.stdout == b"begun\n"
    assert time.monotonic() - begin < 5
    assert ssh.run("echo again", timeout_s=10).stdout == b"again\n"


def test_small_packets_are_not_held_back(ssh: SshConnection) -> None:
    ssh.connect()
    assert ssh._transport is not None
    plain = ssh._transport.sock
    assert isinstance(plain, socket.socket)
    assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_server_restarted(sshd: LoopbackSshd, ssh: SshConnection) -> None:
    sshd.stop()
    lost = ssh.run("true", timeout_s=1)
    assert lost.lost
    sshd.start()
    assert ssh.run("echo back", timeout_s=10).stdout == b"back\n"


def test_known_end_of_the_machine_stops_waiting(sshd: LoopbackSshd) -> None:
    ended = threading.Event()
    ssh = SshConnection("loopback", sshd.endpoint(), ended.is_set)
    ssh.connect()
    threading.Timer(0.5, ended.set).start()
    begin = time.monotonic()
    assert ssh.run("sleep 30", timeout_s=20).lost
    assert time.monotonic() - begin < 5
    ssh.close()


def test_commands_side_by_side(ssh: SshConnection) -> None:
    results = {}

    def work(number: int) -> None:
        results[number] = ssh.run(f"sleep 0.5; echo {number}", timeout_s=20).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(8)}
    assert time.monotonic() - begin < 4


def test_wrong_host_key_is_refused(sshd: LoopbackSshd) -> None:
    ssh = SshConnection("loopback", sshd.endpoint(host_key=generate_key()))
    begin = time.monotonic()
    with pytest.raises(SshRefusedError, match="wrong SSH host key") as caught:
        ssh.connect()
    assert time.monotonic() - begin < 5
    assert "ssh -i" in caught.value.command
    with pytest.raises(MachineError):
        ssh.run("true", timeout_s=5)


def test_wrong_user_key_is_refused(sshd: LoopbackSshd, tmp_path: Path) -> None:
    other = generate_key().save(tmp_path / "other")
    good = sshd.endpoint()
    endpoint = SshEndpoint(good.host, good.port, good.user, other, good.host_key)
    with pytest.raises(SshRefusedError, match="refused"):
        SshConnection("loopback", endpoint).connect()


def test_nobody_listens(sshd: LoopbackSshd) -> None:
    ssh = SshConnection("loopback", sshd.endpoint(port=free_port()))
    with pytest.raises(MachineError, match=r"SSH does not answer: .*refused"):
        ssh.connect(0.5)


def test_server_that_never_speaks(sshd: LoopbackSshd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ssh = SshConnection("loopback", sshd.endpoint(port=silent.getsockname()[1]))
        begin = time.monotonic()
        with pytest.raises(MachineError, match="SSH does not answer"):
            ssh.connect(1.5)
        assert 1 < time.monotonic() - begin < 6


def test_unusable_key_file(sshd: LoopbackSshd, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("no key")
    good = sshd.endpoint()
    endpoint = SshEndpoint(good.host, good.port, good.user, tmp_path / "bad", good.host_key)
    with pytest.raises(MachineError, match="unusable SSH key"):
        SshConnection("loopback", endpoint).connect()


def test_through_another_machine(sshd: LoopbackSshd, ssh: SshConnection, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    inner = LoopbackSshd(tmp_path / "inner")
    inner.start()
    there = inner.endpoint()
    endpoint = SshEndpoint(there.host, there.port, there.user, there.key, there.host_key, via=ssh)
    connection = SshConnection("inner", endpoint)
    try:
        assert connection.run("echo inside", timeout_s=10).stdout == b"inside\n"
        sshd.cut()  # the outer connection: the inner one goes with it, both come back
        assert connection.run("sleep 5; true", timeout_s=10).lost
        assert connection.run("echo again", timeout_s=10).stdout == b"again\n"
    finally:
        connection.close()
        inner.stop()


@pytest.mark.parametrize("compress", [False, True])
def test_upload(ssh: SshConnection, tmp_path: Path, compress: bool) -> None:
    local, remote = tmp_path / "local", tmp_path / "new dir" / "remote"
    local.write_bytes(os.urandom(3 << 20) + bytes(5 << 20))
    transfer.upload(ssh, local, str(remote), compress=compress)
    assert remote.read_bytes() == local.read_bytes()
    assert list(remote.parent.iterdir()) == [remote]


def _archive(tmp_path: Path, text: str) -> Path:
    staging = tmp_path / "staging" / "sub"
    staging.mkdir(parents=True, exist_ok=True)
    (staging / "file").write_text(text)
    pack(staging.parent, tmp_path / "archive.tar.gz")
    return tmp_path / "archive.tar.gz"


def test_unpack(ssh: SshConnection, tmp_path: Path) -> None:
    target = tmp_path / "a directory"
    target.mkdir()
    transfer.unpack(ssh, _archive(tmp_path, "first"), str(target))
    assert (target / "sub" / "file").read_text() == "first"
    (target / "old").touch()
    archive = _archive(tmp_path, "second").read_bytes()
    transfer.unpack(ssh, archive, str(target))
    assert (target / "sub" / "file").read_text() == "second"
    assert (target / "old").exists()
    (target / "sub" / "stale").touch()
    transfer.unpack(ssh, archive, str(target), replaced=str(target / "sub"))
    assert [path.name for path in (target / "sub").iterdir()] == ["file"]
    assert (target / "old").exists()
    assert not list(Path(transfer.ARCHIVE).parent.glob(f"{Path(transfer.ARCHIVE).name}*"))


def test_unpack_archives_one_after_the_other(ssh: SshConnection, tmp_path: Path) -> None:
    both = b""
    for name in ("one", "two"):
        staging = tmp_path / f"{name}-staging"
        staging.mkdir()
        (staging / name).write_text(name)
        pack(staging, tmp_path / "archive.tar.gz")
        both += (tmp_path / "archive.tar.gz").read_bytes()
    target = tmp_path / "target"
    target.mkdir()
    transfer.unpack(ssh, both, str(target))
    assert sorted(path.name for path in target.iterdir()) == ["one", "two"]


def test_unpack_of_no_archive_says_so(ssh: SshConnection, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="not unpacked: exit status"):
        transfer.unpack(ssh, b"not a tar", str(tmp_path))


def test_upload_with_a_wrong_checksum_leaves_nothing(ssh: SshConnection, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "there" / "remote"
    local.write_bytes(b"data")
    with pytest.raises(MachineError, match="checksum differs"):
        transfer.upload(ssh, local, str(remote), sha256="0" * 64)
    assert list(remote.parent.iterdir()) == []


def test_upload_cut_in_the_middle_leaves_the_old_file(
    sshd: LoopbackSshd, ssh: SshConnection, tmp_path: Path
) -> None:
    remote = tmp_path / "there" / "remote"
    remote.parent.mkdir()
    remote.write_bytes(b"old")

    class Slow:
        sent = 0

        def read(self, size: int, /) -> bytes:
            time.sleep(0.02)
            self.sent += size
            if self.sent > 20 * size:
                sshd.cut()
            return bytes(size)

    with pytest.raises(MachineError, match="connection was lost"):
        transfer.put(ssh, Slow(), str(remote), (1 << 30, "0" * 64))
    assert remote.read_bytes() == b"old"
    deadline = time.monotonic() + 5
    while len(list(remote.parent.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(remote.parent.iterdir()) == [remote]


def test_write_and_read(ssh: SshConnection, tmp_path: Path) -> None:
    transfer.write(ssh, str(tmp_path / "f"), b"\x00\x01\n")
    assert transfer.read(ssh, str(tmp_path / "f")) == b"\x00\x01\n"
    with pytest.raises(MachineError, match="No such file"):
        transfer.read(ssh, str(tmp_path / "absent"))
    with pytest.raises(MachineError, match=r"upload of /proc/x/y failed"):
        transfer.write(ssh, "/proc/x/y", b"")
