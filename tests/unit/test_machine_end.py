# SPDX-License-Identifier: GPL-2.0-only
"""How a machine ended: real consoles, and what QEMU and SSH said beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.console_text import boots, last_lines
from harness.core.machine_end import EndReport, classify_end, unexpected_boots
from harness.core.splat import load_rules
from harness.model.machine import MachineEnd

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data" / "splat"
RULES = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))

BANNER = b"[    0.000000] Linux version 7.3.4-tdisp (tdisp@harness) #1 SMP\n"
RUNNING = BANNER + b"[    1.118439] Run /init as init process\nguest login: "


def end(
    console: bytes,
    *,
    qemu: bool = True,
    ssh: bool = False,
    events: tuple[str, ...] = (),
    banners: int = 1,
    console_alive: bool = False,
) -> EndReport:
    return classify_end(
        console,
        qemu_alive=qemu,
        ssh_alive=ssh,
        qmp_events=events,
        expected_banners=banners,
        rules=RULES,
        console_alive=console_alive,
    )


def log(stem: str) -> bytes:
    return (DATA / f"{stem}.log").read_bytes()


def until(data: bytes, pattern: bytes) -> bytes:
    """The log up to the line that matches: what a console holds when the machine hangs there."""
    match = re.search(rb".*" + pattern + rb".*\n", data)
    assert match is not None
    return data[: match.end()]


@pytest.mark.parametrize(
    ("stem", "what"),
    [
        ("panic-sysrq", "kernel panic in sysrq_handle_crash: sysrq triggered crash"),
        (
            "panic-no-root",
            "kernel panic in mount_root_generic: "
            "VFS: Unable to mount root fs on unknown-block(0,0)",
        ),
        ("panic-init-exited", "kernel panic: Attempted to kill init! exitcode=0x00000300"),
        ("warn-panic", "kernel panic in sg_warn: kernel: panic_on_warn set ..."),
        ("gpf-panic", "kernel panic in sg_gpf: Fatal exception"),
        ("stack-overflow", "kernel panic in sg_deep: Fatal exception in interrupt"),
        ("soft-lockup-panic", "kernel panic in sg_soft: softlockup: hung tasks"),
        (
            "early-exception",
            "kernel panic in cc_emulated_setup: "
            "early exception 0x0e IP 10:ffffffff82a1c3e5 error 2 cr2 0xffffffffff300000",
        ),
        ("panic-then-reboot", "kernel panic in sysrq_handle_crash: sysrq triggered crash"),
    ],
)
def test_panic_is_named(stem: str, what: str) -> None:
    for qemu, events in ((True, ()), (False, ("SHUTDOWN guest-reset",))):
        report = end(log(stem), qemu=qemu, events=events)
        assert (report.end, report.what) == (MachineEnd.PANIC, what)


def test_panic_seen_only_by_qemu() -> None:
    report = end(RUNNING, qemu=False, events=("GUEST_PANICKED",))
    assert report.end is MachineEnd.PANIC


def test_alive() -> None:
    assert end(RUNNING, ssh=True).end is MachineEnd.ALIVE


def test_alive_after_an_oops() -> None:
    data = until(log("null-write"), b"exited with irqs disabled")
    assert end(data, ssh=True).end is MachineEnd.ALIVE


def test_oops_then_hang() -> None:
    data = until(log("null-write"), b"exited with irqs disabled")
    report = end(data)
    assert report.end is MachineEnd.OOPS_HANG
    assert report.what == "NULL pointer dereference in sg_null, then no answer"


@pytest.mark.parametrize(
    ("stem", "what"),
    [
        ("ubsan-trap", "UBSAN: shift out of bounds in vtom_split, then no answer"),
        ("hung-task-blocker", "task hung in pci_tsm_accept, then no answer"),
    ],
)
def test_what_preceded_a_hang_is_named(stem: str, what: str) -> None:
    report = end(RUNNING + log(stem))
    assert (report.end, report.what) == (MachineEnd.OOPS_HANG, what)


def test_lockup_is_no_silent_hang() -> None:
    report = end(log("rcu-stall"))
    assert (report.end, report.what) == (
        MachineEnd.OOPS_HANG,
        "RCU stall in sg_irqoff, then no answer",
    )


def test_a_warning_does_not_explain_a_hang() -> None:
    data = until(log("warn-on"), b"end trace")
    assert end(data).end is MachineEnd.SILENT_HANG


def test_silent_hang() -> None:
    report = end(RUNNING)
    assert report.end is MachineEnd.SILENT_HANG
    assert "guest login:" in report.what


def test_ssh_lost() -> None:
    assert end(RUNNING, console_alive=True).end is MachineEnd.SSH_LOST


@pytest.mark.parametrize("qemu", [True, False])
def test_clean_power_off(qemu: bool) -> None:
    assert end(log("innocent-boot"), qemu=qemu).end is MachineEnd.POWER_OFF


def test_power_down_in_an_earlier_boot_is_no_power_off() -> None:
    data = BANNER + b"[    9.000000] reboot: Power down\n" + RUNNING
    assert end(data, banners=2).end is MachineEnd.SILENT_HANG


def test_reboot_by_itself() -> None:
    report = end(log("reboot-twice"))
    assert report.end is MachineEnd.REBOOT
    assert "on request" in report.what


def test_triple_fault_with_a_second_banner() -> None:
    report = end(RUNNING + b"\n" + BANNER)
    assert report.end is MachineEnd.REBOOT
    assert "guest login:" in report.what


def test_triple_fault_that_ended_qemu() -> None:
    report = end(RUNNING, qemu=False, events=("SHUTDOWN guest-reset",))
    assert report.end is MachineEnd.REBOOT
    assert "triple fault" in report.what


def test_reset_that_qemu_reported_while_the_console_is_silent() -> None:
    assert end(RUNNING, events=("RESET",)).end is MachineEnd.REBOOT


def test_restart_on_request_that_ended_qemu() -> None:
    report = end(log("reboot-requested"), qemu=False, events=("SHUTDOWN guest-reset",))
    assert (report.end, report.what) == (
        MachineEnd.REBOOT,
        "the machine restarted itself (reboot: Restarting system)",
    )


def test_oops_then_reboot_names_the_oops() -> None:
    data = until(log("null-write"), b"exited with irqs disabled") + BANNER
    report = end(data)
    assert report.end is MachineEnd.REBOOT
    assert report.what.startswith("NULL pointer dereference in sg_null, then a reboot")


def test_an_announced_kexec_is_no_reboot() -> None:
    data = RUNNING + b"\n[   30.000000] kexec_core: Starting new kernel\n" + RUNNING
    assert end(data, ssh=True, banners=2).end is MachineEnd.ALIVE
    assert end(data, ssh=True, banners=1).end is MachineEnd.REBOOT
    assert unexpected_boots(data, 2) == 0
    assert unexpected_boots(data, 1) == 1


def test_dmesg_on_the_console_is_no_reboot() -> None:
    data = log("innocent-boot-dmesg-twice")
    assert data.count(b"Linux version") > 1
    assert len(boots(data)) == 1
    assert end(data, ssh=True).end is MachineEnd.ALIVE


HEAD = b"".join(
    b"[    0.000000] %s\n" % text
    for text in (b"Linux version 7.3.4-tdisp (tdisp@harness) #1 SMP", b"Command line: a", b"e820")
)
BOOT = HEAD + b"[    0.003211] tsc: Detected\n[    1.118439] Run /init\nguest login: root\n# "


@pytest.mark.parametrize("head", [HEAD[:64], HEAD, BOOT[: BOOT.index(b"[    1.118439]")]])
def test_the_head_of_dmesg_on_the_console_is_no_reboot(head: bytes) -> None:
    """Time goes on after it; after a boot it begins anew."""
    assert head.endswith(b"\n")
    shown = BOOT + b"dmesg | head\n" + head
    later = b"# dmesg: cut\n[   45.100000] eth0: link is up\n"
    assert len(boots(shown + later)) == 1
    assert len(boots(shown + b"# dmesg | head\n" + head + later)) == 1, "twice"
    assert len(boots(shown + later + BOOT)) == 2, "then a boot"
    assert len(boots(BOOT + b"[    9.000000] reboot: Restarting system\nSeaBIOS\n" + BOOT)) == 2
    assert len(boots(shown)) == 2, "nothing says that time went on"
    assert len(boots(shown.replace(b"7.3.4-tdisp", b"7.3.4-other") + later)) == 1
    other = head.replace(b"7.3.4-tdisp", b"7.3.4-other")
    assert len(boots(BOOT + b"\n" + other + later)) == 2, "of another kernel"
    assert len(boots((head + b"SeaBIOS\n") * 3)) == 3, "a kernel that does not get far"


@pytest.mark.parametrize("times", [2, 3])
def test_a_kernel_that_dies_early_again_and_again_boots_as_often(times: int) -> None:
    """Nobody can have called dmesg so early, though the time seems to go on."""
    early = b"".join(HEAD + b"[    0.%06d] tsc: Detected\n" % (10 + 2 * n) for n in range(times))
    assert len(boots(early)) == times


def test_two_real_boots_are_two() -> None:
    assert len(boots(log("panic-then-reboot"))) == 2


def test_qemu_died() -> None:
    report = end(RUNNING, qemu=False)
    assert report.end is MachineEnd.QEMU_DIED
    assert end(b"", qemu=False).end is MachineEnd.QEMU_DIED


def test_a_torn_time_stamp_is_no_last_word() -> None:
    report = end(RUNNING + b"\n[    5.8] ACPI: link LNKH\r\n[    5.9", qemu=False)
    assert report.what.endswith("the console said last: '[    5.8] ACPI: link LNKH'")
    assert report.last_lines[-1] == "[    5.9"


@pytest.mark.parametrize(
    "console", [b"", b"\0\xff", b"SeaBIOS (version 1.17.0)\nBooting from ROM\n"]
)
def test_never_booted(console: bytes) -> None:
    report = end(console)
    assert report.end is MachineEnd.NEVER_BOOTED
    assert "connect" not in report.what


def test_the_version_file_on_the_console_is_no_reboot() -> None:
    data = log("innocent-boot")
    banner = next(line for line in data.split(b"\n") if b"Linux version" in line)
    version = banner.partition(b"] ")[2] + b"\n"
    assert version.startswith(b"Linux version")
    assert len(boots(data + version)) == 1
    assert len(boots(version * 2)) == 2, "a kernel without time stamps"


def test_a_banner_quoted_by_userspace_is_no_boot() -> None:
    assert boots(RUNNING + b"\n# uname: Linux version 7.3.4\nversion: Linux version 7.3\n") == (0,)


def test_last_lines_are_printable() -> None:
    report = end(RUNNING + b"\x1b[0mlast\r\n\r\n")
    assert report.last_lines[-1] == "guest login: last"
    assert last_lines(b"") == ()
    assert last_lines(b"a\nb\nc", 2) == ("b", "c")
