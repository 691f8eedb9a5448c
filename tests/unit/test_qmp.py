# SPDX-License-Identifier: GPL-2.0-only
"""QMP against a hand-written QEMU at the other end of a socket pair."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from harness.adapters.qmp import Qmp
from harness.errors import MachineError
from harness.machines.vm import event_words


class FakeQemu:
    """Answers as told in `answers` (command -> reply); silent for a command that is not there."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()
        self.seen: list[dict[str, Any]] = []
        self.answers: dict[str, dict[str, Any]] = {"qmp_capabilities": {"return": {}}}
        self.send({"QMP": {"version": {}, "capabilities": []}})
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        self.there.sendall(json.dumps(message).encode() + b"\r\n")

    def _serve(self) -> None:
        with self.there.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.seen.append(request)
                if request["execute"] in self.answers:
                    self.send({**self.answers[request["execute"]], "id": request["id"]})

    def end(self) -> None:
        with contextlib.suppress(OSError):  # ended before
            self.there.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self.there.close()


@pytest.fixture
def qemu() -> Iterator[FakeQemu]:
    fake = FakeQemu()
    yield fake
    fake.end()


@pytest.fixture
def qmp(qemu: FakeQemu) -> Iterator[Qmp]:
    session = Qmp(qemu.here, "vm")
    yield session
    session.close()


def test_commands_and_arguments(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.answers["query-status"] = {"return": {"status": "running"}}
    qemu.answers["device_add"] = {"return": {}}
    assert qmp.status() == "running"
    qmp.execute("device_add", {"driver": "x", "bus": "rp0"})
    assert qemu.seen[-1]["arguments"] == {"driver": "x", "bus": "rp0"}


def test_refusal_is_told(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.answers["cont"] = {"error": {"class": "GenericError", "desc": "not now"}}
    with pytest.raises(MachineError, match="QMP cont: not now"):
        qmp.execute("cont")


def test_a_late_answer_is_not_taken_for_the_next_one(qemu: FakeQemu, qmp: Qmp) -> None:
    with pytest.raises(MachineError, match="no answer"):
        qmp.execute("stop", timeout_s=0.05)
    qemu.send({"return": {"status": "late"}, "id": qemu.seen[-1]["id"]})
    qemu.answers["query-status"] = {"return": {"status": "running"}}
    assert qmp.status() == "running"


def test_events_are_kept_in_order(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.send({"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}})
    qemu.send({"event": "POWERDOWN"})
    qemu.send({"event": "SHUTDOWN", "data": {"reason": "guest-reset"}})
    qemu.end()
    assert qmp.wait_ended(5)
    assert event_words(qmp) == ("RESET guest-reset", "POWERDOWN", "SHUTDOWN guest-reset")
    assert [event.data["reason"] for event in qmp.events("SHUTDOWN")] == ["guest-reset"]
    with pytest.raises(MachineError):
        qmp.status()


def test_an_end_in_the_middle_of_a_command(qemu: FakeQemu, qmp: Qmp) -> None:
    threading.Timer(0.1, qemu.end).start()
    with pytest.raises(MachineError, match="closed the channel"):
        qmp.execute("stop", timeout_s=10)


def test_close_is_idempotent(qmp: Qmp) -> None:
    qmp.close()
    qmp.close()


def test_nobody_greets() -> None:
    here, there = socket.socketpair()
    there.close()
    with pytest.raises(MachineError):
        Qmp(here, "vm")
