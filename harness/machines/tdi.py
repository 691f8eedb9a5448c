# SPDX-License-Identifier: GPL-2.0-only
"""A TDI as its guest has it, by hand: kselftests/tsm/tdi_tool.c on the machine.

For tests that act on more than one machine. The commands are documented in that file.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from harness.adapters.dialogue import Dialogue
from harness.errors import HarnessError, MachineError
from harness.machines.remote import RemoteMachine

TOOL = "/opt/kselftest/tsm/tdi_tool"
_ANSWER = re.compile(r"rc=(-?\d+)((?: (?!why=)\w+=\S*)*)(?: why=(.*))?")
_FIELD = re.compile(r"(\w+)=(\S*)")
# an answer of the tool; a big DMA under emulation takes a while
_ASK_S = 60.0


class TdiRefusedError(HarnessError):
    """A command that had to work did not. rc: -errno."""

    def __init__(self, message: str, rc: int) -> None:
        super().__init__(message)
        self.rc = rc


class NoTdiError(HarnessError):
    """The machine or its kernel has nothing to talk about: a reason to skip."""


@dataclass(frozen=True, slots=True)
class Answer:
    """rc: 0 or -errno. Fields are text: "0x1000", "run"."""

    rc: int
    fields: dict[str, str]
    why: str = ""

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def number(self, name: str) -> int:
        return int(self.fields[name], 0)


def parse_answer(line: str) -> Answer | None:
    """One line of the tool; None when it is none."""
    found = _ANSWER.fullmatch(line)
    if found is None:
        return None
    fields = dict(_FIELD.findall(found[2]))
    return Answer(int(found[1]), fields, found[3] or "")


class GuestTdi:
    """One TDI of a guest. Its mappings live until close().

    index: of the TDIs in the order of their addresses. MachineError when the tool is gone.
    """

    def __init__(self, machine: RemoteMachine, index: int = 0) -> None:
        self._machine = machine
        self._dialogue = Dialogue(machine.ssh, f"exec {TOOL} {index}")
        line = self._dialogue.read_line(_ASK_S)
        first = parse_answer(line)
        if first is None or first.rc:
            self._dialogue.close()
            text = f"{machine.name}: {first.why if first else line}"
            if first and first.rc != -errno.ENODEV:
                raise TdiRefusedError(text, first.rc)
            raise NoTdiError(text)
        self.bdf = first["bdf"]
        self.interface = first.number("interface")

    def ask(self, command: str, timeout_s: float = _ASK_S) -> Answer:
        """One command, whatever comes of it."""
        line = self._dialogue.ask(command, timeout_s)
        found = parse_answer(line)
        if found is None:
            raise MachineError(
                f"{self._machine.name}: tdi_tool: `{command}`: not an answer: {line}"
            )
        return found

    def must(self, command: str, timeout_s: float = _ASK_S) -> Answer:
        """One command that has to work. TdiRefusedError when it does not."""
        found = self.ask(command, timeout_s)
        if found.rc:
            name = errno.errorcode.get(-found.rc, str(found.rc))
            why = f": {found.why}" if found.why else ""
            text = f"{self._machine.name}: TDI {self.bdf}: `{command}`: -{name}{why}"
            raise TdiRefusedError(text, found.rc)
        return found

    def state(self) -> str:
        """unlocked, locked, run or error, as the platform tells the guest."""
        return self.must("state")["state"]

    def trusted(self) -> None:
        """Unlocked and unbound, then locked, attested and accepted, with private DMA, bound."""
        self.must("reset")
        self.must("to run tcb")
        self.must("bind")

    def close(self) -> None:
        """Give up its mappings and end the tool. Idempotent, never raises."""
        self._dialogue.close()
