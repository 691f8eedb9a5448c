# SPDX-License-Identifier: GPL-2.0-only
"""Source lines for trace entries: what nm and addr2line say, put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.symbols import (
    Entry,
    Place,
    Symbol,
    locate,
    parse_entry,
    read_addr2line,
    read_nm,
    with_source,
)

NM = """

Symbols from vmlinux:

Name                  Value           Class        Type         Size             Line  Section

tsm_lock            |ffffffff81000100|   T  |              FUNC|0000000000000031|     |.text
twice               |ffffffff81000200|   t  |              FUNC|0000000000000010|     |.text
twice               |ffffffff81000300|   t  |              FUNC|0000000000000080|     |.text
init_one            |ffffffff82000000|   t  |              FUNC|0000000000000020|     |.init.text
jiffies             |ffffffff83000000|   B  |            OBJECT|0000000000000008|     |.data
broken              |zz|   T  |              FUNC|0000000000000031|     |.text
"""
SYMBOLS = read_nm(NM)


def test_nm_gives_functions_only() -> None:
    assert set(SYMBOLS) == {"tsm_lock", "twice", "init_one"}
    assert SYMBOLS["tsm_lock"] == [Symbol(0xFFFFFFFF81000100, 0x31, ".text")]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("tsm_lock+0x12/0x40", Entry("tsm_lock", 0x12, 0x40, "")),
        ("a.constprop.0+0x1/0x2 [tdi]", Entry("a.constprop.0", 1, 2, "tdi")),
        ("a+0x1/0x2 [tdi 5f2b8c0e]", Entry("a", 1, 2, "tdi")),
        ("ffffffff81000110", None),
        ("tsm_lock+0x12", None),
        ("", None),
    ],
)
def test_entries(text: str, entry: Entry | None) -> None:
    assert parse_entry(text) == entry


@pytest.mark.parametrize(
    ("text", "place"),
    [
        # 0x40 for 0x31: the next function is aligned; the byte before the return address
        ("tsm_lock+0x12/0x40", Place(".text", 0xFFFFFFFF81000111)),
        ("tsm_lock+0x0/0x40", Place(".text", 0xFFFFFFFF81000100)),
        ("init_one+0x1/0x20", Place(".init.text", 0xFFFFFFFF82000000)),
        ("twice+0x5/0x80", Place(".text", 0xFFFFFFFF81000304)),
        ("twice+0x5/0x10", Place(".text", 0xFFFFFFFF81000204)),
        ("tsm_lock+0x12/0x90", None),  # another build's function
        ("tsm_lock+0x12/0x30", None),
        ("tsm_lock+0x41/0x40", None),
        ("unknown+0x1/0x2", None),
    ],
)
def test_only_a_function_of_that_size_is_meant(text: str, place: Place | None) -> None:
    entry = parse_entry(text)
    assert entry is not None
    assert locate(entry, SYMBOLS) == place


def test_two_functions_of_one_name_and_size_are_nobody() -> None:
    both = {"f": [Symbol(0, 16, ".text"), Symbol(64, 16, ".text")]}
    assert locate(Entry("f", 1, 16, ""), both) is None


ANSWER = """\
0xffffffff81000111
lock_helper
/x/linux/build/../include/linux/tsm.h:9
tsm_lock
/x/linux/build/../drivers/pci/tsm.c:214 (discriminator 2)
0xffffffff82000000
init_one
??:?
"""


def test_addr2line_with_inlined_functions() -> None:
    found = read_addr2line(ANSWER)
    assert (
        with_source("tsm_lock+0x12/0x40", found[0xFFFFFFFF81000111])
        == "tsm_lock+0x12/0x40 (lock_helper include/linux/tsm.h:9, drivers/pci/tsm.c:214)"
    )
    assert with_source("init_one+0x1/0x20", found[0xFFFFFFFF82000000]) == "init_one+0x1/0x20"


def test_many_inlined_functions_are_cut() -> None:
    frames = [(f"f{n}", f"a.c:{n}") for n in range(9)]
    assert with_source("x", frames) == "x (f0 a.c:0, f1 a.c:1, f2 a.c:2, f3 a.c:3, ..., a.c:8)"


@given(st.text(max_size=400))
def test_any_text_is_survived(text: str) -> None:
    read_nm(text)
    with_source(text, [(text, text)])
    parse_entry(text)
    for frames in read_addr2line(text).values():
        with_source("x", frames)
