# SPDX-License-Identifier: GPL-2.0-only
"""The platform as a process: life and death of it and of its clients."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.emulator import mailbox, oracle, tdi_function
from harness.emulator.dma_engine import Operation as Dma
from harness.emulator.vfio_user import HEADER, MAX_MESSAGE_BYTES, Operation
from harness.emulator.words import Command, Reason, Result
from tests.integration.emulator_client import BAR0, CONFIG, Client, PlatformProcess, wait_for
from tests.unit.emulator_rig import RAM_BYTES, sealed_ram

Start = Callable[..., PlatformProcess]
SHARED = 0x400000


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[PlatformProcess] = []

    def run(*options: str, ready: bool = True) -> PlatformProcess:
        platform = PlatformProcess(tmp_path / "p", *options)
        started.append(platform)
        return platform.ready() if ready else platform

    yield run
    for platform in started:
        platform.close()


@pytest.fixture
def ram() -> Iterator[int]:
    fd = sealed_ram()
    yield fd
    os.close(fd)


def attach(platform: PlatformProcess, ram: int, name: str = "tdi0") -> Client:
    client = platform.client(name)
    client.map(ram, 0, RAM_BYTES)
    client.power()
    return client


def command(port: Client, opcode: int, *args: int) -> int:
    values = (*args, *([0] * (6 - len(args))))
    port.write(BAR0, mailbox.ARGS, struct.pack("<6Q", *values))
    port.write(BAR0, mailbox.TDI, struct.pack("<II", 0, opcode))
    assert port.read(BAR0, mailbox.STATUS, 4) == struct.pack("<I", mailbox.STATUS_DONE)
    return int.from_bytes(port.read(BAR0, mailbox.RESULT, 4), "little")


def launch(tdi: Client, operation: int, iova: int, length: int, flags: int = 0) -> None:
    tdi.write(BAR0, tdi_function.FLAGS, struct.pack("<I", operation << 4 | flags))
    tdi.write(BAR0, tdi_function.IOVA, struct.pack("<4Q", iova, 0, length, 0x41))
    tdi.write(BAR0, tdi_function.DOORBELL, struct.pack("<I", 1))


def status(tdi: Client) -> tuple[int, int]:
    state, reason = struct.unpack("<II", tdi.read(BAR0, tdi_function.STATUS, 8))
    return state, reason


def test_dma_over_real_sockets(start: Start, ram: int) -> None:
    platform = start("--model", "A")
    tdi, port = attach(platform, ram), attach(platform, ram, "tsm-guest")
    event = os.eventfd(0)
    tdi.arm(1, event)
    launch(tdi, Dma.WRITE, SHARED, 64)
    assert status(tdi) == (3, Reason.PRIVATE_PAGE)
    assert command(port, Command.PAGE_STATE, SHARED, 1, 1) == Result.OK
    launch(tdi, Dma.WRITE, SHARED, 64, tdi_function.FLAG_INTERRUPT | 1 << 16)
    assert status(tdi) == (2, 0)
    assert os.eventfd_read(event) == 1
    assert os.pread(ram, 65, SHARED) == b"A\0\0\0\0\0\0\0" * 8 + b"\0"
    port.close()
    tdi.close()
    code, _ = platform.wait()
    assert code == 0
    verdict = oracle.judge(oracle.read(platform.directory / "platform.jsonl"))
    assert (verdict.tlps_ok, verdict.tlps_blocked) == (1, 1)
    assert platform.log()[0]["event"] == "start"
    assert platform.log()[-1]["event"] == "stop"
    os.close(event)


def test_the_platform_ends_with_its_last_client(start: Start, ram: int) -> None:
    platform = start()
    one, two = attach(platform, ram), attach(platform, ram, "tdi1")
    one.close()
    assert two.read(BAR0, 0, 4) == b"TDID"
    two.socket.send(b"\1\0\2")  # dies in the middle of a header
    two.close()
    assert platform.wait()[0] == 0
    assert [path.name for path in platform.directory.iterdir()] == ["platform.jsonl"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(start: Start, ram: int, signum: int) -> None:
    platform = start()
    client = attach(platform, ram)
    assert (platform.directory / "device-root.der").exists()
    assert platform.end(signum)[0] == 0
    assert client.closed()
    assert [path.name for path in platform.directory.iterdir()] == ["platform.jsonl"]
    assert platform.log()[-1]["event"] == "stop"


def test_killed_in_the_middle_of_dma(start: Start, ram: int) -> None:
    platform = start("--model", "A")
    tdi, port = attach(platform, ram), attach(platform, ram, "tsm-guest")
    assert command(port, Command.PAGE_STATE, SHARED, 2048, 1) == Result.OK
    launch(tdi, Dma.WRITE, SHARED, 8 << 20)
    assert platform.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert tdi.closed()
    assert os.pread(ram, 4096, SHARED - 4096) == bytes(4096)
    assert os.pread(ram, 4096, SHARED + (8 << 20)) == bytes(4096) or (
        SHARED + (8 << 20) >= RAM_BYTES
    )
    again = start()  # over the dead one's socket files
    assert attach(again, ram).read(BAR0, 0, 4) == b"TDID"
    oracle.read(again.directory / "platform.jsonl")


def test_a_second_client_on_one_socket(start: Start, ram: int) -> None:
    platform = start()
    first = attach(platform, ram)
    second = platform.client(greet=False)
    assert second.call(Operation.VERSION, struct.pack("<HH", 0, 1))[0] == errno.EBUSY
    assert second.closed()
    silent = platform.client(greet=False)  # says nothing, holds nothing up
    assert first.read(BAR0, 0, 4) == b"TDID"
    silent.close()
    assert first.read(BAR0, 0, 4) == b"TDID"


def test_the_next_client_finds_the_device_as_it_was(start: Start, ram: int) -> None:
    platform = start("--stay")
    client = attach(platform, ram)
    client.write(BAR0, tdi_function.IOVA, b"\x77" * 8)
    client.close()
    wait_for(lambda: any(e["event"] == "client-end" for e in platform.log()), "the client's end")
    client = platform.client()
    assert client.read(BAR0, tdi_function.IOVA, 8) == b"\x77" * 8
    client.write(BAR0, tdi_function.FLAGS, struct.pack("<I", Dma.WRITE << 4))
    launch(client, Dma.WRITE, SHARED, 64)  # its memory is gone with the first client
    assert status(client)[0] == 3
    assert os.pread(ram, 64, SHARED) == bytes(64)


GARBAGE = {
    "noise": os.urandom(64) + b"\xff" * 64,
    "huge": HEADER.pack(1, 1, 0xFFFFFFFF, 0, 0),
    "tiny": HEADER.pack(1, 1, 3, 0, 0),
    "reply": HEADER.pack(1, 1, 16, 1, 0),
    "before-version": HEADER.pack(1, Operation.GET_INFO, 16, 0, 0),
    "other-major": HEADER.pack(1, 1, 20, 0, 0) + struct.pack("<HH", 3, 0),
    "bad-json": HEADER.pack(1, 1, 24, 0, 0) + struct.pack("<HH", 0, 1) + b"{{{\0",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_client_that_talks_nonsense_costs_only_itself(
    start: Start, ram: int, garbage: bytes
) -> None:
    platform = start()
    good = attach(platform, ram, "tdi1")
    bad = platform.client(greet=False)
    bad.socket.sendall(garbage)
    assert bad.closed()
    assert good.read(BAR0, 0, 4) == b"TDID"
    assert attach(platform, ram).read(CONFIG, 0, 2) == b"\x36\x1b"


def test_one_byte_at_a_time(start: Start) -> None:
    platform = start()
    client = platform.client()
    data = HEADER.pack(client._id + 1, Operation.GET_INFO, 32, 0, 0) + struct.pack(
        "<IIII", 16, 0, 0, 0
    )
    client._id += 1
    for byte in data:
        client.socket.send(bytes([byte]))
    assert client.receive()[0] == 0


def test_a_client_that_never_reads(start: Start, ram: int) -> None:
    platform = start()
    good = attach(platform, ram, "tdi1")
    flood = platform.client()
    flood.power()
    body = struct.pack("<QII", 0, BAR0, 0x4000)
    flood.socket.settimeout(10)
    message = HEADER.pack(1, Operation.REGION_READ, 32, 0, 0) + body
    with pytest.raises(ConnectionError):
        for _ in range(20000):
            flood.socket.sendall(message)
    assert good.read(BAR0, 0, 4) == b"TDID"
    ends = [event["why"] for event in platform.log() if event["event"] == "client-end"]
    assert ends == ["protocol error: the client does not read its replies"]


def test_too_many_descriptors_leak_nothing(start: Start, ram: int) -> None:
    platform = start("--stay")
    before = platform.open_files()
    for count in (9, 60, 250):
        client = platform.client()
        client.send(Operation.DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0, 4096), *([ram] * count))
        assert client.closed()
        client.close()
    # descriptors with commands that do not want them
    client = platform.client()
    client.ok(Operation.GET_INFO, struct.pack("<IIII", 16, 0, 0, 0), *([ram] * 8))
    client.call(Operation.DMA_MAP, b"short", ram, ram)
    client.send(Operation.SET_IRQS, bytes(4), ram)
    client.receive()
    client.socket.sendmsg(
        [HEADER.pack(9, Operation.DMA_MAP, 48, 0, 0)],  # and dies before the body
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<i", ram))],
    )
    client.close()
    wait_for(lambda: platform.open_files() <= before, "the descriptors to be closed")


def test_many_silent_clients_leave_descriptors_for_the_others(start: Start, ram: int) -> None:
    platform = start()
    before = platform.open_files()
    good = attach(platform, ram)
    silent = [platform.client(greet=False) for _ in range(7)]
    wait_for(lambda: platform.open_files() >= before + 8, "the silent ones to be taken")
    for _ in range(50):
        assert platform.client(greet=False).closed()
    assert platform.open_files() <= before + 9  # and the RAM
    assert good.read(BAR0, 0, 4) == b"TDID"
    silent[0].close()
    wait_for(lambda: platform.open_files() < before + 9, "the first of them to be gone")
    assert platform.client(greet=False).call(Operation.VERSION, struct.pack("<HH", 0, 1))[0] == (
        errno.EBUSY
    )


def test_many_mappings_of_one_file(start: Start, ram: int) -> None:
    platform = start()
    client = platform.client()
    before = platform.open_files()
    for page in range(1000):
        client.map(ram, page * 8192, 4096, page * 4096)
    assert platform.open_files() <= before + 1


def test_the_largest_message(start: Start) -> None:
    platform = start()
    client = platform.client()
    body = struct.pack("<QII", 0, BAR0, 1 << 20) + bytes(1 << 20)
    assert len(body) + 16 < MAX_MESSAGE_BYTES
    assert client.call(Operation.REGION_WRITE, body)[0] == errno.EINVAL
    client.power()
    assert client.read(BAR0, 0, 4) == b"TDID"


def test_two_platforms_in_one_directory(start: Start, ram: int) -> None:
    platform = start()
    client = attach(platform, ram)
    root = (platform.directory / "device-root.der").read_bytes()
    code, output = start(ready=False).wait()
    assert code == 64
    assert "another platform serves this socket" in output
    assert client.read(BAR0, 0, 4) == b"TDID"
    assert (platform.directory / "device-root.der").read_bytes() == root


def test_a_second_platform_does_not_end_one_that_waits_for_its_client(
    start: Start, ram: int
) -> None:
    platform = start()
    assert start(ready=False).wait()[0] == 64  # it has asked whether anybody serves the sockets
    platform.client("tdi1", greet=False).close()
    client = attach(platform, ram)
    assert client.read(BAR0, 0, 4) == b"TDID"
    silent = platform.client("tdi1", greet=False)
    client.close()
    wait_for(lambda: any(e["event"] == "client-end" for e in platform.log()), "the client's end")
    silent.close()
    assert platform.wait()[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vtom", "0x123"), "--vtom 0x123: not a page-aligned address"),
        (("--vtom", "high"), "--vtom high: not a number"),
        (("--c-bit", "60"), "--c-bit 60: from 32 to 51"),
        (("--tdi", "1:2"), "--tdi 1:2: not a BDF"),
        (("--tdi", "01:00.0", "--tdi", "01:00.0"), "--tdi: at most 16, each once"),
    ],
)
def test_bad_options(start: Start, options: tuple[str, ...], message: str) -> None:
    code, output = start(*options, ready=False).wait()
    assert code == 64
    assert message in output


def test_a_directory_too_deep_for_sockets(tmp_path: Path) -> None:
    code, output = PlatformProcess(tmp_path / ("x" * 120)).wait()
    assert code == 64
    assert "too long for a socket path" in output


def test_not_a_socket_in_the_way(start: Start, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "tdi0.sock").write_text("precious")
    code, output = start(ready=False).wait()
    assert code == 64
    assert "exists and is not a socket" in output
    assert (tmp_path / "p" / "tdi0.sock").read_text() == "precious"


def test_qemu_options_are_printed(start: Start) -> None:
    platform = start("--print-qemu")
    _, output = platform.end()
    assert "-object memory-backend-memfd,id=m0,size=2G,share=on" in output
    assert '"driver":"vfio-user-pci"' in output
    assert str(platform.socket("tsm-guest")) in output


def test_a_full_disk_ends_it(start: Start) -> None:
    platform = start("--log", "/dev/full", ready=False)
    code, output = platform.wait()
    assert code == 2
    assert "event log: [Errno 28]" in output
    assert list(platform.directory.iterdir()) == []


def test_plain_lines_in_a_pipe(start: Start, ram: int) -> None:
    platform = start("--model", "A")
    launch(attach(platform, ram), Dma.WRITE, SHARED, 64)
    _, output = platform.end()
    assert "reason=private-page" in output
    assert "\x1b" not in output


def test_live_table_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    platform = PlatformProcess(tmp_path / "p", "--model", "N", stdout=theirs).ready()
    os.close(theirs)
    seen = b""
    while b"UNLOCKED" not in seen or b"last TLPs" not in seen:
        seen += os.read(ours, 4096)
    assert b"TDIs (model N)" in seen
    platform.process.send_signal(signal.SIGTERM)
    while True:  # a terminal that nobody reads would hold the process up
        try:
            if not os.read(ours, 4096):
                break
        except OSError:
            break
    assert platform.wait()[0] == 0
    platform.close()
    os.close(ours)


# -- the control socket


def test_control(start: Start, ram: int) -> None:
    platform = start("--model", "A")
    tdi, port = attach(platform, ram), attach(platform, ram, "tsm-guest")
    state = platform.ask(op="state")
    assert (state["ok"], state["model"], state["tdis"][0]["state"]) == (True, "A", "UNLOCKED")
    assert platform.ask(op="error", tdi=0)["ok"] is False
    assert platform.ask(op="inject", command="lock", kind="error", value=12)["ok"]
    assert command(port, Command.LOCK) == Result.FAILED
    assert command(port, Command.LOCK) == Result.OK
    assert platform.ask(op="announce", tdi=0, reason="private-page")["ok"]
    launch(tdi, Dma.WRITE, SHARED, 64)
    assert status(tdi)[1] == Reason.PRIVATE_PAGE
    assert platform.ask(op="check", label="one")["unannounced"] == 0
    assert platform.ask(op="error", tdi=0)["ok"]
    assert platform.ask(op="state")["tdis"][0]["state"] == "ERROR"
    assert platform.ask(op="unbind", tdi=0)["ok"]
    assert platform.ask(op="state")["tdis"][0]["bound"] is False
    assert platform.ask(op="unbind", tdi=0) == {"ok": False, "error": "not_bound"}
    assert platform.ask(op="bind", tdi=0)["ok"]
    assert platform.ask(op="bind", tdi=0) == {"ok": False, "error": "invalid_state"}
    command(port, Command.PAGE_STATE, SHARED, 3, 1)
    assert platform.ask(op="pages")["shared"] == [{"gpa": hex(SHARED), "pages": 3}]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"op": "fly"}',
        b'{"op": ["state"]}',
        b'{"op": "error", "tdi": 7}',
        b'{"op": "error", "tdi": "x"}',
        b'{"op": "announce", "tdi": 0, "reason": "bad"}',
        b'{"op": "announce", "tdi": 0, "reason": "any", "count": -1}',
        b'{"op": "inject", "command": "lock", "kind": "wrong-key"}',
        b"[" * 50000,
        b"\xff\xfe",
    ],
)
def test_bad_control_lines(start: Start, line: bytes) -> None:
    platform = start()
    answer = platform.ask_raw(line)
    assert answer["ok"] is False
    assert answer["error"]
    assert platform.ask(op="state")["ok"]


def test_a_control_answer_that_is_longer_than_a_socket_holds(start: Start, ram: int) -> None:
    platform = start()
    client = attach(platform, ram, "tsm-guest")
    big = sealed_ram(128 << 20)
    client.map(big, 1 << 32, 128 << 20)
    entries = [struct.pack("<QII", (1 << 32) + page * 8192, 1, 1) for page in range(16000)]
    os.pwrite(ram, b"".join(entries), 0)
    assert command(client, Command.PAGE_STATE_LIST, 0, len(entries)) == Result.OK
    assert len(platform.ask(op="pages")["shared"]) == 16000
    with socket.socket(socket.AF_UNIX) as silent:  # asks, and never reads
        silent.connect(str(platform.directory / "control.sock"))
        silent.sendall(b'{"op": "pages"}\n' * 100)
        assert platform.ask(op="state")["ok"]
    assert platform.ask(op="state")["ok"]
    os.close(big)


def test_a_control_line_without_end(start: Start) -> None:
    platform = start()
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(str(platform.directory / "control.sock"))
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                control.sendall(b"x" * 65536)
    assert platform.ask(op="state")["ok"]
