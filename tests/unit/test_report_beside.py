# SPDX-License-Identifier: GPL-2.0-only
"""The comparison with earlier runs, as the terminal and the step summary tell it."""

from __future__ import annotations

from dataclasses import replace

from harness.core.baseline import beside as compared
from harness.model.results import Attempt, Outcome, RunResult, SlowDown, Verdict
from harness.report import beside, markdown, summary, terminal
from tests.unit.test_baseline import case, run


def sample() -> RunResult:
    before = run(1, case("pass", a="pass", b="pass"), case("fail", "race"), case("pass", "gone"))
    now = run(2, case("fail", a="fail", b="pass"), case("pass", "race"), case("pass", "fresh"))
    return replace(now, baseline=compared(now, [before]).baseline)


def test_changes_are_told_the_most_urgent_first_and_each_once() -> None:
    assert beside.lines(sample()) == [
        "against day1: 2 new failure, 1 missing, 1 fixed, 1 new, 1 same",
        "  NEW FAILURE guest:tsm:abi: because fail",
        "  MISSING guest:tsm:gone",
        "  FIXED guest:tsm:race: because pass",
    ]


def test_a_subtest_is_told_when_its_program_is_not() -> None:
    before = run(1, case("fail", a="pass", b="fail"))
    now = run(2, case("fail", a="fail", b="fail"))
    told = beside.lines(replace(now, baseline=compared(now, [before]).baseline))
    assert told[1:] == [
        "  NEW FAILURE guest:tsm:abi / a",
        "  STILL FAILING guest:tsm:abi since day1: because fail",
    ]


def test_a_long_list_is_cut_and_says_so() -> None:
    now = run(2, *(case("fail", f"t{n}") for n in range(12)))
    before = run(1, *(case("pass", f"t{n}") for n in range(12)))
    told = beside.lines(replace(now, baseline=compared(now, [before]).baseline))
    assert len(told) == 10
    assert told[-1] == "  ... and 4 more cases"


def test_slow_downs_and_notes() -> None:
    slow = SlowDown("guest:tsm:abi", 30.0, 10.0, 12.5, 7)
    told = beside.lines(replace(run(1), slower=(slow,), notes=("a known failure expired\x1b[1m",)))
    assert told == [
        "  SLOWER guest:tsm:abi: 30 s; the median of 7 runs is 10 s, noise reaches 12 s",
        "note: a known failure expired",
    ]


def test_nothing_to_tell() -> None:
    assert beside.lines(run(1, case("pass"))) == []
    assert beside.counts_line(run(1)) == ""


def test_terminal_and_step_summary_hold_the_lines() -> None:
    result = replace(sample(), notes=("expired",))
    for text in (terminal.render(result), markdown.render(result)):
        assert "NEW FAILURE guest:tsm:abi" in text
        assert "note: expired" in text


def test_both_logs_of_a_flaky_test_are_named() -> None:
    attempts = tuple(
        Attempt(n, "guest", Outcome.FAIL, "", 1.0, 0.0, f"ktap/a.{n}.ktap") for n in (1, 2)
    )
    flaky = replace(case("flaky"), log="ktap/a.1.ktap", attempts=attempts)
    assert "log: ktap/a.1.ktap ktap/a.2.ktap" in terminal.render(run(1, flaky))


def test_a_flaky_test_that_passes_is_not_hidden() -> None:
    result = replace(run(1, case("pass"), case("flaky", "b")), flaky_passes=True)
    assert result.verdict is Verdict.PASS
    assert "1 flaky, which the plan lets pass" in summary.sentence(result)


def test_the_last_lines_of_a_machine_that_crashed() -> None:
    lines = tuple(f"line {n}" for n in range(20))
    text = terminal.render(run(1, replace(case("crash"), last_lines=lines)))
    assert "      | line 17\n      | line 18\n      | line 19\n" in text
    assert "line 16" not in text
