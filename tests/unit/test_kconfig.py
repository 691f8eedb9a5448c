# SPDX-License-Identifier: GPL-2.0-only
"""Fragments, Kconfig files, and the reasons given for a request that did not stick."""

from __future__ import annotations

import pytest

from harness.core.kconfig import (
    config_hash,
    describe_broken,
    merge,
    parse_config,
    parse_fragment,
    prove,
    render_proof,
)
from harness.core.kconfig_explain import Expression
from harness.core.kconfig_symbols import SymbolTable, read_symbols
from harness.errors import UserError
from harness.model.kernel import ConfigRow

TREE = {
    "Kconfig": """
mainmenu "Linux"
source "arch/$(SRCARCH)/Kconfig"
source "drivers/Kconfig"
osource "not/there/Kconfig"
""",
    "arch/x86/Kconfig": """
config X86
\tdef_bool y
config 64BIT
\tbool "64-bit kernel" if "$(ARCH)" = "x86"
config NR_CPUS
\tint "Number of CPUs" if SMP
\trange 2 8
config SMP
\tbool "SMP"
\thelp
\t  Not a statement:
\t  depends on NOTHING

\t  config ALSO_NOT
choice
\tprompt "Compression"
config KERNEL_GZIP
\tbool "Gzip"
config KERNEL_XZ
\tbool "XZ"
endchoice
""",
    "drivers/Kconfig": """
menu "Drivers"
\tdepends on PCI # a comment with "quotes"
if IOMMU_SUPPORT
config IOMMUFD
\ttristate "IOMMU Userspace API"
\tdepends on MMU || \\
\t\t   COMPILE_TEST
\tselect IOMMUFD_DRIVER if X86
config IOMMUFD_TEST
\tbool "IOMMU Userspace API Test support"
\tdepends on IOMMUFD && FAULT_INJECTION
\tdepends on !UML
endif
endmenu
config IOMMUFD_DRIVER
\tbool
config PCI
\tbool "PCI"
config IOMMU_SUPPORT
\tbool "IOMMU"
config MMU
\tdef_bool y
config FAULT_INJECTION
\tbool "Fault injection"
\tdepends on DEBUG_KERNEL
config DEBUG_KERNEL
\tbool "Debugging"
comment "nothing"
\tdepends on COMPILE_TEST
config MODE
\tstring "Mode"
config LIMITED
\ttristate "Limited"
\tdepends on TRI
config TRI
\ttristate "Tri"
""",
}


@pytest.fixture(scope="module")
def table() -> SymbolTable:
    return read_symbols(TREE.get)


def why(table: SymbolTable, symbol: str, value: str, final: str) -> str:
    request = f"CONFIG_{symbol}={value}"
    proof = prove("guest", merge([parse_fragment("a.config", request)]), final, table)
    assert len(proof.rows) == 1
    return "" if proof.rows[0].ok else proof.rows[0].why


def test_a_fragment_is_read_with_its_lines() -> None:
    text = '# why\n\nCONFIG_A=y\r\nCONFIG_B="x \\"y\\""\n# CONFIG_C is not set\nCONFIG_D=0x1F\n'
    found = [(r.symbol, r.value, r.origin) for r in parse_fragment("f", text)]
    assert found == [
        ("A", "y", "f:3"),
        ("B", '"x \\"y\\""', "f:4"),
        ("C", "n", "f:5"),
        ("D", "0x1F", "f:6"),
    ]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("CONFIG_A = y", "`CONFIG_A=y`"),
        ("A=y", "`CONFIG_A=y`"),
        ("CONFIG_A=yes", "`CONFIG_A=y`"),
        ("config_a=Y", "`CONFIG_A=y`"),
        ("CONFIG_A=y # why", "`CONFIG_A=y`"),
        ("CONFIG_A=module", "`CONFIG_A=m`"),
        ("CONFIG_A=-tdisp", '`CONFIG_A="-tdisp"`'),
        ("CONFIG_A='text'", '`CONFIG_A="text"`'),
        ('CONFIG_A="open', '`CONFIG_A="open"`'),
        ("#CONFIG_A is not set", "`# CONFIG_A is not set`"),
        ("# A is not set", "`# CONFIG_A is not set`"),
        ("hello", "`CONFIG_X=y`"),
    ],
)
def test_a_malformed_line_says_where_and_what_was_meant(line: str, hint: str) -> None:
    with pytest.raises(UserError, match=r"^g\.config:2: ") as caught:
        parse_fragment("g.config", f"CONFIG_OK=y\n{line}\n")
    assert hint in caught.value.hint


def test_later_fragments_win_and_say_so() -> None:
    merged = merge(
        [
            parse_fragment("base", "CONFIG_A=y\nCONFIG_B=y\n"),
            parse_fragment("role", "# CONFIG_A is not set\nCONFIG_B=y\n"),
        ]
    )
    assert merged.overrides == ("CONFIG_A=n (role:1) overrides y (base:1)",)
    assert merged.render() == "# CONFIG_A is not set\nCONFIG_B=y\n"


def test_a_wish_never_beats_a_binding_request() -> None:
    ours = parse_fragment("base", "CONFIG_A=y\nCONFIG_B=n\n")
    wish = parse_fragment("sel", "CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=y\n", binding=False)
    expected = {"A": "y", "B": "n", "C": "y"}
    for order in ([ours, wish], [wish, ours]):
        assert {r.symbol: r.value for r in merge(order).requests} == expected
    assert merge([ours, wish]).overrides == ("CONFIG_B=n (base:2) overrides y (sel:2)",)


def test_the_hash_ignores_comments_and_order() -> None:
    one = "# Linux 7.3\nCONFIG_A=y\n# CONFIG_B is not set\n"
    two = "# CONFIG_B is not set\n# another compiler\nCONFIG_A=y\n"
    assert config_hash(one) == config_hash(two)
    assert config_hash(one) != config_hash(one.replace("=y", "=m"))
    assert parse_config(one) == {"A": "y", "B": "n"}


def test_symbols_are_read_with_blocks_help_and_sources(table: SymbolTable) -> None:
    assert "ALSO_NOT" not in table.symbols
    (test,) = table.symbols["IOMMUFD_TEST"]
    assert test.where == "drivers/Kconfig:10"
    assert test.depends == ["PCI", "IOMMU_SUPPORT", "IOMMUFD && FAULT_INJECTION", "!UML"]
    (driver,) = table.symbols["IOMMUFD"]
    assert driver.depends[-1].split() == ["MMU", "||", "COMPILE_TEST"]
    assert table.selectors["IOMMUFD_DRIVER"] == [("IOMMUFD", "X86")]
    assert table.symbols["IOMMUFD_DRIVER"][0].depends == []
    assert not table.symbols["IOMMUFD_DRIVER"][0].prompt
    assert table.symbols["DEBUG_KERNEL"][0].depends == []  # not the comment's
    assert table.symbols["SMP"][0].depends == []


@pytest.mark.parametrize(
    ("symbol", "value", "final", "expected"),
    [
        ("IOMUFD_TEST", "y", "", "no such symbol (did you mean CONFIG_IOMMUFD_TEST?)"),
        ("IOMUFD_TEST", "n", "", "no such symbol (did you mean CONFIG_IOMMUFD_TEST?)"),
        ("QQQQQ", "y", "", "no such symbol"),
        ("PCI", "n", "", ""),
        ("PCI", "n", "# CONFIG_PCI is not set\n", ""),
        (
            "IOMMUFD_TEST",
            "y",
            "CONFIG_PCI=y\nCONFIG_IOMMU_SUPPORT=y\nCONFIG_IOMMUFD=y\n",
            "depends on FAULT_INJECTION, which is n (it depends on DEBUG_KERNEL, which is n)"
            " (defined at drivers/Kconfig:10)",
        ),
        ("IOMMUFD_DRIVER", "n", "CONFIG_X86=y\nCONFIG_IOMMUFD=y\nCONFIG_IOMMUFD_DRIVER=y\n",
         "selected by IOMMUFD (defined at drivers/Kconfig:16)"),
        ("IOMMUFD_DRIVER", "y", "", "has no prompt, so it cannot be requested; selected by IOMMUFD"
         " (defined at drivers/Kconfig:16)"),
        ("KERNEL_GZIP", "y", "CONFIG_KERNEL_XZ=y\n",
         "is one of a choice in which CONFIG_KERNEL_XZ was chosen"
         " (defined at arch/x86/Kconfig:18)"),
        ("NR_CPUS", "64", "CONFIG_SMP=y\nCONFIG_NR_CPUS=8\n",
         "became 8: a default, a range or a select elsewhere decided"
         " (defined at arch/x86/Kconfig:6)"),
        ("NR_CPUS", "64", "", "its prompt is shown only if SMP (defined at arch/x86/Kconfig:6)"),
        ("MODE", "y", "", "is a string, not a switch (defined at drivers/Kconfig:31)"),
        ("SMP", "m", "", "is a bool: it cannot be m (defined at arch/x86/Kconfig:9)"),
        ("LIMITED", "y", "CONFIG_TRI=m\nCONFIG_LIMITED=m\n",
         "depends on TRI, which is m (defined at drivers/Kconfig:33)"),
        ("TRI", "m", "CONFIG_TRI=y\n", ""),
    ],
)  # fmt: skip
def test_the_reason(table: SymbolTable, symbol: str, value: str, final: str, expected: str) -> None:
    assert why(table, symbol, value, final) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 2),
        ("A", 2),
        ("M", 1),
        ("N", 0),
        ("!N", 2),
        ("!M", 1),
        ("A && M", 1),
        ("N || M", 1),
        ("!(A && N)", 2),
        ("(A || N) && !N", 2),
        ("S = foo", 2),
        ('S != "foo"', 0),
        ("NUM >= 5", 2),
        ("NUM < 5", 0),
        ("A=y", 2),
        ("N=n", 2),
        ("M!=n", 2),
        ("$(cc-option,-mfoo) && A", 2),
        ("MISSING", 0),
    ],
)
def test_expressions_are_tristate(text: str, value: int) -> None:
    config = {"A": "y", "M": "m", "N": "n", "S": '"foo"', "NUM": "7", "foo": "foo"}
    assert Expression(text, config).value() == value


def test_failing_terms_are_named() -> None:
    config = {"A": "y", "N": "n"}
    assert Expression("A && N && !A", config).failing() == ["N", "!A (A is y)"]
    assert Expression("N || MISSING", config).failing() == ["N or MISSING"]


def test_the_proof_lists_broken_rows_first(table: SymbolTable) -> None:
    fragments = parse_fragment("a.config", "CONFIG_PCI=y\nCONFIG_PCY=y\n")
    wish = parse_fragment("sel/config", "CONFIG_IOMMUFD=m\nCONFIG_TRI=y\n", binding=False)
    merged = merge([fragments, wish])
    proof = prove("guest", merged, "CONFIG_PCI=y\nCONFIG_IOMMUFD=y\n", table)
    assert proof.broken == (ConfigRow("PCY", "y", "", "a.config:2", proof.broken[0].why),)
    text = render_proof(proof, ["x overrides y"])
    assert text.splitlines()[:3] == [
        "guest: 4 options requested, 1 not honoured",
        "",
        "BROKEN CONFIG_PCY=y  got (no such symbol)  [a.config:2]",
    ]
    assert "ok     CONFIG_PCI=y  got y  [a.config:1]" in text
    assert "asked for m; y answers it" in text
    assert "asked for y, not needed: " in text
    assert text.endswith("overrides:\n  x overrides y\n")
    assert describe_broken(proof).startswith("  CONFIG_PCY=y (a.config:2): no such symbol")
