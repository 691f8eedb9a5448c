# SPDX-License-Identifier: GPL-2.0-only
"""A kselftest collection that drives the emulated platform from user space, for any kernel.

It takes the place of the kselftests that came with a built kernel, so that a whole run (machines,
markers, oracle, verdict) can be tested without building another kernel.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, commands
from harness.adapters import process
from harness.adapters.pack import pack
from harness.model.kernel import KernelBuild, Role
from harness.model.progress import Progress
from harness.model.results import RunResult
from harness.stages.provision import Provisions
from harness.stages.run import MainJob

SOURCES = Path(__file__).with_name("data") / "poke"
PROGRAMS = ("judged", "unannounced", "missing", "wait", "stream")


def with_poke(build: KernelBuild, into: Path) -> KernelBuild:
    """`build` in a directory of its own, with the collection `poke` as its only kselftests."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the programs")
    directory = into / "build"
    shutil.copytree(build.directory, directory)
    staging = into / "kselftests"
    with tarfile.open(build.kselftests) as archive:
        archive.extractall(staging, filter="data")
    programs = staging / "poke"
    programs.mkdir()
    for name in PROGRAMS:
        source = str(SOURCES / f"{name}.c")
        process.run([compiler, "-static", "-O1", "-Wall", "-o", str(programs / name), source])
    listed = "".join(f"poke:{name}\n" for name in PROGRAMS)
    for place in (staging, directory):
        (place / "kselftest-list.txt").write_text(listed)
    pack(staging, directory / "kselftests.tar.gz")
    return replace(build, directory=directory)


class PokeJob:
    """One run of a plan on a given kernel. during: called with the job before its tests begin."""

    def __init__(self, plan: Path, runs: Path, progress: Progress) -> None:
        arguments = cli.parse(["run", str(plan), "--runs-dir", str(runs)])
        self.job = MainJob(commands.run_options(arguments, ["run", str(plan)]), progress)

    @property
    def run_dir(self) -> Path:
        return self.job.recorder.run_dir

    def execute(
        self,
        build: KernelBuild,
        provisions: Provisions,
        during: Callable[[], None] = lambda: None,
        host: KernelBuild | None = None,
    ) -> RunResult:
        """host: the kernel of the host machine, for a plan in a pair."""
        builds = {Role.HOST: host} if host is not None else {}

        def work(job: MainJob) -> None:
            during()
            job.test({**builds, Role.GUEST: build}, provisions)

        return self.job.execute(work)
