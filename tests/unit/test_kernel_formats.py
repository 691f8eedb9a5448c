# SPDX-License-Identifier: GPL-2.0-only
"""The splat rules against the format strings of the kernel's own source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.splat import find_splats, load_rules
from harness.layout import CONFIGS, cache_directory
from tests.unit.kernel_formats import Format, as_literal, formats, source_text

RULES = load_rules((CONFIGS / "splat_rules.toml").read_text(encoding="utf-8"))
FORMATS = formats()
PLACES = ["kernel", "lib", "mm", "arch/x86/kernel", "arch/x86/mm", "drivers/iommu"]
# Self-tests, debuggers, notes on the processor, and the unwinder, which speaks within reports.
ELSEWHERE = re.compile(
    r"test|kernel/debug/|trace_events_user|x86/kernel/cpu/|asn1_encoder|/unwind_|/dumpstack_"
)
HEADERS = re.compile(r'"((?:\[ )?(?:BUG|WARNING|PANIC|INFO): (?:[^"\\]|\\.)*)"')


@pytest.fixture(scope="module")
def tree() -> Path:
    """A pristine tree of Linux 7.3 in the cache."""
    for found in sorted((cache_directory() / "source").glob("*/linux/kernel/panic.c")):
        root = found.parents[1]
        if re.search(r"^VERSION = 7\nPATCHLEVEL = 3$", (root / "Makefile").read_text(), re.M):
            return root
    pytest.skip("no tree of Linux 7.3 in the cache (tdisp-harness build makes one)")


@pytest.mark.parametrize("row", FORMATS, ids=str)
def test_what_the_kernel_prints_is_told_for_what_it_is(row: Format) -> None:
    for stamp in ("", "[    1.000000] ", "[    1.000000][  T123] ", "<4>[    1.000000][    C1] "):
        splats = find_splats(f"{stamp}{row.line()}\n".encode(), RULES)
        assert [splat.kind for splat in splats] == ([row.kind] if row.kind else [])
        assert all(splat.title.strip(" :") == splat.title for splat in splats)


def test_every_kind_of_the_rules_is_in_the_table() -> None:
    own = {"oops", "iommu-fault", "divide-error"}  # also of other architectures and kernels
    assert {rule.kind for rule in RULES.rules} - {row.kind for row in FORMATS} <= own


def test_the_table_is_what_the_source_says(tree: Path) -> None:
    stale = [
        f"{row.file}: {row.text}"
        for row in FORMATS
        if not (tree / row.file).is_file()
        or as_literal(row.text) not in source_text(tree / row.file)
    ]
    assert stale == []


def test_no_report_of_the_source_is_unknown(tree: Path) -> None:
    """Every text that begins like a report is one for the rules, or named as none in the table."""
    known = [row.text for row in FORMATS]
    unknown = []
    for place in PLACES:
        for path in sorted((tree / place).rglob("*.[ch]")):
            name = str(path.relative_to(tree))
            if ELSEWHERE.search(name):
                continue
            for found in HEADERS.findall(source_text(path)):
                text = found.replace('\\"', '"').split("\\n")[0]
                if any(text.startswith(entry) or entry.startswith(text) for entry in known):
                    continue
                line = Format("", name, text, "", ()).line()
                if not find_splats(line.encode(), RULES):
                    unknown.append(f"{name}: {text}")
    assert unknown == []
