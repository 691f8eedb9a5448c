# SPDX-License-Identifier: GPL-2.0-only
"""How a machine ended, from its console, QMP events, and what still answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.console_text import boot_at, boots, last_lines, line_bounds, parse_line
from harness.core.splat import find_splats
from harness.core.splat_rules import RuleSet
from harness.model.machine import MachineEnd
from harness.model.results import Splat

_POWER_DOWN = re.compile(rb"reboot: (?:Power down|System halted)")
_RESTARTING = re.compile(rb"reboot: (?:Restarting system|machine restart)")
_KEXEC = re.compile(rb"kexec_core: Starting new kernel|Starting new kernel")
_LAST = 20


@dataclass(frozen=True, slots=True)
class EndReport:
    """What became of a machine. what: one sentence for a person; last_lines: end of the console."""

    end: MachineEnd
    what: str
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Evidence:
    data: bytes
    splats: tuple[Splat, ...]
    boots: tuple[int, ...]
    events: frozenset[str]
    rules: RuleSet
    booted: bool

    def splat(self, *fatal: str) -> Splat | None:
        """The first report of the last boot that means one of `fatal` for the machine."""
        for splat in self.splats:
            rule = self.rules.rule(splat.kind)
            if rule is not None and rule.fatal in fatal:
                return splat
        return None

    def event(self, *words: str) -> bool:
        return any(word in event for event in self.events for word in words)


def classify_end(
    console: bytes,
    *,
    qemu_alive: bool,
    ssh_alive: bool,
    qmp_events: Sequence[str],
    expected_banners: int,
    rules: RuleSet,
    console_alive: bool = False,
    booted: bool = False,
) -> EndReport:
    """Tell how a machine ended, or that it is alive.

    console: everything since power-on. qmp_events: names, with the reason where there is one
    ("SHUTDOWN guest-reset", "GUEST_PANICKED"). expected_banners: kernel banners that are
    legitimate, 1 plus the announced kexecs. console_alive: output was seen after SSH was lost.
    For a machine without QEMU pass qemu_alive=True. booted: it is known to have been up, although
    the console, captured from then on, may show no banner.
    """
    evidence = _Evidence(
        data=console,
        splats=find_splats(console, rules),
        boots=boots(console),
        events=frozenset(event.lower() for event in qmp_events),
        rules=rules,
        booted=booted,
    )
    end, what = _judge(evidence, qemu_alive, ssh_alive, expected_banners, console_alive)
    return EndReport(end, what, last_lines(console, _LAST))


def _judge(
    evidence: _Evidence, qemu_alive: bool, ssh_alive: bool, expected: int, console_alive: bool
) -> tuple[MachineEnd, str]:
    panic = evidence.splat("panic")
    if panic is not None:
        return MachineEnd.PANIC, _panic_text(evidence.data, panic)
    if evidence.event("guest_panicked", "guest-panic"):
        return MachineEnd.PANIC, "kernel panic (reported by QEMU; the console does not show it)"
    if len(evidence.boots) > max(expected, 1):
        return MachineEnd.REBOOT, _reboot_text(evidence, expected)
    if qemu_alive and ssh_alive:
        return MachineEnd.ALIVE, "the machine is alive"
    if not qemu_alive:
        return _without_qemu(evidence)
    if not evidence.boots and not evidence.booted:
        return MachineEnd.NEVER_BOOTED, _never_booted_text(evidence.data)
    if _last_is_power_down(evidence):
        return MachineEnd.POWER_OFF, "the machine powered off cleanly"
    if evidence.event("reset"):
        return MachineEnd.REBOOT, f"the machine was reset without a word{_after(evidence)}"
    splat = evidence.splat("oops", "hang")
    if splat is not None:
        return MachineEnd.OOPS_HANG, f"{splat.title}, then no answer"
    if console_alive:
        return MachineEnd.SSH_LOST, "SSH does not answer, but the console is alive"
    return MachineEnd.SILENT_HANG, f"the machine fell silent{_after(evidence)}"


def _without_qemu(evidence: _Evidence) -> tuple[MachineEnd, str]:
    if _last_is_power_down(evidence):
        return MachineEnd.POWER_OFF, "the machine powered off cleanly"
    if _in_last_boot(evidence, _RESTARTING):
        return MachineEnd.REBOOT, "the machine restarted itself (reboot: Restarting system)"
    if evidence.event("guest-reset", "reset"):
        splat = evidence.splat("oops", "hang")
        cause = f"{splat.title}, then a reset" if splat else "triple fault or reset by the guest"
        return MachineEnd.REBOOT, f"{cause}{_after(evidence)}"
    if evidence.event("guest-shutdown"):
        return MachineEnd.POWER_OFF, "the machine powered off"
    booted = "" if evidence.boots else " before the kernel said anything"
    return MachineEnd.QEMU_DIED, f"QEMU ended{booted}{_after(evidence)}"


def _panic_text(data: bytes, panic: Splat) -> str:
    """ "kernel panic in foo_bar: Fatal exception", with the kernel's own words."""
    start = 0
    for _ in range(panic.start_line - 1):
        start = data.find(b"\n", start) + 1
    begin, end = line_bounds(data, start)
    text = parse_line(data[begin:end]).text
    reason = (text.partition("not syncing")[2] or text.removeprefix("PANIC")).lstrip(": ")
    where = f" in {panic.frame}" if panic.frame else ""
    return f"kernel panic{where}: {reason}" if reason else f"kernel panic{where}"


def _reboot_text(evidence: _Evidence, expected: int) -> str:
    """What the console said before the first banner that nobody had announced."""
    before = evidence.data[: evidence.boots[max(expected, 1)]]
    lines = [line for line in last_lines(before, 6) if "Linux version" not in line]
    splat = evidence.splat("oops", "hang")
    cause = f"{splat.title}, then a reboot" if splat else "the machine rebooted"
    if _RESTARTING.search(before, evidence.boots[max(expected, 1) - 1]):
        return f"{cause} on request (reboot: Restarting system)"
    return f"{cause}; the console said before: {lines[-1][:160]!r}" if lines else cause


def _never_booted_text(data: bytes) -> str:
    words = _last_words(data)
    if not words:
        return "the console stayed empty: no firmware and no kernel spoke"
    return f"no kernel banner was seen; the console said last: {words!r}"


def _after(evidence: _Evidence) -> str:
    words = _last_words(evidence.data)
    return f"; the console said last: {words!r}" if words else ""


def _last_words(data: bytes) -> str:
    """The last line that says something: a machine may end in the middle of a time stamp."""
    lines = last_lines(data, 4)
    said = [line for line in lines if re.search("[A-Za-z]", line)]
    return (said or list(lines) or [""])[-1][:160]


def _in_last_boot(evidence: _Evidence, pattern: re.Pattern[bytes]) -> bool:
    start = evidence.boots[-1] if evidence.boots else 0
    return pattern.search(evidence.data, start) is not None


def _last_is_power_down(evidence: _Evidence) -> bool:
    """A power-off message, with next to nothing after it."""
    if not evidence.boots:
        return False
    for match in _POWER_DOWN.finditer(evidence.data, evidence.boots[-1]):
        if evidence.data.count(b"\n", match.end()) <= 5:
            return True
    return False


def unexpected_boots(console: bytes, expected_banners: int) -> int:
    """Number of kernel banners beyond the announced ones."""
    return max(0, boot_at(boots(console), len(console)) - max(expected_banners, 1))
