# SPDX-License-Identifier: GPL-2.0-only
"""Plans: what is read, what is refused, which tests are chosen."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from harness.core.plan import choose_tests, parse_plan
from harness.core.select import parse_expression
from harness.errors import UserError
from harness.layout import PLANS
from harness.model.kernel import Role
from harness.model.plan import KnownFailure, RepeatPolicy, Topology

MINIMAL = """
title = "t"
topology = "pair"
[[tests]]
role = "guest"
collection = "tsm"
"""


BENCH = PLANS.parents[1] / "tests" / "bench" / "one_test.toml"


def programs() -> list[str]:
    """The test programs that the Makefile of kselftests/tsm names."""
    makefile = (PLANS.parents[1] / "kselftests" / "tsm" / "Makefile").read_text()
    return re.findall(
        r"^(?:TEST_PROGS :|TEST_GEN_PROGS \+|TDI_PROGS [:+])= ([\w.]+)$", makefile, re.M
    )


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        parse_plan(text, "p.toml", "p")
    return caught.value


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_plans_of_the_repository_are_read(path: Path) -> None:
    plan = parse_plan(path.read_text(), str(path), path.stem)
    assert plan.selections
    assert plan.host.memory_mib <= 3072


def test_minimal_plan_has_defaults() -> None:
    plan = parse_plan(MINIMAL, "p.toml", "p")
    assert plan.topology is Topology.PAIR
    assert plan.package == "linux-source-7.3"
    assert plan.collections == ("tsm",)
    assert plan.selections[0].tests == ("*",)


def test_repeats_and_flaky_have_defaults_and_keys() -> None:
    plan = parse_plan(MINIMAL, "p.toml", "p")
    assert (plan.repeats, plan.flaky_passes) == (RepeatPolicy(1, 1), False)
    text = 'repeat = 3\ninfra_retries = 0\nflaky = "pass"\n' + MINIMAL
    plan = parse_plan(text, "p.toml", "p")
    assert (plan.repeats, plan.flaky_passes) == (RepeatPolicy(3, 0), True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("repeat = -1", "p.toml: repeat: expected 0 to 100, got -1"),
        ("repeat = true", "p.toml: repeat: expected a number"),
        ('infra_retries = "1"', "p.toml: infra_retries: expected a number"),
        ("infra_retries = 101", "p.toml: infra_retries: expected 0 to 100"),
        ('flaky = "maybe"', "p.toml: flaky: expected one of fail, pass"),
    ],
)
def test_bad_repeats_are_refused(line: str, message: str) -> None:
    assert refused(f"{line}\n{MINIMAL}").message.startswith(message)


def test_known_failures_have_a_reason_and_maybe_a_last_day() -> None:
    text = MINIMAL + (
        'known = { "a:*" = "always", "b:x" = { reason = "bug 7", until = 2027-01-31 },'
        ' "c:*" = { reason = "bug 8" } }\n'
    )
    assert parse_plan(text, "", "").selections[0].known == (
        KnownFailure("a:*", "always"),
        KnownFailure("b:x", "bug 7", datetime.date(2027, 1, 31)),
        KnownFailure("c:*", "bug 8"),
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("3", "p.toml: tests[0].known.a:*: expected a reason, or {"),
        ('""', "p.toml: tests[0].known.a:*: the reason is empty"),
        ("{ until = 2027-01-31 }", "p.toml: tests[0].known.a:*.reason: missing"),
        ('{ reason = "r", until = "2027-01-31" }', "p.toml: tests[0].known.a:*.until: expected a"),
        ('{ reason = "r", until = 2027-01-31T10:00:00 }', "p.toml: tests[0].known.a:*.until: "),
        ('{ reason = "r", unti = 2027-01-31 }', "p.toml: tests[0].known.a:*.unti: unknown key"),
        ('{ reason = "r", until = 2027-02-31 }', "p.toml: "),
    ],
)
def test_bad_known_failures_are_refused(entry: str, message: str) -> None:
    assert refused(f'{MINIMAL}known = {{ "a:*" = {entry} }}\n').message.startswith(message)


def test_misspelt_key_is_named_with_a_hint() -> None:
    error = refused(MINIMAL.replace("collection =", "colection ="))
    assert error.message == "p.toml: tests[0].colection: unknown key"
    assert error.hint == "did you mean collection?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('topology = "pair"', 'topology = "triple"'), "p.toml: topology: expected one of"),
        (('title = "t"', ""), "p.toml: title: missing"),
        (('role = "guest"', 'role = "gust"'), "p.toml: tests[0].role: expected one of"),
        (('collection = "tsm"', "collection = 3"), "p.toml: tests[0].collection: expected"),
        (('title = "t"', "title = "), "p.toml: Invalid value"),
    ],
)
def test_bad_plans_name_file_and_key(change: tuple[str, str], message: str) -> None:
    assert refused(MINIMAL.replace(*change)).message.startswith(message)


def test_a_plan_without_tests_is_refused() -> None:
    assert "proves nothing" in refused('title = "t"\ntopology = "solo"\ntests = []').message


def test_guest_memory_must_fit_the_host() -> None:
    text = MINIMAL + "[machines.host]\nmemory_mib = 1024\n[machines.guest]\nmemory_mib = 768\n"
    assert "machines.guest.memory_mib" in refused(text).message


def test_pair_takes_at_most_three_gib() -> None:
    assert "3072" in refused(MINIMAL + "[machines.host]\nmemory_mib = 4096\n").message


BUILT = {Role.GUEST: ["tsm:dma_freeze", "tsm:tsm_class", "iommu:iommufd"], Role.HOST: ["tsm:x"]}


def test_star_chooses_the_collection_of_the_role() -> None:
    chosen = [str(test) for test, _ in choose_tests(parse_plan(MINIMAL, "", ""), BUILT, None)]
    assert chosen == ["guest:tsm:dma_freeze", "guest:tsm:tsm_class"]


def test_a_pattern_leaves_out() -> None:
    plan = parse_plan(MINIMAL + 'tests = ["*", "!tsm_*", "gone"]\n', "", "")
    chosen = [str(test) for test, _ in choose_tests(plan, BUILT, None)]
    assert chosen == ["guest:tsm:dma_freeze", "guest:tsm:gone"]
    assert "names nothing to run" in refused(MINIMAL + 'tests = ["!tsm_class"]\n').message


def test_a_collection_without_a_name_is_refused() -> None:
    """It would build all kselftests of the tree."""
    text = MINIMAL.replace('collection = "tsm"', 'collection = ""')
    assert "tests[0].collection: expected a kselftest collection" in refused(text).message


def test_an_empty_list_of_tests_is_refused() -> None:
    assert "names nothing to run" in refused(MINIMAL + "tests = []\n").message


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        (["racse*", "dma_*"], ["racse*", "dma_freeze"]),
        (["racse?"], ["racse?"]),
        (["*", "!dma_*", "!tsm_*"], []),  # everything is left out on purpose
        (["dma_*", "tsm_class", "!dma_freeze"], ["tsm_class"]),
        (["dma_freeze", "!dma_*", "tsm_class"], ["tsm_class"]),
        (["gone", "!gone", "tsm_class"], ["tsm_class"]),
    ],
)
def test_a_pattern_that_names_nothing_is_kept(tests: list[str], names: list[str]) -> None:
    plan = parse_plan(f"{MINIMAL}tests = {tests}\n", "", "")
    chosen = [test.test for test, _ in choose_tests(plan, BUILT, None)]
    assert chosen == names


def test_a_collection_without_any_program_is_kept_unless_it_is_not_asked_for() -> None:
    plan = parse_plan(MINIMAL.replace('"tsm"', '"tms"') + MINIMAL[MINIMAL.index("[[") :], "", "")
    chosen = [str(test) for test, _ in choose_tests(plan, BUILT, None)]
    assert chosen == ["guest:tms:*", "guest:tsm:dma_freeze", "guest:tsm:tsm_class"]
    (only, _), *more = choose_tests(plan, BUILT, parse_expression("freeze"))
    assert (str(only), more) == ("guest:tsm:dma_freeze", [])


@pytest.mark.parametrize(
    "path", [*sorted(PLANS.glob("*.toml")), BENCH], ids=lambda path: Path(path).stem
)
def test_no_pattern_of_our_own_plans_is_missing(path: Path) -> None:
    plan = parse_plan(path.read_text(), str(path), path.stem)
    tsm = [f"tsm:{name}" for name in programs()]
    built = [*tsm, "iommu:iommufd", "size:get_size"]
    for test, _ in choose_tests(plan, dict.fromkeys(Role, built), None):
        assert f"{test.collection}:{test.test}" in built


def test_a_named_test_that_was_not_built_is_kept() -> None:
    plan = parse_plan(MINIMAL + 'tests = ["gone", "dma_*"]\n', "", "")
    chosen = [str(test) for test, _ in choose_tests(plan, BUILT, None)]
    assert chosen == ["guest:tsm:gone", "guest:tsm:dma_freeze"]


def test_expression_narrows_the_choice() -> None:
    plan = parse_plan(MINIMAL, "", "")
    chosen = choose_tests(plan, BUILT, parse_expression("guest and not class"))
    assert [str(test) for test, _ in chosen] == ["guest:tsm:dma_freeze"]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("tsm", "guest:tsm:a", True),
        ("TSM", "guest:tsm:a", True),
        ("host or tsm", "guest:tsm:a", True),
        ("host and tsm", "guest:tsm:a", False),
        ("not (host or a)", "guest:tsm:a", False),
        ("not host and tsm", "guest:tsm:a", True),
        ("a or b and c", "a", True),
    ],
)
def test_expressions(text: str, name: str, expected: bool) -> None:
    assert parse_expression(text).matches(name) is expected


@pytest.mark.parametrize("text", ["", "and", "a and", "(a", "a)", "not", "a b"])
def test_unreadable_expressions_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_expression(text)
