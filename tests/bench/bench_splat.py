# SPDX-License-Identifier: GPL-2.0-only
"""Throughput of the splat finder in MB/s: `python tests/bench/bench_splat.py`."""

from __future__ import annotations

import time
from pathlib import Path

from harness.core.splat import find_splats, load_rules

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "unit" / "data" / "splat"


def bench_splat(size_mb: int = 32) -> dict[str, float]:
    """MB/s per log: only innocent, mostly innocent (one report per MB), and only reports."""
    rules = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))
    boot = (DATA / "innocent-boot.log").read_bytes()
    oops = (DATA / "null-write.log").read_bytes()
    megabyte = boot * (1_000_000 // len(boot))
    logs = {
        "innocent": megabyte * size_mb,
        "mostly innocent": (megabyte + oops) * size_mb,
        "reports only": oops * (2_000_000 // len(oops)),
    }
    speeds: dict[str, float] = {}
    for name, data in logs.items():
        start = time.perf_counter()
        find_splats(data, rules)
        speeds[name] = len(data) / 1e6 / (time.perf_counter() - start)
    return speeds


if __name__ == "__main__":
    for log_name, speed in bench_splat().items():
        print(f"splat finder, {log_name}: {speed:.1f} MB/s")
