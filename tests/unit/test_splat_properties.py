# SPDX-License-Identifier: GPL-2.0-only
"""Splats from any bytes: no exception, lines inside the input, time linear in its size."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.attribution import attribute
from harness.core.machine_end import classify_end
from harness.core.splat import excerpts, find_splats, load_rules, to_json

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data" / "splat"
LOGS = sorted(DATA.glob("*.log"))
RULES = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))

_LINES = sorted({line for log in LOGS for line in log.read_bytes().split(b"\n") if len(line) < 400})


def _check(data: bytes) -> None:
    splats = find_splats(data, RULES)
    lines = data.count(b"\n") + 1
    for splat in splats:
        assert 1 <= splat.start_line <= splat.end_line <= lines
        assert splat.title
        assert splat.kind
    assert all(len(text) > 0 for text in excerpts(data, splats))
    to_json(splats)
    assert len(attribute(data, splats, "token")) == len(splats)
    report = classify_end(
        data,
        qemu_alive=False,
        ssh_alive=False,
        qmp_events=(),
        expected_banners=1,
        rules=RULES,
    )
    assert report.what


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    _check(data)


@given(st.lists(st.one_of(st.sampled_from(_LINES), st.binary(max_size=60)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_mix_of_real_lines(lines: list[bytes]) -> None:
    _check(b"\n".join(lines))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_damaged_logs(log: Path) -> None:
    """Bytes changed, removed, doubled, and the log cut anywhere."""
    chance = random.Random(log.stem)
    original = log.read_bytes()[-12_000:]
    for _ in range(6):
        data = bytearray(original)
        for _ in range(chance.randrange(1, 60)):
            at = chance.randrange(max(len(data), 1))
            match chance.randrange(3):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + chance.randrange(1, 80)]
                case _:
                    data[at:at] = data[at : at + chance.randrange(1, 80)]
        _check(bytes(data[: chance.randrange(len(data) + 1)]))


def _seconds(data: bytes) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        list(excerpts(data, find_splats(data, RULES)))
        best = min(best, time.process_time() - start)
    return best


BOOT = (DATA / "innocent-boot.log").read_bytes()
OOPS = (DATA / "null-write.log").read_bytes()
KASAN = (DATA / "kasan.log").read_bytes()


@pytest.mark.parametrize(
    "unit",
    [
        BOOT * 10,
        BOOT * 2 + OOPS,
        KASAN * 40,
        b"BUG: KASAN: use-after-free in foo+0x1/0x2\n" * 250,
        b"------------[ cut here ]------------\n" * 400,
        b"WARNING: BUG: DMA-API: " * 6000,  # one endless line
        b"".join(b"[    1.000000][ T%d] BUG: KASAN: x in f+0x1/0x2\n" % n for n in range(300)),
        b"[" * 60_000,
        b"\x1b[" * 30_000,
        b"\r" * 60_000 + b"WARNING: ",
        (b"[    1.000000]" * 20 + b"WARNING: \n") * 100,
        b"BUG " + b"a" * 60_000,
        b"BUG: KASAN: " + b"a" * 4000 + b"\n",
        (b"a" * 5000 + b"\nBUG: KASAN: x in f\n\n" + b"quiet\n" * 80) * 8,
        (b"------------[ cut here ]------------\n" + b"a" * 4000 + b"\n") * 3,
    ],
    ids=[
        "boot", "mixed", "kasan", "headers", "cut-here", "one-line", "callers", "brackets",
        "escapes", "returns", "stamps", "word", "long-title", "long-lines", "long-messages",
    ],
)  # fmt: skip
def test_time_is_linear(unit: bytes) -> None:
    """16 times the input takes about 16 times as long; a square law would take 256 times."""
    small = max(_seconds(unit), 0.002)
    assert _seconds(unit * 16) < small * 64
