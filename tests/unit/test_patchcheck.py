# SPDX-License-Identifier: GPL-2.0-only
"""The rules of patchcheck, over text."""

from __future__ import annotations

import pytest

from harness.core.patchcheck import (
    Checked,
    Kind,
    Remark,
    defined_later,
    directories,
    exit_code,
    kernel_doc_warning,
    objects_of,
    parse_checkpatch,
    render,
    starts_at,
    touches_kconfig,
    undefined,
)
from harness.errors import UserError
from harness.model.kernel import Patch, Role

TERSE = """\
/tmp/x/0001.patch:7: WARNING:COMMIT_LOG_LONG_LINE: Prefer a maximum 75 chars per line (possible?)
/tmp/x/0001.patch:1208: CHECK:BIT_MACRO: Prefer using the BIT macro
/tmp/x/0001.patch:17: ERROR:GIT_COMMIT_ID: Please use git commit description style 'commit <12+>'
"""


def patch(series: str, name: str, *files: str) -> Patch:
    return Patch(f"guest/{series}", name, "subject", "text", files)


def test_what_checkpatch_says_becomes_remarks() -> None:
    found = parse_checkpatch(TERSE, 1, "0001.patch")
    assert [(one.line, one.text.split(":")[1]) for one in found] == [
        (7, "COMMIT_LOG_LONG_LINE"),
        (1208, "BIT_MACRO"),
        (17, "GIT_COMMIT_ID"),
    ]
    assert {one.kind for one in found} == {Kind.STYLE}
    assert parse_checkpatch("", 0, "0001.patch") == ()


def test_a_checkpatch_that_fails_without_a_finding_is_no_pass() -> None:
    (found,) = parse_checkpatch("Can't locate warnings.pm in @INC\n", 2, "0001.patch")
    assert "warnings.pm" in found.text
    (silent,) = parse_checkpatch("", 255, "0001.patch")
    assert "255" in silent.text


def test_kernel_doc_warnings() -> None:
    line = "Warning: ../kernel/dma/private.c:12 function parameter 'vtom' not described in 'f'"
    found = kernel_doc_warning(line)
    assert found is not None
    assert found[:2] == ("../kernel/dma/private.c", 12)
    assert "'vtom' not described" in found[2]
    assert kernel_doc_warning("../kernel/dma/private.c:12:3: warning: unused") is None


def test_only_what_kbuild_compiles_counts_as_a_source() -> None:
    one = patch(
        "s",
        "0001",
        "kernel/dma/freeze.c",
        "arch/x86/kernel/head.S",
        "include/linux/dma-freeze.h",
        "tools/testing/selftests/tsm/races.c",
        "Documentation/x.c",
        "kernel/dma/Kconfig",
    )
    assert objects_of(one) == ("kernel/dma/freeze.c", "arch/x86/kernel/head.S")
    assert touches_kconfig(one)
    assert not touches_kconfig(patch("s", "0002", "kernel/dma/freeze.c"))


def test_directories_are_those_of_sources_and_the_upper_one_is_enough() -> None:
    patches = [
        patch("s", "1", "drivers/iommu/iommu.c", "drivers/iommu/generic_pt/fmt/iommu_amdv1.c"),
        patch("s", "2", "kernel/dma/mapping.c", "include/linux/iommu.h", "MAINTAINERS"),
        patch("s", "3", "drivers/iommu-x/a.c"),
    ]
    assert directories(patches) == ("drivers/iommu/", "drivers/iommu-x/", "kernel/dma/")


def test_from_names_a_patch_or_a_series() -> None:
    patches = [
        patch("dma-freeze", "0001-count.patch"),
        patch("dma-freeze", "0002-show.patch"),
        patch("dma-private", "0001-record.patch"),
    ]
    assert starts_at(patches, "") == 0
    assert starts_at(patches, "dma-freeze") == 0
    assert starts_at(patches, "dma-private") == 2
    assert starts_at(patches, "dma-freeze/0002") == 1
    assert starts_at(patches, "0002-show") == 1
    there = {
        "dma-f": "dma-freeze/0001-count.patch, dma-freeze/0002-show.patch",
        "0001": "dma-freeze/0001-count.patch, dma-private/0001-record.patch",
        "dma-none": "dma-freeze, dma-private",
        "dma-freeze/0003": "dma-freeze/0001-count.patch, dma-freeze/0002-show.patch",
    }
    for wrong, names in there.items():
        with pytest.raises(UserError) as caught:
            starts_at(patches, wrong)
        assert caught.value.hint == f"there are: {names}"


NM = """\
a.o:
dma_freeze T 0 40
dma_map U
kmalloc U
key D 0 8
b.o:
dma_map T 10 8
maybe w
"""


def test_symbols_of_objects() -> None:
    wanted, defined = undefined(NM)
    assert wanted == {"kmalloc"}
    assert {"dma_freeze", "dma_map", "key"} <= defined


def test_a_symbol_is_blamed_on_the_patch_that_needs_it_first() -> None:
    wanted = [{"kmalloc"}, {"kmalloc", "later"}, {"kmalloc", "later"}, {"kmalloc"}]
    defined = [{"a"}, {"a", "b"}, {"a", "b"}, {"a", "b", "later"}]
    assert defined_later(wanted, defined) == {1: ("later",)}


def checked(*remarks: Remark) -> Checked:
    return Checked(Role.GUEST, "dma-freeze", "0001-count.patch", "count", 12, remarks)


def test_exit_codes() -> None:
    bad = checked(Remark(Kind.WARNING, "unused", "a.c", 3))
    assert exit_code([checked()], complete=True) == 0
    assert exit_code([checked(), bad], complete=True) == 1
    assert exit_code([bad], complete=False) == 1
    assert exit_code([checked()], complete=False) == 2
    assert exit_code([], complete=True) == 2, "nothing was looked at"


def test_the_table_names_what_is_wrong() -> None:
    text = render([checked(), checked(Remark(Kind.WARNING, "unused", "a.c", 3))])
    assert "ok" in text
    assert "FAIL" in text
    assert "12 objects  guest  dma-freeze/0001-count" in text
    assert "new warning: a.c:3: unused" in text
    assert "2 patches, 1 with something wrong" in text
