# SPDX-License-Identifier: GPL-2.0-only
"""Speed of the emulated platform: `python -m tests.bench.bench_platform`.

Goals: >= 200 MB/s for 64 KiB copies (judged, logged to a file), <= 150 us per register access.
"""

from __future__ import annotations

import struct
import tempfile
import time
from pathlib import Path

from harness.emulator import tdi_function
from harness.emulator.dma_engine import Operation as Dma
from harness.emulator.eventlog import EventLog
from harness.emulator.judge import Knobs
from harness.emulator.platform import Platform
from harness.emulator.vfio_user import Operation
from harness.emulator.words import Command, Model
from tests.bench.rows import Row
from tests.integration.emulator_client import BAR0, PlatformProcess
from tests.unit.emulator_rig import Rig, Tables

COPY_BYTES = 64 << 10
SOURCE, TARGET = 0x400000, 0x600000


def copy_mb_per_s(model: Model = Model.B, copies: int = 400) -> float:
    """MB/s (10**6 bytes copied per second) of judged 64 KiB copies, in model B through 4 KiB PTEs.

    Every copy is a descriptor written to the registers, and logged to a real file.
    """
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Knobs(model), Path(directory) / "log.jsonl")
        try:
            if model is Model.B:
                tables = Tables(rig)
                for start in (SOURCE, TARGET):
                    for page in range(start, start + COPY_BYTES, 4096):
                        tables.map(page, page, private=True)
                rig.to_run(0, tables.root, tables.mode)
            else:
                rig.command(Command.PAGE_STATE, SOURCE, 1024, 1)
            trusted = model is Model.B
            begin = time.perf_counter()
            for _ in range(copies):
                status, _, done = rig.dma(
                    Dma.COPY,
                    SOURCE,
                    COPY_BYTES,
                    target=TARGET,
                    trusted=trusted,
                    target_trusted=trusted,
                )
                if (status, done) != (2, COPY_BYTES):
                    raise RuntimeError("the copy failed")
            return copies * COPY_BYTES / (time.perf_counter() - begin) / 1e6
        finally:
            rig.close()


def register_latency_us(accesses: int = 5000) -> float:
    """Microseconds per register read as a client sees it, over a socket, round trip included."""
    with tempfile.TemporaryDirectory() as directory:
        platform = PlatformProcess(Path(directory)).ready()
        try:
            client = platform.client()
            client.power()
            request = struct.pack("<QII", tdi_function.STATUS, BAR0, 4)
            begin = time.perf_counter()
            for _ in range(accesses):
                client.ok(Operation.REGION_READ, request)
            return (time.perf_counter() - begin) / accesses * 1e6
        finally:
            platform.close()


def server_time_us(accesses: int = 20000) -> float:
    """Microseconds that the server itself spends on a register read, without any socket."""
    log = EventLog(None, time.time)
    function = Platform(Knobs(), log, time.monotonic).tdi_functions[0]
    function.config.write(4, b"\x06\x00")
    begin = time.perf_counter()
    for _ in range(accesses):
        function.bar_read(tdi_function.STATUS, 4)
    return (time.perf_counter() - begin) / accesses * 1e6


def rows(runs: int) -> list[Row]:
    """Judged copies (goal 200 MB/s: 5 s a GB) and register reads (goal 150 us)."""
    copies = {
        model: [1e3 / copy_mb_per_s(model) for _ in range(runs)] for model in (Model.B, Model.A)
    }
    latency = [register_latency_us() for _ in range(runs)]
    return [
        *(
            Row(f"platform: 64 KiB copies, model {model.value}, per GB", taken, (), "none", 5.0)
            for model, taken in copies.items()
        ),
        Row("platform: register read, client's view", latency, (), "none", 150.0, "us"),
    ]


def main() -> None:
    for model in (Model.B, Model.A):
        print(f"64 KiB copies, model {model.value}: {copy_mb_per_s(model):7.0f} MB/s (goal 200)")
    print(f"register read, client's view:  {register_latency_us():7.1f} us (goal 150)")
    print(f"register read, without socket: {server_time_us():7.1f} us")


if __name__ == "__main__":
    main()
