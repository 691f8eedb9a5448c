# SPDX-License-Identifier: GPL-2.0-only
"""Our series and fragments against the real kernel: style, and what the roles' builds share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import cli, commands
from harness.core.kconfig import parse_config
from harness.model.kernel import Role
from harness.model.options import RunOptions
from harness.model.progress import SilentProgress
from harness.stages import source
from harness.stages.kernels import load_series
from harness.stages.patchcheck import PatchCheck
from tests.vm.conftest import Assets

# Nearly every file of the kernel includes some of these
_CORE = (
    *("linux/device.h", "linux/fs.h", "linux/mm.h", "linux/module.h"),
    *("linux/pci.h", "linux/sched.h", "linux/skbuff.h"),
)
_PLACES = ("include", "include/uapi", "arch/x86/include", "arch/x86/include/uapi")
_INCLUDE = re.compile(r"^\s*#\s*include\s+[<\"]([^>\"]+)[>\"]", re.MULTILINE)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    argv = ["patchcheck", "--runs-dir", str(tmp_path_factory.mktemp("runs"))]
    return commands.run_options(cli.parse(argv), argv)


@pytest.fixture(scope="module")
def core_headers(options: RunOptions) -> dict[str, str]:
    """Path -> text of all headers that the core headers include, under whatever condition."""
    tree = source.fetch(options.source, options.cache, SilentProgress()).path
    found: dict[str, str] = {}
    seen = set[str]()
    pending = list(_CORE)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        path = next((p for place in _PLACES if (tree / (p := f"{place}/{name}")).is_file()), "")
        if path:
            found[path] = (tree / path).read_text(errors="replace")
            pending += _INCLUDE.findall(found[path])
        elif name.startswith("asm/"):
            pending.append(f"asm-generic/{name[4:]}")
    assert len(found) > 400, "these are not the core headers of a kernel"
    return found


def test_every_patch_is_fit_to_be_sent(options: RunOptions) -> None:
    job = PatchCheck(options, options.roles, SilentProgress())
    assert job.execute() == 0, job.render()


@pytest.mark.parametrize("role", Role)
def test_no_series_touches_a_core_header(
    role: Role, options: RunOptions, core_headers: dict[str, str]
) -> None:
    """A line more in one, and nearly every object of the other role is compiled again."""
    touched = {
        path: patch.name
        for series in load_series(role, options)
        for patch in series.patches
        for path in patch.files
    }
    assert not {path: touched[path] for path in touched.keys() & core_headers.keys()}


def test_no_option_of_one_role_is_seen_by_a_core_header(
    assets: Assets, core_headers: dict[str, str]
) -> None:
    """Such an option belongs in base.config."""
    host, guest = (
        parse_config(Path(assets.builds[role].config).read_text())
        for role in (Role.HOST, Role.GUEST)
    )
    differ = {
        symbol
        for symbol in host.keys() | guest.keys()
        if host.get(symbol, "n") != guest.get(symbol, "n")
    }
    assert "LOCALVERSION" in differ
    everything = "\n".join(core_headers.values())
    seen = differ & set(re.findall(r"\bCONFIG_(\w+)", everything))
    named = {s: [p for p, text in core_headers.items() if f"CONFIG_{s}" in text] for s in seen}
    assert not named
