# SPDX-License-Identifier: GPL-2.0-only
"""`make bench`: our times beside their references, measured in one run.

It prints what it saw, also when a target is missed, and exits 0 either way.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness import cli, commands, layout
from harness.adapters.process import TABLE
from harness.errors import HarnessError
from harness.model.kernel import KernelBuild, Role
from harness.model.progress import SilentProgress
from harness.stages.provision import Provisions
from harness.stages.run import MainJob
from tests.bench import (
    bench_parsers,
    bench_platform,
    builds,
    dma_map,
    machines,
    matrix,
    rows,
    runs,
)

Group = tuple[str, Callable[[], list[rows.Row]]]


def _prepare(directory: Path) -> machines.Bench:
    """Kernels and images as the main job makes them; everything is cached afterwards."""
    arguments = cli.parse(["run", "default", "--runs-dir", str(directory / "prepare")])
    job = MainJob(commands.run_options(arguments, ["bench"]), SilentProgress())
    made: list[tuple[Mapping[Role, KernelBuild], Provisions]] = []
    result = job.execute(lambda job: made.append(job.kernels_and_provisions()))
    if result.failures:
        sys.exit(f"bench: {result.failures[0].message}")
    return machines.Bench(dict(made[0][0]), made[0][1], directory)


def _groups(
    options: argparse.Namespace, directory: Path, prepared: Callable[[], machines.Bench]
) -> Iterator[Group]:
    """Name and measurement of each group of rows; the quick ones first.

    prepared: both kernels and all images, made when a group first asks for them.
    """
    jobs = os.cpu_count() or 1
    yield "parsers", lambda: bench_parsers.rows(options.n)
    yield "platform", lambda: bench_platform.rows(options.n)
    yield "boot", lambda: [machines.boot_row(prepared(), options.n)]
    yield "solo", lambda: runs.solo_rows(prepared(), options.n)
    yield "pair", lambda: [machines.pair_row(prepared(), options.n)]
    if options.dma_map:
        yield "dma-map", lambda: dma_map.rows(directory, jobs)
    if options.matrix:
        yield "matrix", lambda: matrix.trust_rows(directory / "trust")
    if options.builds:
        yield "builds", lambda: builds.rows(builds.site(directory, jobs))
    if options.fresh:
        yield "fresh", lambda: [builds.fresh_row(directory, jobs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="runs of each measure (default 3)")
    parser.add_argument(
        "--dma-map",
        action="store_true",
        help="the kernel's own DMA benchmark, with and without our series: builds two kernels",
    )
    parser.add_argument("--builds", action="store_true", help="kernel builds too: half an hour")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="a run with empty caches too: over half an hour, with downloads",
    )
    parser.add_argument("--matrix", action="store_true", help="the plan trust, cell by cell")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="these groups of rows only")
    options = parser.parse_args()
    # next to the cache, so that hard links to the kernel source work
    base = layout.cache_directory()
    base.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    found: list[rows.Row] = []
    # what is measured starts groups of processes: they must not outlive this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    try:
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}", flush=True)
        prepared = functools.cache(lambda: _prepare(directory))
        for name, measure in _groups(options, directory, prepared):
            if options.only and name not in options.only:
                continue
            print(f"measuring: {name}", flush=True)
            try:
                found += measure()
            except (HarnessError, RuntimeError, OSError, subprocess.SubprocessError) as exc:
                print(f"{name} could not be measured: {exc}", flush=True)
    finally:
        TABLE.end_all()
        if found:
            print(f"\n{rows.render(found)}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
