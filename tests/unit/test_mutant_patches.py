# SPDX-License-Identifier: GPL-2.0-only
"""The mutants of this repository: what they name exists, in a plan and in the kselftests."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.core.mutants import CaughtBy, Mutant, plan_for
from harness.core.plan import parse_plan
from harness.stages.mutants import load

_ROOT = Path(__file__).parents[2]
_PLANS = {
    "tests/mutants": "trust",
    "tests/mutants/freeze": "default",
    "tests/mutants/debug": "debug",
    "tests/mutants/host": "default",
}
_MUTANTS = [
    (plan, mutant) for directory, plan in _PLANS.items() for mutant in load(_ROOT / directory, "")
]
_TEST = re.compile(r"^TEST_F(?:_TIMEOUT)?\((\w+), (\w+)[,)]", re.MULTILINE)


def _cases(one: CaughtBy) -> list[tuple[str, str]]:
    """(fixture, case) of a program; variants come out of macros."""
    return _TEST.findall((_ROOT / f"kselftests/{one.collection}/{one.program}.c").read_text())


def test_enough_of_them() -> None:
    assert len(_MUTANTS) >= 20


@pytest.mark.parametrize(
    ("plan_name", "mutant"), _MUTANTS, ids=[mutant.name for _, mutant in _MUTANTS]
)
def test_names_what_exists(plan_name: str, mutant: Mutant) -> None:
    path = _ROOT / f"configs/plans/{plan_name}.toml"
    plan = parse_plan(path.read_text(), str(path), plan_name)
    assert plan_for(plan, mutant.caught_by, mutant.name).selections
    assert mutant.subject.startswith("mutant: ")
    for one in mutant.caught_by:
        if one.program.endswith(".sh"):
            script = _ROOT / f"kselftests/{one.collection}/{one.program}"
            assert one.case.split(".")[0] in re.findall(r"[\w-]+", script.read_text()), str(one)
            continue
        fixture, *_, case = one.case.split(".")
        assert any(
            fnmatchcase(known_fixture, fixture) and fnmatchcase(known_case, case)
            for known_fixture, known_case in _cases(one)
        ), str(one)
