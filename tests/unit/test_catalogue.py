# SPDX-License-Identifier: GPL-2.0-only
"""docs/catalogue.md: all numbers, and each named test exists and runs in the plan `trust`, or, of
the host's side, in the plan `default`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from harness.core.plan import parse_plan
from harness.model.kernel import Role
from harness.model.plan import Plan

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/catalogue.md").read_text()
_ROW = re.compile(r"^\| (\d+) \| .+ \| (.+) \|$", re.MULTILINE)
_NAME = re.compile(r"`([a-z_]+:[\w.*]+)`")
_TEST = re.compile(r"^TEST_F(?:_TIMEOUT)?\((\w+), (\w+)[,)]", re.MULTILINE)
_COMMENT = re.compile(r"^(?:/\*| \*) (\d+)(?:,[^:]*)?: |^/\* (\d+) \*/$", re.MULTILINE)
_NAMES = sorted(set(_NAME.findall(_PAGE)))


def _source(program: str) -> str:
    return (_ROOT / f"kselftests/tsm/{program}.c").read_text()


def test_every_number_once() -> None:
    assert [int(number) for number, _ in _ROW.findall(_PAGE)] == list(range(1, 47))
    assert all(_NAME.search(shown) for _, shown in _ROW.findall(_PAGE))


def test_races_are_listed() -> None:
    assert len(_NAME.findall(_PAGE.split("## Races")[1])) >= 12


@pytest.mark.parametrize("name", _NAMES)
def test_exists(name: str) -> None:
    program, _, case = name.partition(":")
    known = [".".join(found) for found in _TEST.findall(_source(program))]
    assert any(fnmatchcase(one, case) for one in known), known


def test_what_it_says_of_the_configuration() -> None:
    sets = re.findall(r"`(CONFIG_\w+)`, which (all plans set|no plan sets)", _PAGE)
    assert sets
    base = (_ROOT / "configs/kernel/base.config").read_text().splitlines()
    for option, says in sets:
        assert (f"{option}=y" in base) == (says == "all plans set"), option


def test_git_ignores_what_make_builds() -> None:
    directory = _ROOT / "kselftests/tsm"
    built = re.findall(
        r"^(?:TEST_GEN_\w+|TDI_PROGS) \+?:?= (\w+)$",
        (directory / "Makefile").read_text(),
        re.MULTILINE,
    )
    assert (directory / ".gitignore").read_text().splitlines()[1:] == sorted(
        f"/{one}" for one in built
    )


def test_runs_in_the_plan() -> None:
    run = {test for one in _plan("trust").selections for test in one.tests}
    hosts = [one for one in _plan("default").selections if one.role is Role.HOST]
    run |= {test for one in hosts for test in one.tests if one.on_platform}
    assert {name.split(":")[0] for name in _NAMES} <= run


def _plan(name: str) -> Plan:
    path = _ROOT / f"configs/plans/{name}.toml"
    return parse_plan(path.read_text(), str(path), name)


def test_the_hosts_side_has_all_cases_of_its_program() -> None:
    cases = {f"tsm_link:{fixture}.{case}" for fixture, case in _TEST.findall(_source("tsm_link"))}
    assert cases == {name for name in _NAMES if name.startswith("tsm_link:")}


@pytest.mark.parametrize(
    "path", sorted((_ROOT / "kselftests/tsm").glob("*.c")), ids=lambda p: p.stem
)
def test_numbers_in_comments(path: Path) -> None:
    """A program that says it shows a number is named for that number."""
    rows = {int(number): shown for number, shown in _ROW.findall(_PAGE)}
    for first, second in _COMMENT.findall(path.read_text()):
        assert f"`{path.stem}:" in rows[int(first or second)], first or second
