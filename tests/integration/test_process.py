# SPDX-License-Identifier: GPL-2.0-only
"""Processes: output, deadlines, whole groups, and what a killed run leaves to the next one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from harness.adapters import live, process
from harness.errors import InfraError, StorageError


def test_output_of_both_streams_and_status() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.out, done.err, done.returncode) == ("out\n", "err\n", 3)


def test_large_input_and_output_do_not_block() -> None:
    data = os.urandom(3 << 20)
    assert process.run(["cat"], stdin=data, timeout_s=30).stdout == data


def test_a_process_that_does_not_read_its_input() -> None:
    assert process.run(["true"], stdin=b"x" * (4 << 20), timeout_s=30).returncode == 0


def test_lines_as_they_come_and_log(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    process.run(["sh", "-c", "echo a; printf b"], on_line=lines.append, log=log)
    assert sorted(lines) == ["a", "b"]
    assert log.read_text() == "a\nb"


def test_failure_names_step_status_lines_and_command(tmp_path: Path) -> None:
    with pytest.raises(InfraError) as caught:
        process.run(["sh", "-c", "echo reason >&2; exit 7"], cwd=tmp_path, what="the step")
    error = caught.value
    assert error.message == "the step: exit status 7\n  reason"
    assert error.command == f"cd {tmp_path} && sh -c 'echo reason >&2; exit 7'"


def test_missing_program_says_how_to_find_the_package() -> None:
    with pytest.raises(InfraError) as caught:
        process.run(["no-such-program-here"])
    assert "not found" in caught.value.message
    assert "doctor" in caught.value.hint


def test_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; wait"
    with pytest.raises(InfraError, match="no end after"):
        process.run(["sh", "-c", script], timeout_s=0.5)
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    assert not process.TABLE.alive()


def test_a_daemon_that_keeps_the_pipe_does_not_hold_us() -> None:
    begin = time.monotonic()
    done = process.run(["sh", "-c", "sleep 60 & echo started"], timeout_s=30)
    assert done.out == "started\n"
    assert time.monotonic() - begin < 20


def test_a_stubborn_child_is_killed() -> None:
    child = process.TABLE.start(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    time.sleep(0.2)
    assert child.end(grace_s=0.3) == -signal.SIGKILL


STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]


def stubborn(table: process.ProcessTable) -> process.Child:
    """A child that has to be killed."""
    child = table.start(STUBBORN, stdout=subprocess.PIPE)
    assert child.popen.stdout is not None
    with child.popen.stdout:
        child.popen.stdout.readline()
    return child


def interrupted_after(seconds: float, signum: int = signal.SIGINT) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signum))
    timer.start()
    return timer


def test_a_wait_for_the_end_that_is_interrupted_kills() -> None:
    table = process.ProcessTable()
    child = stubborn(table)
    interrupted_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        child.end(grace_s=60)
    assert child.popen.returncode == -signal.SIGKILL
    assert table.alive() == ()


def test_a_problem_with_one_child_spares_no_other() -> None:
    table = process.ProcessTable()
    children = [table.start(["sleep", "300"]) for _ in range(3)]

    def forget(pid: int) -> None:
        raise StorageError(f"pid {children.index(next(c for c in children if c.pid == pid))}")

    table.on_end = forget
    with pytest.raises(StorageError, match="pid 2"):
        table.end_all()
    assert table.alive() == ()
    assert not any(child.alive() for child in children)


def test_interrupts_come_later_but_come() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), process.interrupts_later():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("clean-up")
    assert done == ["clean-up"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with process.interrupts_later():
        pass


def test_a_record_on_a_full_disk_does_not_hinder_the_end_of_a_process(tmp_path: Path) -> None:
    record = live.LiveRecord(tmp_path, "run")
    record.add_process(os.getpid())
    shutil.rmtree(tmp_path / "live")  # nothing can be written there any more
    record.remove_process(os.getpid())
    with pytest.raises(StorageError):
        record.add_process(os.getpid())


def test_the_next_run_clears_up_after_a_killed_one(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from harness.adapters import live, process
        cache = Path({str(tmp_path)!r})
        record = live.LiveRecord(cache, "dead")
        process.TABLE.on_start = record.add_process
        child = process.TABLE.start(["sleep", "300"])
        left = cache / "socket-directory"
        left.mkdir()
        record.add_path(left)
        print(child.pid, flush=True)
        time.sleep(300)
        """
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    child = int(victim.stdout.readline())
    assert live.sweep(tmp_path) == (), "a living run must be left alone"
    assert psutil.pid_exists(child)
    victim.kill()
    victim.wait()
    victim.stdout.close()
    found = live.sweep(tmp_path)
    assert {entry.what for entry in found} == {
        f"process {child}",
        str(tmp_path / "socket-directory"),
    }
    assert not (tmp_path / "socket-directory").exists()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert live.sweep(tmp_path) == ()


def test_a_record_cut_off_by_a_full_disk_is_removed(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "half.json").write_text('{"processes": [[1')
    assert live.sweep(tmp_path) == ()
    assert not list((tmp_path / "live").iterdir())


def test_a_reused_pid_is_not_touched(tmp_path: Path) -> None:
    child = process.TABLE.start(["sleep", "300"])
    try:
        (tmp_path / "live").mkdir()
        record = f'{{"processes": [[{child.pid}, 1.0]], "paths": []}}'
        (tmp_path / "live" / "old.json").write_text(record)
        assert live.sweep(tmp_path) == ()
        assert child.alive()
    finally:
        child.end()
