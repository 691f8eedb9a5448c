# SPDX-License-Identifier: GPL-2.0-only
"""The emulated TEE-IO platform as a process of this run, and its control socket."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import layout
from harness.adapters.process import TABLE, Child
from harness.core.platform_argv import places, platform_argv, qemu_platform
from harness.errors import MachineError
from harness.model.platform import PlatformCell

LOG_NAME = "platform.jsonl"
_OUTPUT_NAME = "platform.log"
_CONTROL = "control.sock"
_START_S = 60.0
_ASK_S = 20.0
_POLL_S = 0.02
# how long a guest may go on without its platform before it is given up
_GRACE_S = 5.0
_SETTLE_S = 5.0


class PlatformProcess:
    """One platform: start() it before its VM, close() it in any case.

    Events go to platform.jsonl in the run directory, which the platforms of a run share: each
    appends to it. on_temporary: is told the directory of the sockets (the live record).
    """

    def __init__(
        self, cell: PlatformCell, run_dir: Path, on_temporary: Callable[[Path], None]
    ) -> None:
        self.cell = cell
        self.log = run_dir / LOG_NAME
        self._output = run_dir / _OUTPUT_NAME
        self._directory = Path(tempfile.mkdtemp(prefix="tdisp-platform-"))
        on_temporary(self._directory)
        self._child: Child | None = None
        self._lost_at: float | None = None

    @property
    def pid(self) -> int:
        return self._child.pid if self._child is not None else 0

    @property
    def qemu_arguments(self) -> tuple[str, ...]:
        """What the VM's QEMU needs besides shared memory."""
        return qemu_platform(self.cell, self._directory)

    def start(self) -> None:
        """Start it and wait until it serves. MachineError when it does not."""
        options = platform_argv(self.cell, self._directory, self.log)
        said_before = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            # from the repository, so that the module is found however the harness was started
            self._child = TABLE.start(
                [sys.executable, "-m", "harness.emulator", *options],
                cwd=layout.REPOSITORY,
                stdout=output,
                stderr=output,
            )
        wanted = [self._directory / f"{place.name}.sock" for place in places(self.cell)]
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self.alive():
            if all(path.is_socket() for path in wanted):
                with contextlib.suppress(MachineError):
                    self.ask(op="state")
                    return
            time.sleep(_POLL_S)
        said = self._output.read_bytes()[said_before:].decode(errors="replace").strip()
        why = said.splitlines()[-1] if said else "no message"
        self.close()
        raise MachineError(f"platform: did not start: {why}", log=self._output)

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def lost(self) -> bool:
        """It ended some seconds ago: its VM is of no more use. Cheap: it is polled."""
        if self.alive():
            return False
        self._lost_at = self._lost_at or time.monotonic()
        return time.monotonic() - self._lost_at > _GRACE_S

    def how_it_ended(self) -> str:
        """In words; waits a moment for a process that is just ending. "" while it is alive."""
        if self._child is None:
            return "was not started"
        code = self._child.wait(_SETTLE_S)
        if code is None:
            return ""
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request over the control socket (docs/platform.md) and its answer.

        MachineError when the platform is gone, does not answer or refuses.
        """
        what = request.get("op", "?")
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(_ASK_S)
                control.connect(str(self._directory / _CONTROL))
                control.sendall(json.dumps(request).encode() + b"\n")
                with control.makefile() as stream:
                    line = stream.readline()
            answer = json.loads(line) if line else None
        except (OSError, ValueError) as exc:
            raise MachineError(f"platform: {what}: {exc}", log=self._output) from exc
        if not isinstance(answer, dict):
            raise MachineError(f"platform: {what}: no answer", log=self._output)
        if not answer.get("ok"):
            raise MachineError(f"platform: {what}: {answer.get('error')}", log=self._output)
        return answer

    def close(self) -> None:
        """End it and remove its sockets. Idempotent, never raises."""
        if self._child is not None:
            with contextlib.suppress(Exception):
                self._child.end()
        shutil.rmtree(self._directory, ignore_errors=True)
