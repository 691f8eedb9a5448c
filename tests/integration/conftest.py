# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.adapters.ssh import SshConnection
from tests.integration.loopback_sshd import LoopbackSshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[LoopbackSshd]:
    server = LoopbackSshd(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def ssh(sshd: LoopbackSshd) -> Iterator[SshConnection]:
    connection = sshd.connection()
    connection.connect()
    yield connection
    connection.close()
