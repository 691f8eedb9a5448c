# SPDX-License-Identifier: GPL-2.0-only
"""`make bench`: our times beside their references, measured in one run.

It prints what it saw, also when a target is missed, and exits 0 either way.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness import cli, commands, layout
from harness.model.kernel import KernelBuild, Role
from harness.model.progress import SilentProgress
from harness.stages.provision import Provisions
from harness.stages.run import MainJob
from tests.bench import bench_parsers, builds, machines, matrix, rows, runs


def _prepare(directory: Path) -> machines.Bench:
    """Kernels and images as the main job makes them; everything is cached afterwards."""
    arguments = cli.parse(["run", "default", "--runs-dir", str(directory / "prepare")])
    job = MainJob(commands.run_options(arguments, ["bench"]), SilentProgress())
    made: list[tuple[Mapping[Role, KernelBuild], Provisions]] = []
    result = job.execute(lambda job: made.append(job.kernels_and_provisions()))
    if result.failures:
        sys.exit(f"bench: {result.failures[0].message}")
    return machines.Bench(dict(made[0][0]), made[0][1], directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="runs of each measure (default 3)")
    parser.add_argument("--builds", action="store_true", help="kernel builds too: half an hour")
    parser.add_argument("--matrix", action="store_true", help="the plan trust, cell by cell")
    options = parser.parse_args()
    # next to the cache, so that hard links to the kernel source work
    base = layout.cache_directory()
    base.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; preparing", flush=True)
        bench = _prepare(directory)
        found = [machines.boot_row(bench, options.n), *runs.solo_rows(bench, options.n)]
        print(rows.render(found), flush=True)
        found.append(machines.pair_row(bench))
        found += bench_parsers.rows(options.n)
        if options.matrix:
            found += matrix.trust_rows(directory / "trust")
        if options.builds:
            found += builds.rows(builds.site(directory, os.cpu_count() or 1))
        print(f"\n{rows.render(found)}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
