# SPDX-License-Identifier: GPL-2.0-only
"""What the VM tests boot: the kernels, images and QEMU that `tdisp-harness run` itself uses.

They come from the cache, or are made first, which takes as long as a first run does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import cli, commands
from harness.adapters.ssh_keys import generate_key
from harness.core.splat_rules import load_rules
from harness.machines.qemu import QemuMachine
from harness.machines.vm import QemuSetup
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, QemuInstall, VmSpec
from harness.model.progress import SilentProgress
from harness.stages.provision import Provisions
from harness.stages.run import MainJob

RULES = Path(__file__).parents[2] / "configs" / "splat_rules.toml"


@dataclass(frozen=True)
class Assets:
    """What there is to boot."""

    install: QemuInstall
    image: Path
    build: KernelBuild
    own_kernel: Path
    own_initrd: Path
    builds: Mapping[Role, KernelBuild]
    provisions: Provisions


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(5000))


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Both kernels of the default plan, and what their machines are made of."""
    runs = tmp_path_factory.mktemp("assets")
    arguments = cli.parse(["run", "default", "--runs-dir", str(runs)])
    job = MainJob(commands.run_options(arguments, ["run"]), SilentProgress())
    made: list[tuple[Mapping[Role, KernelBuild], Provisions]] = []
    result = job.execute(lambda job: made.append(job.kernels_and_provisions()))
    assert not result.failures, result.failures
    builds, provisions = made[0]
    assert provisions.own_kernel is not None
    return Assets(
        provisions.qemu,
        # the larger image: as a host machine it needs kexec and QEMU
        provisions.host.path if provisions.host else provisions.guest.path,
        builds[Role.GUEST],
        provisions.own_kernel.image,
        provisions.own_kernel.initrd,
        builds,
        provisions,
    )


@pytest.fixture(scope="module")
def scenario_runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of scenarios (harness/pytest_plugin.py)."""
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture
def setup(assets: Assets, tmp_path: Path) -> QemuSetup:
    key = generate_key()
    return QemuSetup(
        install=assets.install,
        accel=Accel("tcg", "the tests use what works everywhere"),
        run_dir=tmp_path,
        user_key=key.save(tmp_path / "id"),
        authorized=key.public,
        rules=load_rules(RULES.read_text()),
    )


@pytest.fixture
def spec(assets: Assets) -> VmSpec:
    return VmSpec(
        name="guest",
        role=Role.GUEST,
        memory_mib=512,
        cpus=2,
        kernel=str(assets.build.image),
        initrd="",
        append="",
        root_image=str(assets.image),
    )


MakeVm = Callable[..., QemuMachine]


@pytest.fixture
def make_vm(setup: QemuSetup) -> Iterator[MakeVm]:
    """make_vm(spec, build=None): a machine that is closed after the test."""
    with ExitStack() as stack:

        def make(spec: VmSpec, build: KernelBuild | None = None) -> QemuMachine:
            machine = QemuMachine(spec, setup, build)
            stack.callback(machine.close)
            return machine

        yield make
