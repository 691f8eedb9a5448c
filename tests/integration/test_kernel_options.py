# SPDX-License-Identifier: GPL-2.0-only
"""Options that a plan asks for: proved like those of the fragments, and part of the address."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.kconfig import render_proof
from harness.errors import ConfigError
from harness.model.kernel import ConfigProof
from harness.stages import config
from tests.integration.test_build import Bench

pytestmark = pytest.mark.usefixtures("bench")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def configure(bench: Bench, options: dict[str, str]) -> tuple[ConfigProof, str]:
    return config.configure(
        bench.patched(), [bench.fragment], (), bench.store, bench.heard, options=options
    )


def test_an_option_of_the_plan_makes_another_kernel(bench: Bench) -> None:
    plain, digest = configure(bench, {})
    proof, other = configure(bench, {"BUS": "y", "EXTRA": "y"})
    assert digest != other, "the configuration is part of the build's address"
    assert "CONFIG_EXTRA=y" in proof.final
    assert "CONFIG_EXTRA=y" not in plain.final
    row = next(row for row in proof.rows if row.symbol == "EXTRA")
    assert row.ok
    assert row.fragment.startswith("the plan's kernel.options")
    assert "kernel.options" in render_proof(proof)
    again, same = configure(bench, {})
    assert (again.final, same) == (plain.final, digest), "and the first one comes back"


def test_an_option_of_the_plan_beats_a_fragment(bench: Bench) -> None:
    proof, _ = configure(bench, {"MODULES": "n"})
    assert "CONFIG_MODULES=y" not in proof.final
    assert any("overrides" in line for line in bench.heard.said)


def made(bench: Bench) -> bool:
    """Whether the configuration was made, and not taken from the store."""
    bench.heard.said.clear()
    configure(bench, {"BUS": "y"})
    return any("proved" in line for line in bench.heard.said)


def test_a_configuration_is_made_again_only_when_kconfig_changed(bench: Bench) -> None:
    assert made(bench)
    assert not made(bench), "the same series"
    bench.edit("lib/sort.c", "n + 1", "n + 2")
    assert not made(bench), "another series, and the same Kconfig files"
    assert not made(bench)
    bench.edit("lib/Kconfig", "config EXTRA", "config MORE\n\tbool\n\nconfig EXTRA")
    assert made(bench)
    bench.edit("scripts/conf.sh", "olddefconfig in small", "olddefconfig, small")
    assert made(bench), "what Kconfig calls counts too"


def test_an_option_that_does_not_exist_is_told(bench: Bench) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(bench, {"EXTRAS": "y"})
    assert "EXTRAS" in caught.value.message
    assert "kernel.options" in caught.value.message
