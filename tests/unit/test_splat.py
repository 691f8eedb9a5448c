# SPDX-License-Identifier: GPL-2.0-only
"""Splats in console logs: golden logs, the same logs in other clothes, innocents, bad rules.

Most logs of data/splat were made by a real kernel (7.3 in QEMU) with a module that misbehaves on
request; the rest follow the print statements of the same kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.call_trace import decode
from harness.core.console_text import ConsoleLine, parse_line
from harness.core.splat import excerpts, find_splats, fingerprint, load_rules, normalise, to_json
from harness.errors import UserError
from harness.model.results import Splat

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data" / "splat"
LOGS = sorted(DATA.glob("*.log"))
RULES_TEXT = (ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8")
RULES = load_rules(RULES_TEXT)

Golden = Callable[[Path, Any], None]
_STAMP = re.compile(rb"^(\[ *\d+\.\d{6}\])", re.MULTILINE)


def _report(header: str, *frames: str) -> bytes:
    lines = [header, "Call Trace:", " <TASK>", *(f" {name}+0x1/0x2" for name in frames), " </TASK>"]
    return "".join(f"[    1.000000] {line}\n" for line in lines).encode()


KASAN = "BUG: KASAN: slab-use-after-free in {}+0x1/0x2"
HUNG = "INFO: task a:12 blocked for more than 120 seconds."
STUCK = "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [a:12]"
PREEMPTIBLE = "BUG: using smp_processor_id() in preemptible [00000000] code: a/12"
SLAB = "BUG kmalloc-64 (Not tainted): Right Redzone overwritten"
CUT = "WARNING: a.c:1 at {}+0x1/0x2, CPU#1: a/12"
STACK = "Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: {}+0x1/0x2"


LEAKED = b"[    1.000000] BUG: workqueue leaked atomic, lock or RCU: kworker/1:2[88]\n"
WORK = b"[    1.000000]      preempt=0x00000000 lock=0->1 RCU=0->0 workfn=tdi_retry_work\n"
NULL = b"".join(
    b"[    1.000000] %s\n" % line
    for line in (
        b"BUG: kernel NULL pointer dereference, address: 0000000000000008",
        b"Oops: Oops: 0000 [#1] SMP NOPTI",
        b"RIP: 0010:tdi_crash+0x1/0x2",
    )
)


@pytest.mark.parametrize("first", [True, False])
def test_an_oops_beside_a_workqueue_that_leaked_is_a_report_of_its_own(first: bool) -> None:
    found = find_splats(LEAKED + WORK + NULL if first else NULL + LEAKED + WORK, RULES)
    assert sorted(splat.kind for splat in found) == ["lockdep", "null-dereference"]
    cut = b"[    1.000000] ------------[ cut here ]------------\n"
    warned = LEAKED + WORK + cut + _report(CUT.format("bad"), "bad")
    assert sorted(splat.kind for splat in find_splats(warned, RULES)) == ["lockdep", "warn"]


def test_the_work_of_a_workqueue_that_leaked_is_no_report_alone() -> None:
    assert find_splats(WORK, RULES) == ()
    mixed = _report(KASAN.format("bad"), "bad").replace(b"Call Trace", WORK[15:] + b"Call Trace", 1)
    (found,) = find_splats(mixed, RULES)
    assert (found.kind, found.frame) == ("kasan", "bad")


def test_there_are_enough_golden_logs() -> None:
    assert len(LOGS) >= 40
    assert all(log.stat().st_size < 60_000 for log in LOGS)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_golden(log: Path, golden: Golden) -> None:
    data = log.read_bytes()
    document = to_json(find_splats(data, RULES))
    golden(log.with_suffix(".json"), document)
    lines = data.count(b"\n") + 1
    for row in document["splats"]:
        assert 1 <= int(row["start_line"]) <= int(row["end_line"]) <= lines


@pytest.mark.parametrize("log", [log for log in LOGS if log.stem.startswith("innocent")])
def test_innocent_logs_hold_nothing(log: Path) -> None:
    assert find_splats(log.read_bytes(), RULES) == ()


def _identity(data: bytes) -> list[tuple[str, str, str]]:
    return [(splat.kind, splat.title, splat.frame) for splat in find_splats(data, RULES)]


def _carriage_returns(data: bytes) -> bytes:
    return data.replace(b"\r", b"").replace(b"\n", b"\r\n")


def _syslog(data: bytes) -> bytes:
    return re.sub(rb"(?m)^(?=\[ *\d)", b"Nov 22 17:33:33 guest-1 kernel: ", data)


def _journal(data: bytes) -> bytes:
    return re.sub(rb"(?m)^(?=\[ *\d)", b"2026-11-22T17:33:33.123456+00:00 guest kernel: ", data)


def _levels(data: bytes) -> bytes:
    return re.sub(rb"(?m)^(?=\[ *\d)", b"<4>", data)


def _caller_ids(data: bytes) -> bytes:
    return _STAMP.sub(rb"\1[  T123]", data)


def _short_caller_ids(data: bytes) -> bytes:
    return _STAMP.sub(rb"\1[    C1]", data)


def _no_stamps(data: bytes) -> bytes:
    return re.sub(rb"(?m)^\[ *\d+\.\d{6}\] ?", b"", data)


def _dmesg_caller_ids(data: bytes) -> bytes:
    """dmesg of util-linux 2.40 and later puts them apart."""
    return _STAMP.sub(rb"\1 [    T123]", data)


def _journal_monotonic(data: bytes) -> bytes:
    return re.sub(rb"(?m)^(\[ *\d+\.\d{6}\])", rb"\1 guest-1 kernel:", data)


def _dmesg_iso(data: bytes) -> bytes:
    return _STAMP.sub(b"2026-11-22T17:33:33,123456+00:00", data)


def _terminal_contexts(data: bytes) -> bytes:
    """systemd 257 and later put these around what it starts."""
    return data.replace(b"\n", b"\x1b]3008;start=41ac9b;user=root\x1b\\\n")


def _levels_only(data: bytes) -> bytes:
    return re.sub(rb"(?m)^\[ *\d+\.\d{6}\] ?", b"<4>", data)


def _kmsg(data: bytes) -> bytes:
    """/dev/kmsg: what is not printable is escaped, a device follows on lines of its own."""

    def record(match: re.Match[bytes]) -> bytes:
        text = match[3].rstrip(b"\r").replace(b"\\", rb"\x5c").replace(b"\t", rb"\x09")
        time_us = int(match[1]) * 1_000_000 + int(match[2])
        return b"4,77,%d,-;%s\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:05.0" % (time_us, text)

    return re.sub(rb"(?m)^\[ *(\d+)\.(\d{6})\] ?(.*)$", record, data)


def _kmsg_caller_ids(data: bytes) -> bytes:
    return _kmsg(data).replace(b",-;", b",-,caller=T123;")


def _wall_clock(data: bytes) -> bytes:
    return _STAMP.sub(b"[Sun Nov 22 17:33:33 2026]", data)


CLOTHES = [
    _carriage_returns, _syslog, _journal, _levels, _short_caller_ids, _wall_clock,
    _dmesg_caller_ids, _journal_monotonic, _dmesg_iso, _terminal_contexts, _kmsg,
]  # fmt: skip
# Not those whose time stamps are the point.
PLAIN = [log for log in LOGS if not re.search("caller-ids|lookalikes|mid-line", log.stem)]


@pytest.mark.parametrize(
    "clothe", [*CLOTHES, _caller_ids, _kmsg_caller_ids, _no_stamps, _levels_only]
)
@pytest.mark.parametrize(
    "stem", ["null-write", "warn-message", "bug", "hung-task", "rcu-stall", "gpf-panic", "oom"]
)
def test_the_same_report_in_other_clothes(stem: str, clothe: Callable[[bytes], bytes]) -> None:
    data = (DATA / f"{stem}.log").read_bytes()
    changed = clothe(data)
    assert changed != data
    assert _identity(changed) == _identity(data)
    assert _identity(data)


@pytest.mark.parametrize("clothe", CLOTHES)
@pytest.mark.parametrize("log", PLAIN, ids=lambda log: log.stem)
def test_every_log_in_other_clothes(log: Path, clothe: Callable[[bytes], bytes]) -> None:
    data = log.read_bytes()
    assert _identity(clothe(data)) == _identity(data)


def test_every_kind_of_the_contract_has_a_golden_log() -> None:
    seen = {splat.kind for log in LOGS for splat in find_splats(log.read_bytes(), RULES)}
    wanted = {
        "oops", "bug", "warn", "panic", "kasan", "kfence", "kmsan", "kcsan", "ubsan", "lockdep",
        "hung-task", "soft-lockup", "hard-lockup", "rcu-stall", "atomic-sleep", "page-fault",
        "general-protection-fault", "null-dereference", "double-fault", "stack-overflow",
        "list-corruption", "refcount", "kmemleak", "dma-debug", "module-leak", "iommu-fault", "oom",
        "divide-error", "slab",
    }  # fmt: skip
    assert wanted - seen == set()


def test_the_table_can_name_innocents() -> None:
    changed = RULES_TEXT.replace("innocent = []", "innocent = ['in tdi_unbind']")
    assert changed != RULES_TEXT
    assert find_splats((DATA / "kasan.log").read_bytes(), load_rules(changed)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "WARNING: drivers/iommu/iommufd/selftest.c:88 at iommufd_test+0x1/0x2, CPU#0: iommufd/1",
        "BUG: KASAN: slab-use-after-free in selftest_alloc+0x1/0x2",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [fail_nth/12]",
    ],
)
def test_tests_in_the_kernel_are_not_innocent(text: str) -> None:
    assert len(find_splats(text.encode(), RULES)) == 1


def test_two_processors_with_caller_ids_come_apart() -> None:
    splats = find_splats((DATA / "two-cpus-caller-ids.log").read_bytes(), RULES)
    assert [(splat.kind, splat.frame, splat.corrupted) for splat in splats] == [
        ("warn", "tsm_lock_store", False),
        ("null-dereference", "tdi_state_show", False),
        ("soft-lockup", "tdi_spin", False),
    ]
    assert splats[0].start_line < splats[1].start_line < splats[0].end_line


def test_a_report_is_over_when_its_caller_stays_silent() -> None:
    """Others go on talking; the report neither grows nor takes up a late line of its caller."""
    head = (DATA / "two-cpus-caller-ids.log").read_bytes()
    noise = b"".join(b"[   61.%06d][  T303] eth0: link is up\n" % number for number in range(500))
    late = b"[   99.000000][  T101]  late_frame+0x1/0x2\n"
    splats = find_splats(head + noise + late, RULES)
    assert splats == find_splats(head, RULES)


def test_two_processors_without_caller_ids_are_corrupted() -> None:
    splats = find_splats((DATA / "two-cpus-interleaved.log").read_bytes(), RULES)
    assert [splat.corrupted for splat in splats] == [True, True]


def test_panic_without_trace_takes_the_frame_of_its_oops() -> None:
    splats = find_splats((DATA / "gpf-panic.log").read_bytes(), RULES)
    assert [(splat.kind, splat.frame) for splat in splats] == [
        ("general-protection-fault", "sg_gpf"),
        ("panic", "sg_gpf"),
    ]


@pytest.mark.parametrize(
    ("first", "panic", "frames"),
    [
        (HUNG, "hung_task: blocked tasks", ["panic", "watchdog", "kthread"]),
        (STUCK, "softlockup: hung tasks", ["panic", "watchdog_timer_fn"]),
    ],
)
def test_a_panic_of_a_watchdog_is_that_of_its_report(
    first: str, panic: str, frames: list[str]
) -> None:
    report = _report(first, "schedule", "tdi_map")
    end = _report(f"Kernel panic - not syncing: {panic}", *frames)
    assert [splat.frame for splat in find_splats(report + end, RULES)] == ["tdi_map"] * 2
    quiet = b"[    2.000000] eth0: link is up\n" * 1000
    assert find_splats(report + quiet + end, RULES)[1].frame == "", "another story"


BEHIND_PROMPT = [
    "panic-sysrq", "panic-no-root", "gpf-panic", "null-write", "page-fault", "stack-overflow",
    "hung-task", "rcu-stall", "soft-lockup-panic", "sleeping-in-atomic", "divide-error", "kasan",
]  # fmt: skip


@pytest.mark.parametrize("clothe", [lambda data: data, _no_stamps, _caller_ids])
@pytest.mark.parametrize("prompt", [b"# ", b"root@vm:~# ", b"[root@vm ~]# ", b"/ # ", b"$ "])
@pytest.mark.parametrize("stem", BEHIND_PROMPT)
def test_a_header_behind_a_shell_prompt(
    stem: str, prompt: bytes, clothe: Callable[[bytes], bytes]
) -> None:
    """What a test quotes behind "# " is followed by more quotes, or by its result."""
    data = clothe((DATA / f"{stem}.log").read_bytes())
    splats = find_splats(data, RULES)
    lines = data.split(b"\n")
    first = splats[0].start_line - 1
    glued = [*lines[:first], prompt + lines[first], *lines[first + 1 :]]
    assert _identity(b"\n".join(glued)) == _identity(data)
    if prompt == b"# ":
        assert find_splats(b"\n".join(prompt + line for line in lines), RULES) == ()
        for after in (b"ok 1 the text is found", b"[   99.000000] eth0: link is up", b""):
            assert find_splats(b"\n".join([prompt + lines[first], after]), RULES) == ()


def test_records_of_dev_kmsg() -> None:
    line = parse_line(rb"6,1234,5060708,-,caller=T12;\x0aname \xc3\xa4\x0aof \x5c two")
    assert line == ConsoleLine("name ä\nof \\ two", "[    5.060708]", "T12")
    assert parse_line(b"3,1,0,c;Linux version 7") == ConsoleLine(
        "Linux version 7", "[    0.000000]", ""
    )
    for text in ("1,2,3;x", "6,1234,5060708;x", "1,2,3,-", "1,2,3,-no;x"):
        assert parse_line(text.encode()) == ConsoleLine(text, "", "")


@pytest.mark.parametrize("at", range(0, 2200, 100))
def test_a_report_that_two_pieces_share(at: int) -> None:
    """A log is taken in pieces of 256 KiB; here one ends `at` bytes into the log of a report."""
    data = (DATA / "kasan.log").read_bytes()
    before = b"quiet\n".rjust((1 << 18) - at, b".")
    (alone,) = find_splats(data, RULES)
    (splat,) = find_splats(before + data, RULES)
    lines = (alone.start_line + 1, alone.end_line + 1)
    assert splat == replace(alone, start_line=lines[0], end_line=lines[1])


def test_trace_keeps_what_the_kernel_printed() -> None:
    (splat,) = find_splats((DATA / "refcount.log").read_bytes(), RULES)
    assert splat.trace[0] == "sg_ref+0x4c/0x50 [splatgen]"


def test_fingerprint_is_the_same_across_boots() -> None:
    """Two boots of the same defect: other addresses (KASLR), other process, other times."""
    first = find_splats((DATA / "null-write.log").read_bytes(), RULES)
    second = find_splats((DATA / "null-nokaslr.log").read_bytes(), RULES)
    assert first[0].fingerprint == second[0].fingerprint
    assert first[0].fingerprint == fingerprint(first[0].kind, first[0].title, first[0].frame)


def test_fingerprint_tells_defects_apart() -> None:
    stems = ("null-write", "null-jump", "page-fault", "warn-on", "refcount", "dma-debug-size")
    marks = {
        find_splats((DATA / f"{stem}.log").read_bytes(), RULES)[0].fingerprint for stem in stems
    }
    assert len(marks) == len(stems)


def test_excerpt_is_the_raw_lines() -> None:
    data = (DATA / "kasan.log").read_bytes()
    (splat,) = find_splats(data, RULES)
    (text,) = excerpts(data, [splat])
    assert text.splitlines()[0].endswith("=" * 66)
    assert text.splitlines()[-1].endswith("=" * 66)
    assert "Freed by task 412" in text
    assert "systemd" not in text


def test_excerpt_of_another_log_is_empty() -> None:
    (splat,) = find_splats((DATA / "kasan.log").read_bytes(), RULES)
    assert list(excerpts(b"", [splat])) == [""]


def test_excerpts_of_several_splats_may_overlap() -> None:
    data = b"".join(b"line %d\r\n" % number for number in range(1, 11))
    spans = [(2, 9), (4, 4), (4, 5), (10, 10), (11, 12)]
    splats = [Splat("warn", "t", "f", first, last) for first, last in spans]
    assert [text.replace("line ", "").split("\n") for text in excerpts(data, splats, 3)] == [
        ["2", "3", "4"], ["4"], ["4", "5"], ["10"], [""],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("value 17 at ffffffffc0273068", "value NUM at NUM"),
        ("at 0xffff888104a3d418 flags 0X1F", "at NUM flags NUM"),
        ("foo.constprop.0+0x1c/0x20 [mod]", "foo"),
        ("vfio-pci 0000:00:05.0: reset", "vfio-pci BDF: reset"),
        ("bash/331 is here", "bash/NUM is here"),
        ("[insmod:40]", "[insmod:NUM]"),
        ("memcpy failed", "memcpy failed"),
        ("__x64_sys_read, ip6_output, tsm10", "__x64_sys_read, ip6_output, tsm10"),
        ("waited 10ms for\0 a \x1b]0;\ufffd", "waited NUMms for a ]NUM;"),
        ("pid 12 died", "pid NUM died"),
        ("a" * 100_000, "a" * 200),
    ],
)
def test_normalise(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("iova {} is not mapped", ("0x20", "0xfffff000", "0x100000000", "0xffff888104a3d418")),
        ("took {} ns", ("7", "1234567", "12345678", "123456789012")),
        ("status {}: refused", ("17", "a3", "10fc", "7ffdc000", "deadbeef", "1F")),
        ("pointer {} is odd", ("(null)", "(____ptrval____)", "00000000deadbeef")),
        ("device {} is gone", ("0000:00:05.0", "10000:e1:00.7")),
        ("address {} is taken", ("52:54:00:12:34:56", "02:aa:bb:cc:dd:ee")),
        ("id {}", ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "abcdefab-adad-fade-beef-c0ffeec0ffee")),
    ],
)
def test_a_title_does_not_depend_on_the_value(template: str, values: tuple[str, ...]) -> None:
    assert len({normalise(template.format(value)) for value in values}) == 1


@pytest.mark.parametrize(
    ("header", "frames"),
    [
        ("BUG: KASAN: slab-use-after-free in 0xffffffffc0001234", ["kasan_report"]),
        (KASAN, ["strcmp"]),
        (KASAN, ["_copy_to_user"]),
        (KASAN, ["string", "vsnprintf", "sysfs_emit"]),
        (KASAN, ["rb_erase"]),
        (KASAN, ["_find_next_bit"]),
        (HUNG, ["__schedule", "schedule", "schedule_timeout", "__flush_work", "cancel_work_sync"]),
        (HUNG, ["__schedule", "schedule", "__synchronize_srcu", "synchronize_srcu"]),
        (HUNG, ["__schedule", "schedule", "kthread_stop"]),
        (STUCK, ["smp_call_function_many_cond", "on_each_cpu_cond_mask"]),
        (STACK, ["panic", "__stack_chk_fail"]),
        (KASAN, ["refcount_dec_and_test", "kobject_put", "put_device"]),
        (PREEMPTIBLE, ["dump_stack_lvl", "check_preemption_disabled"]),
        (SLAB, ["check_bytes_and_report", "check_object", "free_to_partial_list"]),
        (CUT, ["do_kernel_cp_fault", "exc_control_protection"]),
        (CUT, ["rust_helper_BUG", "rust_begin_unwind", "_RNvNtCsabc_4core9panicking9panic_fmt"]),
        (CUT, ["warn_bogus_irq_restore"]),
        (CUT, ["rcu_note_context_switch", "__schedule"]),
    ],
)
def test_generic_functions_are_not_guilty(header: str, frames: list[str]) -> None:
    (splat,) = find_splats(_report(header.format(frames[0]), *frames, "tdi_map"), RULES)
    assert splat.frame == "tdi_map"


def test_what_a_program_prints_is_no_message_of_a_warning() -> None:
    data = (DATA / "warn-message.log").read_bytes()
    cut_here = b"[ cut here ]------------\r\n"
    assert cut_here in data
    noisy = data.replace(cut_here, cut_here + b"systemd[1]: Started a job.\r\n")
    assert _identity(noisy) == _identity(data)


def test_held_lock_has_no_trace_and_is_whole() -> None:
    lines = [
        "WARNING: lock held when returning to user space!", "7.3.4 #1 Not tainted", "-" * 48,
        "a/12 is leaving the kernel with locks still held!", "1 lock held by a/12:",
        " #0: ffff888104a3d518 (&tsm->lock){+.+.}-{4:4}, at: tdi_map+0x1/0x2",
    ]  # fmt: skip
    data = "".join(f"[    1.000000] {line}\n" for line in lines).encode()
    (splat,) = find_splats(data, RULES)
    assert (splat.kind, splat.end_line, splat.corrupted) == ("lockdep", 6, False)


@pytest.mark.parametrize("name", ["lock_store", "lock_show", "lock_write"])
def test_functions_of_the_series_may_be_guilty(name: str) -> None:
    header = "WARNING: drivers/pci/tsm.c:88 at {}+0x1/0x2, CPU#1: a/12"
    (splat,) = find_splats(_report(header.format(name), name, "vfs_write"), RULES)
    assert splat.frame == name


def test_decode_names_bare_addresses() -> None:
    system_map = "ffffffff81000000 T _text\nffffffff81234500 t foo\nbad line\nzz T bar\n"
    (splat,) = find_splats((DATA / "bare-addresses.log").read_bytes(), RULES)
    assert splat.trace == ("ffffffff81234567", "ffffffff81000100")
    assert decode(splat.trace, system_map) == ("foo+0x67", "_text+0x100")
    assert decode(("known+0x1/0x2", "0000000000000001"), system_map) == (
        "known+0x1/0x2",
        "0000000000000001",
    )
    assert decode(splat.trace, "") == splat.trace


RULE = '[[rule]]\nkind = "k"\nneedles = ["x"]\nheader = "x"\ntitle = "x"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "rule: missing"),
        ("[[rule]", "configs/splat_rules.toml"),
        ('[[rule]]\nkind = "k"\n', r"rule\[1\] \(k\): header: missing"),
        (RULE.replace('header = "x"', 'header = "("'), r"rule\[1\] \(k\): header: "),
        (RULE.replace('title = "x"', 'title = "{nothing}"'), "title: .*no group"),
        (RULE.replace('["x"]', "[]"), "needles: missing"),
        (RULE.replace('["x"]', "[3]"), "needles: a list of texts"),
        (RULE + 'frames = ["here"]\n', "frames: 'here'"),
        (RULE + 'patience = "long"\n', "patience"),
        (RULE + "typo = 1\n", "typo: no such key"),
        ("lines = 3\n" + RULE, "lines: a table"),
        (RULE + '[lines]\nbody = ["("]\n', r"lines.body\[1\]"),
        (RULE + "[lines]\nmax = 0\n", "lines.max"),
        ("rule = [3]\n", "a table is wanted"),
    ],
)
def test_bad_rules_are_named(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_rules(text)
