# SPDX-License-Identifier: GPL-2.0-only
"""The platform as a program: options, `serve`, and the command line of `tdisp-harness platform`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from harness.emulator import live_table
from harness.emulator.arguments import LOG_NAME
from harness.emulator.control import Control, ControlSocket
from harness.emulator.eventlog import EventLog
from harness.emulator.judge import Knobs
from harness.emulator.platform import Platform
from harness.emulator.server import Server, Stop
from harness.emulator.words import ALL_ONES, PAGE_BYTES, Model
from harness.errors import InfraError, UserError

CONTROL_NAME = "control.sock"
ROOT_NAME = "device-root.der"
_MAX_SOCKET_PATH = 107  # sun_path of unix(7), without its NUL
_BDF = re.compile(r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """What to serve. log: "" stands for LOG_NAME in the socket directory.

    bdfs: how the log calls the TDIs until a LOCK or BIND says better; one TDI for each.
    stay: go on when the last client is gone.
    """

    socket_dir: Path
    knobs: Knobs = field(default_factory=Knobs)
    log: Path | None = None
    bdfs: tuple[str, ...] = ("01:00.0", "02:00.0")
    autobind: bool = True
    stay: bool = False


def qemu_options(socket: Path, number: int) -> list[str]:
    """The QEMU arguments of one function. The machine needs shared memory besides."""
    device = {
        "driver": "vfio-user-pci",
        "bus": f"tsm-rp{number}",
        "rombar": 0,
        "socket": {"path": str(socket), "type": "unix"},
    }
    port = f"pcie-root-port,id=tsm-rp{number},chassis={200 + number}"
    return ["-device", port, "-device", json.dumps(device, separators=(",", ":"))]


def serve(options: PlatformOptions, stop: Stop, out: TextIO | None = None) -> None:
    """Serve until `stop` is set or the last client is gone. Sockets are removed, the log flushed.

    out: where a person looks, if anybody does.
    Raises UserError (bad options, socket in use) and InfraError.
    """
    directory = options.socket_dir
    longest = max(len(os.fsencode(directory / name)) for name in ("tsm-guest.sock", CONTROL_NAME))
    if longest > _MAX_SOCKET_PATH:
        raise UserError(f"{directory}: too long for a socket path ({_MAX_SOCKET_PATH} bytes)")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = EventLog(options.log or directory / LOG_NAME, time.time)
    except OSError as exc:
        raise InfraError(f"{directory}: {exc}") from exc
    platform = Platform(options.knobs, log, time.monotonic, options.bdfs, autobind=options.autobind)
    root = directory / ROOT_NAME
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        server = Server(platform, directory, log, stay=options.stay)
        stack.callback(server.close)
        # only now: a second platform that failed to take the sockets must not touch the file
        root.write_bytes(platform.device.root_der())
        stack.callback(root.unlink, missing_ok=True)
        control = ControlSocket(directory / CONTROL_NAME, Control(platform), server)
        stack.callback(control.close)
        _serve(platform, server, stop, out)


def _serve(platform: Platform, server: Server, stop: Stop, out: TextIO | None) -> None:
    knobs = platform.knobs
    platform.log.write(
        "start",
        model=knobs.model.value,
        vtom=hex(knobs.vtom),
        locked_t0=knobs.locked_t0,
        bme_clear=knobs.bme_clear,
        c_bit=knobs.c_bit,
        tdis=[tdi.bdf for tdi in platform.tdis],
        pid=os.getpid(),
    )
    view = live_table.choose(platform, out)
    try:
        server.run(stop, view.refresh)
    finally:
        view.close()
        server.end_clients()
        platform.announcements.check("end")
        platform.log.write("stop")


def options_from(arguments: argparse.Namespace) -> PlatformOptions:
    """Checked options. Raises UserError."""
    vtom = ALL_ONES
    if arguments.vtom != "all-ones":
        try:
            vtom = int(arguments.vtom, 0)
        except ValueError as exc:
            raise UserError(f"--vtom {arguments.vtom}: not a number") from exc
        if vtom % PAGE_BYTES or not 0 < vtom < 1 << 64:
            raise UserError(f"--vtom {arguments.vtom}: not a page-aligned address")
    if not 32 <= arguments.c_bit <= 51:
        raise UserError(f"--c-bit {arguments.c_bit}: from 32 to 51")
    bdfs = tuple(arguments.tdi) if arguments.tdi else ("01:00.0", "02:00.0")
    for bdf in bdfs:
        if not _BDF.fullmatch(bdf):
            raise UserError(f"--tdi {bdf}: not a BDF such as 01:00.0")
    if len(bdfs) > 16 or len(set(bdfs)) != len(bdfs):
        raise UserError("--tdi: at most 16, each once")
    knobs = Knobs(
        Model(arguments.model), vtom, arguments.locked_t0, arguments.bme_clear, arguments.c_bit
    )
    return PlatformOptions(
        arguments.socket_dir,
        knobs,
        arguments.log,
        bdfs,
        not arguments.no_autobind,
        arguments.stay,
    )


def print_qemu(options: PlatformOptions) -> None:
    """The QEMU options that attach every TDI and the guest's port of the security processor."""
    names = [f"tdi{number}" for number in range(len(options.bdfs))]
    print("-object memory-backend-memfd,id=m0,size=2G,share=on")
    print("-machine q35,memory-backend=m0")
    for number, name in enumerate([*names, "tsm-guest"]):
        arguments = qemu_options(options.socket_dir.absolute() / f"{name}.sock", number)
        print(" ".join(f"'{a}'" if "{" in a else a for a in arguments))
    sys.stdout.flush()


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`."""

    def on_signal(signum: int, frame: object) -> None:
        del signum, frame
        stop.set()

    before = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(arguments: argparse.Namespace) -> int:
    """`tdisp-harness platform`: serve until a signal or the last client's end; the exit code."""
    options = options_from(arguments)
    if arguments.print_qemu:
        print_qemu(options)
    stop = threading.Event()
    with _signals(stop):
        serve(options, stop, sys.stdout)
    return 0
