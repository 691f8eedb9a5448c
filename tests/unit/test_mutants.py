# SPDX-License-Identifier: GPL-2.0-only
"""Mutants: what a patch says, which tests run for it, and when it counts as killed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.mutants import (
    CaughtBy,
    Finding,
    Mutant,
    State,
    baseline_faults,
    exit_code,
    judge,
    parse_mutant,
    plan_for,
)
from harness.core.plan import all_cells, choose_tests, parse_plan
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.results import (
    Failure,
    Outcome,
    RunResult,
    SubtestResult,
    TestResult,
    Verdict,
)

PATCH = """From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: A Person <a@example.org>
Date: Sun, 22 Nov 2026 00:00:00 +0000
Subject: [PATCH] dma-mapping: forget to count coherent memory

The freeze then comes although memory is in use.

{lines}
---
 kernel/dma/mapping.c | 1 -
 1 file changed, 1 deletion(-)

diff --git a/kernel/dma/mapping.c b/kernel/dma/mapping.c
Caught-by: this is no line of the message
"""
PLAN = parse_plan(
    """
title = "t"
topology = "solo"
[platform]
append = "cc_emulated=on"
axes = { model = ["A", "N"] }
[[tests]]
role = "guest"
collection = "tsm"
tests = ["dma_*", "races"]
timeout_s = 77
[[tests]]
role = "guest"
collection = "tsm"
tests = ["faults"]
platform = { model = "B", bme_clear = "ignore" }
""",
    "p.toml",
    "p",
)
EMPTY = RunResult(1, "r", "p", "solo", "", 0.0, Verdict.FAIL, 1, "0", {}, ())


def mutant(*lines: str) -> Mutant:
    text = PATCH.format(lines="\n".join(f"Caught-by: {line}" for line in lines))
    return parse_mutant(text, "forget", "forget", "forget.patch")


def test_the_message_names_the_tests() -> None:
    found = mutant(
        "tsm:dma_matrix.trusted.private_page model-A", "tsm:races", "tsm:kunit.sh.suite.*"
    ).caught_by
    assert found == (
        CaughtBy("tsm", "dma_matrix", "trusted.private_page", "model-A"),
        CaughtBy("tsm", "races"),
        CaughtBy("tsm", "kunit.sh", "suite.*"),
    )
    assert str(found[0]) == "tsm:dma_matrix.trusted.private_page model-A"


def test_a_mutant_without_a_test_is_refused() -> None:
    with pytest.raises(UserError, match=r"forget\.patch: no Caught-by line"):
        mutant()


@pytest.mark.parametrize("line", ["", "tsm", "tsm:", "tsm:races model-A extra", "tsm:a b"])
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        mutant(line)


def test_only_what_is_needed_runs_once_and_unrepeated() -> None:
    wanted = mutant("tsm:dma_matrix.a", "tsm:dma_matrix.b", "tsm:races model-N").caught_by
    plan = plan_for(PLAN, wanted, "mutant-x")
    chosen = choose_tests(plan, {Role.GUEST: ["tsm:dma_matrix", "tsm:dma_freeze"]}, None)
    assert [str(test) for test, _ in chosen] == [
        "guest:tsm:dma_matrix@model-B",
        "guest:tsm:races@model-N",
    ]
    assert {selection.timeout_s for _, selection in chosen} == {77.0}
    assert plan.repeats.repeat == 0
    assert plan.name == "mutant-x"
    assert {cell.append for cell in all_cells(plan).values()} == {"cc_emulated=on"}


def test_a_cell_of_another_entry_may_be_named() -> None:
    plan = plan_for(PLAN, mutant("tsm:faults model-B+bme-ignore").caught_by, "m")
    assert list(all_cells(plan)) == ["model-B+bme-ignore"]


HOST_CELL = "model-B+host-binds+pair"


def test_a_mutant_of_the_hosts_kernel_runs_where_the_host_binds() -> None:
    text = (
        'title = "t"\ntopology = "pair"\n[platform]\n'
        '[[tests]]\nrole = "guest"\ncollection = "tsm"\ntests = ["tsm_link"]\nplatform = {}\n'
        '[[tests]]\nrole = "host"\ncollection = "tsm"\nplatform = { binds = "host" }\n'
    )
    made = mutant(f"host:tsm:tsm_link.link.a {HOST_CELL}", f"host:tsm:tsm_link {HOST_CELL}")
    assert made.role is Role.HOST
    assert str(made.caught_by[0]) == f"host:tsm:tsm_link.link.a {HOST_CELL}"
    plan = plan_for(parse_plan(text, "p.toml", "p"), made.caught_by, "m")
    built = {Role.HOST: ["tsm:tsm_link"], Role.GUEST: ["tsm:tsm_link"]}
    chosen = choose_tests(plan, built, None)
    assert [str(test) for test, _ in chosen] == [f"host:tsm:tsm_link@{HOST_CELL}"]
    guests = result(Outcome.FAIL)
    assert judge(mutant("tsm:races"), guests).state is State.KILLED
    assert judge(mutant("host:tsm:races"), guests).state is State.INFRA, "the guest's test is not"


def test_a_mutant_is_of_one_kernel() -> None:
    assert mutant("tsm:races").role is mutant("guest:tsm:races").role is Role.GUEST
    with pytest.raises(UserError, match="Caught-by lines of both roles"):
        mutant("tsm:races", "host:tsm:races")


def test_unknown_programs_and_cells_are_named() -> None:
    with pytest.raises(UserError, match="no such test"):
        plan_for(PLAN, mutant("tsm:nothing").caught_by, "m")
    with pytest.raises(UserError, match="no such cell") as caught:
        plan_for(PLAN, mutant("tsm:races model-C").caught_by, "m")
    assert "model-B+bme-ignore" in caught.value.hint


def result(outcome: Outcome, *cases: tuple[str, Outcome], reason: str = "") -> RunResult:
    subtests = tuple(SubtestResult((name,), found, "") for name, found in cases)
    test = TestResult(
        "guest", "guest", "tsm", "races", outcome, reason, 1.0, 0.0, "",
        subtests=subtests, cell="model-B",
    )  # fmt: skip
    return replace(EMPTY, tests=(test,))


GOOD, BAD = ("map.trust", Outcome.PASS), ("map.trust", Outcome.FAIL)
OTHER_BAD = ("other", Outcome.FAIL)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (result(Outcome.FAIL, BAD), State.KILLED),
        (result(Outcome.FAIL, BAD, OTHER_BAD), State.KILLED),
        (result(Outcome.PASS, GOOD), State.SURVIVED),
        # another case failed: the one that was named missed it
        (result(Outcome.FAIL, GOOD, OTHER_BAD), State.SURVIVED),
        # the platform or a splat failed the program, all of whose cases were good
        (result(Outcome.FAIL, GOOD, reason="platform: a fault"), State.KILLED),
        (result(Outcome.CRASH), State.KILLED),
        (result(Outcome.TIMEOUT, GOOD), State.KILLED),
        (result(Outcome.SKIP), State.INFRA),
        (result(Outcome.MISSING), State.INFRA),
        (result(Outcome.INFRA), State.INFRA),
        (EMPTY, State.INFRA),
    ],
)
def test_a_mutant_is_killed_by_the_case_that_is_named(found: RunResult, state: State) -> None:
    assert judge(mutant("tsm:races.map.*"), found).state is state


def test_any_failure_will_do_when_no_case_is_named() -> None:
    assert judge(mutant("tsm:races"), result(Outcome.FAIL, OTHER_BAD)).state is State.KILLED


def test_every_line_must_hold() -> None:
    found = judge(mutant("tsm:races.map.trust", "tsm:races.gone"), result(Outcome.FAIL, BAD))
    assert found.state is State.SURVIVED
    assert found.notes[0] == "caught by tsm:races.map.trust"
    assert found.notes[1].startswith("missed by tsm:races.gone: fail in model-B")


@pytest.mark.parametrize("kind", ["patch", "config", "build", "boot"])
def test_a_mutant_that_is_no_kernel_proves_nothing(kind: str) -> None:
    run = replace(EMPTY, failures=(Failure(kind, "guest", "does not compile\nmore"),))
    assert judge(mutant("tsm:races"), run) == Finding(State.BROKEN, ("does not compile",))


def test_a_test_that_fails_without_a_mutant_is_useless() -> None:
    named = mutant("tsm:races.map.trust").caught_by
    assert baseline_faults(named, result(Outcome.PASS, GOOD)) == ()
    assert baseline_faults(named, result(Outcome.FAIL, BAD)) == (
        "tsm:races.map.trust: fail in model-B without any mutant",
    )
    assert "no such case" in baseline_faults(named, result(Outcome.PASS, ("x", Outcome.PASS)))[0]
    skipped = ("map.trust", Outcome.SKIP)
    assert "no such case" in baseline_faults(named, result(Outcome.PASS, skipped))[0]
    assert "gave no result" in baseline_faults(named, EMPTY)[0]
    broken = replace(EMPTY, failures=(Failure("infra", "", "no disk\nmore"),))
    assert baseline_faults(named, broken) == ("no disk",)


def test_exit_codes() -> None:
    def code(*states: State) -> int:
        return exit_code([Finding(state, ()) for state in states])

    assert code(State.KILLED, State.KILLED) == 0
    assert code(State.KILLED, State.SURVIVED, State.INFRA) == 1
    assert code(State.KILLED, State.BROKEN) == 1
    assert code(State.KILLED, State.INFRA) == 2
    assert code() == 2
