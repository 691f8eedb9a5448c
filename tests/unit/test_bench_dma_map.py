# SPDX-License-Identifier: GPL-2.0-only
"""What the DMA benchmark's guest says becomes rows of the table."""

from __future__ import annotations

from tests.bench.dma_map import CASES, Latency, parse, ratio_rows

# as tools/dma/dma_map_benchmark.c prints it, over a serial line
CONSOLE = """\
[    1.0] Run /init as init process\r
bench: clock tsc, domain none\r
bench: case 1 page\r
dma mapping benchmark(SINGLE_MODE): threads:1 seconds:1 node:-1 dir:FROM_DEVICE granule:1\r
average map latency(us):25.6 standard deviation:1.5\r
average unmap latency(us):12.8 standard deviation:0.9\r
bench: case 64 KiB\r
open: No such file or directory\r
bench: case sg of 16\r
dma mapping benchmark(SG_MODE): threads:1 seconds:1 node:-1 dir:FROM_DEVICE granule:16\r
average map latency(us):128.0 standard deviation:7.0\r
average unmap latency(us):64.0 standard deviation:3.0\r
bench: done\r
"""


def test_latencies_are_instructions() -> None:
    found = parse(CONSOLE, shift=7)  # an instruction takes 128 ns
    assert found["1 page"] == Latency(200.0, 100.0)
    assert found["sg of 16"] == Latency(1000.0, 500.0)


def test_a_case_that_failed_has_no_figures() -> None:
    assert "64 KiB" not in parse(CONSOLE)


def test_rows_compare_with_the_kernel_without_the_series() -> None:
    ours = dict.fromkeys(CASES, Latency(103.0, 110.0))
    stock = dict.fromkeys(CASES, Latency(100.0, 100.0))
    rows = ratio_rows("direct", {"ours": [ours], "stock": [stock]})
    assert len(rows) == 2 * len(CASES)
    assert [(row.value, row.met) for row in rows[:2]] == [(1.03, "met"), (1.1, "MISSED")]
