# SPDX-License-Identifier: GPL-2.0-only
"""A real sshd on 127.0.0.1 for tests, as the user who runs them."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import time
from pathlib import Path

import psutil
import pytest

from harness.adapters.network import free_port
from harness.adapters.process import TABLE, Child
from harness.adapters.ssh import SshConnection, SshEndpoint
from harness.adapters.ssh_keys import SshKey, generate_key

SSHD = shutil.which("sshd", path=f"/usr/sbin:{os.environ.get('PATH', '')}")


class LoopbackSshd:
    """sshd with keys of its own; start() and stop() at will."""

    def __init__(self, directory: Path) -> None:
        if SSHD is None:
            pytest.skip("no sshd: apt install openssh-server")
        if os.geteuid() == 0:
            # sshd insists on its privilege separation directory
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.host_key = generate_key()
        self.user_key = generate_key()
        self.host_key.save(directory / "host_key")
        self.key = self.user_key.save(directory / "user_key")
        (directory / "authorized").write_text(self.user_key.public + "\n")
        self._child: Child | None = None

    def endpoint(self, host_key: SshKey | None = None, port: int = 0) -> SshEndpoint:
        public = (host_key or self.host_key).public
        return SshEndpoint("127.0.0.1", port or self.port, getpass.getuser(), self.key, public)

    def connection(self) -> SshConnection:
        return SshConnection("loopback", self.endpoint())

    def start(self) -> None:
        config = self.directory / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.directory}/host_key\n"
            f"AuthorizedKeysFile {self.directory}/authorized\nStrictModes no\nUsePAM no\n"
            "PidFile none\nPermitRootLogin prohibit-password\nAuthenticationMethods publickey\n"
            "MaxSessions 50\nLogLevel ERROR\n"
        )
        with (self.directory / "sshd.log").open("ab") as log:
            argv = [str(SSHD), "-D", "-e", "-f", str(config)]
            self._child = TABLE.start(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        pytest.fail(f"sshd does not listen: {(self.directory / 'sshd.log').read_text()}")

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        if self._child is None:
            return []
        return psutil.Process(self._child.pid).children(recursive=True)

    def cut(self) -> None:
        """End all connections, as when the machine vanishes; sshd itself goes on."""
        for process in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()

    def stop(self) -> None:
        """End sshd and all connections."""
        if self._child is not None:
            self.cut()
            self._child.end()
            self._child = None
