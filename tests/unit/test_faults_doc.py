# SPDX-License-Identifier: GPL-2.0-only
"""docs/faults.md: each fault has tests, and they exist."""

from __future__ import annotations

import re

import pytest

from harness.layout import REPOSITORY

TEXT = (REPOSITORY / "docs/faults.md").read_text()


def rows() -> list[tuple[str, list[str]]]:
    """(fault, the tests named for it)."""
    found = re.findall(r"^\| ([^|]+) \|[^|]+\| (`[^|]+`) \|$", TEXT, re.MULTILINE)
    return [(fault, re.findall(r"`([^`]+)`", tests)) for fault, tests in found]


@pytest.mark.parametrize(("fault", "tests"), rows(), ids=lambda value: str(value)[:40])
def test_each_fault_names_tests_that_exist(fault: str, tests: list[str]) -> None:
    for name in tests:
        file, _, function = name.partition("::")
        source = (REPOSITORY / "tests" / file).read_text()
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), f"{fault}: {name}"


def test_no_row_is_without_a_test() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line.startswith("| fault |")]
    assert heads
    assert len(rows()) == len(lines) - len(heads) >= 20
