# SPDX-License-Identifier: GPL-2.0-only
"""Where things lie: the repository's data, the user's cache, the runs."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "configs"
KERNEL_CONFIGS = CONFIGS / "kernel"
PLANS = CONFIGS / "plans"
SERIES = REPOSITORY / "kernel_patches"
KSELFTESTS = REPOSITORY / "kselftests"
MUTANTS = REPOSITORY / "tests" / "mutants"

CACHE_VARIABLE = "TDISP_HARNESS_CACHE"


def cache_directory() -> Path:
    """$TDISP_HARNESS_CACHE, else tdisp-harness in the user's cache directory."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "tdisp-harness"


def plan_file(name: str) -> Path:
    """A plan by name (configs/plans/NAME.toml) or by path."""
    if "/" in name or name.endswith(".toml"):
        return Path(name)
    return PLANS / f"{name}.toml"
