# SPDX-License-Identifier: GPL-2.0-only
"""What kbuild and its tools print, as messages with a file relative to the tree."""

from __future__ import annotations

import pytest

from harness.core.kbuild_output import KbuildOutput


def read(*lines: str) -> KbuildOutput:
    output = KbuildOutput("/cache/linux", counted.append)
    for line in lines:
        output.line(line)
    return output


counted: list[int] = []


def test_objects_are_counted_and_other_steps_are_not() -> None:
    counted.clear()
    output = read(
        "make[1]: Entering directory '/cache/linux/build'",
        "  SYNC    include/config/auto.conf.cmd",
        "  HOSTCC  scripts/basic/fixdep",
        "  CC      init/main.o",
        "  CC [M]  drivers/net/dummy.o",
        "  AS      arch/x86/entry/entry.o",
        "  AR      init/built-in.a",
        "  LD      vmlinux.o",
        "Kernel: arch/x86/boot/bzImage is ready  (#1)",
    )
    assert counted == [1, 2, 3, 4]
    assert output.objects == 4
    assert {"init/main.o", "drivers/net/dummy.o"} <= output.compiled
    assert (output.warnings, output.first_error) == ((), None)


@pytest.mark.parametrize(
    ("line", "file", "number", "text", "error"),
    [
        ("../kernel/fork.c:12:5: error: 'x' undeclared", "kernel/fork.c", 12, "'x' undeclared", 1),
        ("../a.c:3:1: fatal error: b.h: No such file", "a.c", 3, "b.h: No such file", 1),
        ("../a.c:3:1: warning: unused [-Wunused]", "a.c", 3, "unused [-Wunused]", 0),
        ("/cache/linux/tools/x.c:7:2: error: no", "tools/x.c", 7, "no", 1),
        ("./include/generated/a.h:1:1: error: no", "build/include/generated/a.h", 1, "no", 1),
        ("../arch/x86/kvm/../../../virt/kvm/a.c:1:1: error: no", "virt/kvm/a.c", 1, "no", 1),
        ("../a.S:9: Error: no such instruction", "a.S", 9, "no such instruction", 1),
        ("drivers/pci/Kconfig:12: syntax error", "drivers/pci/Kconfig", 12, "syntax error", 1),
        (
            "vmlinux.o: warning: objtool: f+0x1: unreachable instruction",
            "vmlinux.o", 0, "objtool: f+0x1: unreachable instruction", 0,
        ),
        (
            'ERROR: modpost: "dma_x" [drivers/a/b.ko] undefined!',
            "drivers/a/b.ko", 0, 'modpost: "dma_x" [drivers/a/b.ko] undefined!', 1,
        ),
        (
            "WARNING: modpost: vmlinux: section mismatch in reference: a",
            "", 0, "modpost: vmlinux: section mismatch in reference: a", 0,
        ),
        (
            "WARNING: unmet direct dependencies detected for TSM",
            "Kconfig", 0, "unmet direct dependencies detected for TSM", 0,
        ),
        (
            "ld: ../kernel/a.c:(.text+0x1): undefined reference to `b'",
            "kernel/a.c", 0, "undefined reference to `b'", 1,
        ),
        (
            "/usr/bin/ld: ../kernel/a.c:12: undefined reference to `b'",
            "kernel/a.c", 12, "undefined reference to `b'", 1,
        ),
        ("ld: vmlinux.o: multiple definition of `b'; c.o", "vmlinux.o", 0,
         "multiple definition of `b'; c.o", 1),
        ("../Makefile:7: *** missing separator.  Stop.", "Makefile", 7,
         "missing separator.  Stop.", 1),
    ],
)  # fmt: skip
def test_a_message(line: str, file: str, number: int, text: str, error: int) -> None:
    output = read(line)
    found = output.first_error if error else output.warnings[0]
    assert found is not None
    assert (found.file, found.line, found.text, found.error) == (file, number, text, bool(error))
    assert bool(output.warnings) is not bool(error)


def test_the_first_error_of_a_tool_beats_the_stops_of_make() -> None:
    output = read(
        "make[4]: *** [../scripts/Makefile.build:289: lib/a.o] Error 1",
        "In file included from ../lib/b.c:1:",
        "../lib/b.c:2:1: error: first",
        "../lib/b.c:3:1: error: second",
    )
    assert output.first_error is not None
    assert output.first_error.text == "first"


def test_a_stop_of_make_is_the_error_when_no_tool_said_one() -> None:
    output = read("make[4]: *** [../scripts/Makefile.build:289: lib/a.o] Error 1")
    assert output.first_error is not None
    assert output.first_error.file == "lib/a.o"
    missing = read("make[2]: *** No rule to make target 'a.o', needed by 'b.a'.  Stop.").first_error
    assert missing is not None
    assert missing.text.startswith("No rule to make target 'a.o'")


def test_a_warning_is_kept_once() -> None:
    line = "../include/a.h:1:1: warning: twice"
    assert len(read(line, line, line.replace("twice", "other")).warnings) == 2


def test_full_disks_and_killed_compilers_are_noticed() -> None:
    assert read("../a.c:1:1: fatal error: error writing: No space left on device").disk_full
    assert read("gcc: fatal error: Killed signal terminated program cc1").killed
    assert not read("  CC      mm/oom_kill.o").killed
