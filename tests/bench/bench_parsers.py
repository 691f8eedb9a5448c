# SPDX-License-Identifier: GPL-2.0-only
"""Speed of the two parsers: `python -m tests.bench.bench_parsers`.

Goal for console logs: 10 MB/s on one CPU, so at most 1 s of CPU time for 10 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.core.ktap import parse
from harness.core.splat import find_splats, load_rules
from harness.core.splat_rules import RuleSet
from tests.bench.rows import Row, render

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "unit" / "data"
_MB = 10
_STORMS = {
    "KASAN reports": "kasan",
    "lockdep reports": "lockdep-circular",
    "warnings": "warn-on",
    "hung tasks": "hung-task",
    "RCU stalls": "rcu-stall",
}


def rows(runs: int = 3) -> list[Row]:
    """CPU seconds per 10 MB: logs without, with few and with nothing but splats; and KTAP."""
    rules = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))
    boot = (DATA / "splat" / "innocent-boot.log").read_bytes()
    oops = (DATA / "splat" / "null-write.log").read_bytes()
    ktap = (DATA / "ktap" / "runner_harness.ktap").read_bytes()
    megabyte = boot * (1_000_000 // len(boot))

    def splats(data: bytes) -> None:
        find_splats(data, rules)

    return [
        _row("splat search, no splat", megabyte * _MB, splats, 1.0, runs),
        _row("splat search, one per MB", (megabyte + oops) * _MB, splats, 1.0, runs),
        _row("splat search, splats only", oops * (_MB * 10**6 // len(oops)), splats, 1.0, runs),
        *(
            _row(f"splat search, {what} only", _storm(stem, rules), splats, 1.0, runs)
            for what, stem in _STORMS.items()
        ),
        _row("KTAP of kselftests", ktap * (_MB * 10**6 // len(ktap)), parse, None, runs),
    ]


def _row(
    name: str, data: bytes, work: Callable[[bytes], object], reach: float | None, runs: int
) -> Row:
    taken = []
    for _ in range(runs):
        start = time.process_time()
        work(data)
        taken.append((time.process_time() - start) * _MB * 1e6 / len(data))
    return Row(f"{name}: CPU time per {_MB} MB", taken, (), "none", reach)


def _storm(stem: str, rules: RuleSet) -> bytes:
    """The reports of a golden log, again and again, with nothing between them."""
    data = (DATA / "splat" / f"{stem}.log").read_bytes()
    lines = data.splitlines(keepends=True)
    spans = [lines[one.start_line - 1 : one.end_line] for one in find_splats(data, rules)]
    reports = b"".join(line for span in spans for line in span)
    return reports * (_MB * 10**6 // len(reports))


if __name__ == "__main__":
    _found = rows()
    print(render(_found))
    for _one in _found:
        print(f"{_MB / _one.value:5.1f} MB/s  {_one.measure.partition(':')[0]}")
