# SPDX-License-Identifier: GPL-2.0-only
"""The script around a kselftest, run by a real shell against a fake kselftest tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.model.kernel import Role
from harness.model.plan import TestId
from harness.stages.selftest import _split_status, script

TEST = TestId(Role.GUEST, "tsm", "dma_freeze")


def test_the_status_line_is_taken_off_the_output() -> None:
    output = b"TAP version 13\n1..1\nok 1 a\n\ncafe status=1 taint=0,512\n"
    rest, status, taint = _split_status(output, "cafe")
    assert rest == b"TAP version 13\n1..1\nok 1 a\n"
    assert (status, taint) == (1, (0, 512))


def test_a_status_line_that_the_test_printed_is_no_status() -> None:
    output = b"deadbeef status=0 taint=0,0\n"
    assert _split_status(output, "cafe") == (output, None, (0, 0))


def test_an_output_cut_off_has_no_status() -> None:
    assert _split_status(b"ok 1 a\n", "cafe")[1] is None


def test_names_are_quoted_and_the_timeout_is_at_least_a_second() -> None:
    text = script(TestId(Role.GUEST, "tsm", "a b"), ("<m'>", "e"), "cafe", 0.2)
    assert "-o 1 -t 'tsm:a b'" in text
    assert "'<5><m'\"'\"'>'" in text


def test_the_secret_of_the_run_is_not_in_the_command() -> None:
    assert "token" not in script(TEST, ("begin", "end"), "cafe", 10)


# What a test can see of the processes above it, and of its stdin.
SPY = """\
#!/bin/sh
pid=$$
while [ "$pid" -gt 1 ]; do
	tr '\\0' ' ' < /proc/$pid/cmdline
	tr '\\0' ' ' < /proc/$pid/environ
	echo
	read -r _ _ _ parent _ < /proc/$pid/stat
	pid=$parent
done
echo "stdin: $(cat)."
echo 'ok 1 a'
exit 3
"""


def in_shell(shell: str, tree: Path) -> tuple[bytes, str]:
    """What comes back over SSH, and the kernel log."""
    kmsg = tree.parent / "kmsg"
    kmsg.touch()
    text = script(TEST, ("begin-secret", "end-secret"), "cafe", 10)
    text = text.replace("/opt/kselftest", str(tree)).replace("> /dev/kmsg", f">> {kmsg}")
    done = subprocess.run(
        ["sh", "-c", f"exec {shell}"], input=text.encode(), capture_output=True, check=False
    )
    assert done.stderr == b""
    return done.stdout, kmsg.read_text()


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox sh"])
def test_a_test_sees_neither_its_end_marker_nor_the_nonce(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"no {shell}")
    tree = tmp_path / "tree"
    tree.mkdir()
    runner = tree / "run_kselftest.sh"
    runner.write_text(SPY)
    runner.chmod(0o755)
    output, kmsg = in_shell(shell, tree)
    rest, status, _ = _split_status(output, "cafe")
    assert status == 3
    assert b"run_kselftest.sh -o 10 -t tsm:dma_freeze" in rest
    assert b"stdin: .\nok 1 a\n" in rest
    assert b"secret" not in rest
    assert b"cafe" not in rest
    assert kmsg == "<5>begin-secret\n<5>end-secret\n"


def test_a_tree_that_is_not_there_gives_no_status(tmp_path: Path) -> None:
    output, kmsg = in_shell("sh", tmp_path / "none")
    assert _split_status(output, "cafe")[1] is None
    assert b"none" in output
    assert kmsg == ""
