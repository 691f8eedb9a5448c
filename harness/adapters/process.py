# SPDX-License-Identifier: GPL-2.0-only
"""The only place that starts processes.

Every child leads its own process group, so that ending it ends its descendants too. Children are
kept in a table; `end_all()` is called on the way out, whatever the way is. A run that is killed
with SIGKILL cannot clean up: the table therefore also writes each child to the run's live record
(adapters/live.py), from which the next run does it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import InfraError

_TAIL_LINES = 20
_KEEP_BYTES = 16 << 20
_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that ended. Output beyond 16 MiB per stream keeps its last part only."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    timed_out: bool = False

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace")


class Interrupted(Exception):  # noqa: N818  (a state, not an error)
    """The run is being stopped (Ctrl-C, SIGTERM); raised out of waits in worker threads."""


class Child:
    """A running child process and its process group."""

    def __init__(self, popen: subprocess.Popen[bytes], table: ProcessTable) -> None:
        self.popen = popen
        self._table = table

    @property
    def pid(self) -> int:
        return self.popen.pid

    def alive(self) -> bool:
        return self.popen.poll() is None

    def end(self, grace_s: float = _GRACE_S) -> int:
        """Terminate the group, kill it after `grace_s`; the return code. Idempotent.

        An interrupt of the wait kills at once, and then passes through.
        """
        try:
            if self.popen.poll() is None:
                _signal_group(self.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.popen.wait(grace_s)
        finally:
            # descendants may outlive the leader of the group
            _signal_group(self.pid, signal.SIGKILL)
            self.popen.wait()
            self._table.forget(self)
        return int(self.popen.returncode)

    def wait(self, timeout_s: float) -> int | None:
        """Wait; None when it still runs after `timeout_s`."""
        try:
            code = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._table.forget(self)
        return code


class ProcessTable:
    """All children alive. `on_start` and `on_end` receive pids (the live record)."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._lock = threading.Lock()
        self.on_start: Callable[[int], None] = ignore_pid
        self.on_end: Callable[[int], None] = ignore_pid
        self.stopping = threading.Event()

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a process in its own group; `env` is added to the inherited environment."""
        if self.stopping.is_set():
            raise Interrupted
        try:
            popen = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=None if env is None else {**os.environ, **env},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=tuple(pass_fds),
                process_group=0,
            )
        except FileNotFoundError as exc:
            missing = argv[0] if cwd is None or cwd.is_dir() else str(cwd)
            raise InfraError(
                f"{missing}: not found",
                hint="`tdisp-harness doctor` names the package that holds it",
                command=shlex.join(argv),
            ) from exc
        except OSError as exc:
            raise InfraError(f"cannot start {argv[0]}: {exc}", command=shlex.join(argv)) from exc
        child = Child(popen, self)
        with self._lock:
            self._children[child.pid] = child
        self.on_start(child.pid)
        return child

    def forget(self, child: Child) -> None:
        with self._lock:
            known = self._children.pop(child.pid, None)
        if known is not None:
            self.on_end(child.pid)

    def end_all(self) -> None:
        """End every child, the last started first. The first problem is raised after the last."""
        with self._lock:
            children = list(self._children.values())
        problems: list[BaseException] = []
        for child in reversed(children):
            try:
                child.end()
            except BaseException as exc:  # an interrupt too: the others have to end
                problems.append(exc)
        if problems:
            raise problems[0]

    def alive(self) -> tuple[int, ...]:
        with self._lock:
            return tuple(self._children)


def ignore_pid(pid: int) -> None:
    """For ProcessTable.on_start and on_end when no live record is open."""
    del pid


TABLE = ProcessTable()


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP during the block come when it is over, as one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    came: list[int] = []
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {s: signal.signal(s, lambda signum, _: came.append(signum)) for s in signums}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if came:
            signal.raise_signal(came[0])


def _signal_group(pgid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


class _LineFeed:
    """Collects a stream, passes whole lines on, and keeps the last part when it is long."""

    def __init__(self, on_line: Callable[[str], None] | None, log: IO[bytes] | None) -> None:
        self._chunks = bytearray()
        self._rest = b""
        self._on_line = on_line
        self._log = log

    def feed(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(data)
        self._chunks += data
        if len(self._chunks) > 2 * _KEEP_BYTES:
            del self._chunks[:-_KEEP_BYTES]
        if self._on_line is not None:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace"))

    def close(self) -> bytes:
        if self._on_line is not None and self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        return bytes(self._chunks[-_KEEP_BYTES:])


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
    log: Path | None = None,
    what: str = "",
) -> Completed:
    """Run a process to its end and collect its output.

    on_line: called with each line of stdout and stderr as it comes. log: file that receives both.
    check: a non-zero status, or the timeout, raises InfraError with the last lines, the command and
    the log; otherwise they are in the result. `what` names the step in that error.
    """
    begin = time.monotonic()
    deadline = None if timeout_s is None else begin + timeout_s
    with contextlib.ExitStack() as stack:
        log_file = stack.enter_context(log.open("ab")) if log is not None else None
        child = TABLE.start(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stack.callback(child.end, 1.0)
        feeds = _LineFeed(on_line, log_file), _LineFeed(on_line, log_file)
        timed_out = _pump(child, stdin, feeds, deadline)
        returncode = child.end(1.0) if timed_out else child.popen.wait()
        outputs = feeds[0].close(), feeds[1].close()
        for stream in (child.popen.stdin, child.popen.stdout, child.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
    done = Completed(tuple(argv), returncode, *outputs, time.monotonic() - begin, timed_out)
    if TABLE.stopping.is_set() and returncode != 0:
        raise Interrupted
    if check and (timed_out or returncode != 0):
        raise _failure(done, what, timeout_s, cwd, log)
    return done


def _pump(
    child: Child, stdin: bytes, feeds: tuple[_LineFeed, _LineFeed], deadline: float | None
) -> bool:
    """Move data until both outputs are closed; True when the deadline came first."""
    popen = child.popen
    pending = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        for stream, feed in ((popen.stdout, feeds[0]), (popen.stderr, feeds[1])):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, feed)
        if popen.stdin is not None:
            os.set_blocking(popen.stdin.fileno(), False)
            selector.register(popen.stdin, selectors.EVENT_WRITE, None)
        while any(key.data is not None for key in selector.get_map().values()):
            if deadline is not None and time.monotonic() >= deadline:
                return True
            # wake up now and then: a leader that ended may leave its pipe to a daemon
            ready = selector.select(0.5)
            if not ready and popen.poll() is not None:
                return False
            for key, _ in ready:
                if key.data is None:
                    pending = _write_some(popen, pending)
                    if not pending:
                        selector.unregister(key.fileobj)
                        assert popen.stdin is not None
                        with contextlib.suppress(BrokenPipeError):
                            popen.stdin.close()
                    continue
                data = os.read(key.fd, 1 << 16)
                if data:
                    key.data.feed(data)
                else:
                    selector.unregister(key.fileobj)
    return False


def _write_some(popen: subprocess.Popen[bytes], pending: memoryview) -> memoryview:
    assert popen.stdin is not None
    try:
        return pending[os.write(popen.stdin.fileno(), pending[: 1 << 16]) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        return memoryview(b"")


def _failure(
    done: Completed, what: str, timeout_s: float | None, cwd: Path | None, log: Path | None
) -> InfraError:
    name = what or Path(done.argv[0]).name
    how = f"no end after {timeout_s:.0f} s" if done.timed_out else f"exit status {done.returncode}"
    if not done.timed_out and done.returncode < 0:
        how = f"ended by {signal.Signals(-done.returncode).name}"
    tail = (done.err.strip() or done.out.strip()).splitlines()[-_TAIL_LINES:]
    message = f"{name}: {how}" + "".join(f"\n  {line}" for line in tail)
    command = shlex.join(done.argv)
    if cwd is not None:
        command = f"cd {shlex.quote(str(cwd))} && {command}"
    return InfraError(message, command=command, log=log, detail=done)
