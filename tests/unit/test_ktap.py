# SPDX-License-Identifier: GPL-2.0-only
"""What the KTAP parser makes of each form, one short text per rule."""

from __future__ import annotations

import json

import pytest

from harness.core.ktap import parse, to_json
from harness.model.results import KtapReport, Outcome

HEAD = "TAP version 13\n"


def outcomes(report: KtapReport) -> dict[str, str]:
    return {"/".join(case.id): str(case.outcome) for case in report.cases}


def problems(report: KtapReport) -> str:
    return "\n".join(problem.text for problem in report.problems)


def test_plain_results_need_no_problem() -> None:
    report = parse(HEAD + "1..2\nok 1 a\nnot ok 2 b # why\n")
    assert outcomes(report) == {"a": "pass", "b": "fail"}
    assert report.cases[1].reason == "why"
    assert [case.line for case in report.cases] == [3, 4]
    assert report.problems == ()


def test_root_is_put_before_every_id() -> None:
    assert outcomes(parse(b"1..1\nok 1 a\n", root=("tsm", "abi"))) == {"tsm/abi/a": "pass"}


def test_whole_skip_takes_the_root_as_its_id() -> None:
    report = parse(b"TAP version 13\n1..0 # SKIP no TSM\n", root=("tsm", "abi"))
    assert outcomes(report) == {"tsm/abi": "skip"}
    assert report.cases[0].reason == "no TSM"
    assert report.problems == ()


@pytest.mark.parametrize("text", ["", "\n\n", "\0\0", "hello\n# ok then\n", "ok, fine\nokay\n"])
def test_no_result_is_a_problem_and_no_case(text: str) -> None:
    report = parse(text)
    assert report.cases == ()
    assert "no test result" in problems(report)


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("ok 1 a # SKIP x", Outcome.SKIP),
        ("not ok 1 a # SKIP x", Outcome.SKIP),
        ("ok 1 # SKIP x", Outcome.SKIP),
        ("ok 1 a # diagnostics # SKIP x", Outcome.SKIP),
        ("ok 1 a# SKIP x", Outcome.SKIP),
        ("not ok 1 a # TODO x", Outcome.XFAIL),
        ("ok 1 a # TODO x", Outcome.XPASS),
        ("ok 1 a # XFAIL x", Outcome.XFAIL),
        ("not ok 1 a # XFAIL x", Outcome.XFAIL),
        ("ok 1 a # XPASS x", Outcome.XPASS),
        ("not ok 1 a # TIMEOUT 45 seconds", Outcome.TIMEOUT),
        ("not ok 1 a # exit=3", Outcome.XPASS),
        ("not ok 1 a # exit=1", Outcome.FAIL),
        ("not ok 1 a # exit=33", Outcome.FAIL),
        ("not ok 1 a # error ioctl", Outcome.FAIL),
        ("ok 1 a # skipper=3", Outcome.PASS),
        ("ok 1 a # rcode=0", Outcome.PASS),
        ("ok 1 skip", Outcome.PASS),
        ("ok 1 SKIP \\# SKIP", Outcome.PASS),
    ],
)
def test_directive(line: str, outcome: Outcome) -> None:
    report = parse(f"{HEAD}1..1\n{line}\n")
    assert [case.outcome for case in report.cases] == [outcome]
    assert report.problems == ()


def test_ok_with_timeout_is_a_timeout_and_a_problem() -> None:
    report = parse(HEAD + "1..1\nok 1 a # TIMEOUT 45 seconds\n")
    assert outcomes(report) == {"a": "timeout"}
    assert "contradicts" in problems(report)


def test_both_forms_of_nesting_give_the_same_cases() -> None:
    hashed = "TAP version 13\n1..1\n# TAP version 13\n# 1..2\n# ok 1 x\n# not ok 2 y\nnot ok 1 p\n"
    indented = hashed.replace("# ", "    ")
    assert parse(hashed).cases == parse(indented).cases
    assert outcomes(parse(hashed)) == {"p/x": "pass", "p/y": "fail"}


def test_parent_ok_with_failed_subtest_is_no_clean_pass() -> None:
    report = parse(HEAD + "1..1\n# 1..2\n# ok 1 x\n# not ok 2 y\nok 1 p\n")
    assert outcomes(report) == {"p/x": "pass", "p/y": "fail"}
    assert "parent says pass" in problems(report)


def test_parent_failure_without_failed_subtest_is_kept() -> None:
    report = parse(HEAD + "1..1\n# 1..1\n# ok 1 x\nnot ok 1 selftests: tsm: abi # exit=139\n")
    assert outcomes(report) == {"tsm/abi/x": "pass", "tsm/abi": "fail"}


def test_parent_timeout_is_kept_even_beside_a_failed_subtest() -> None:
    text = (
        "1..1\n# 1..3\n# ok 1 x\n# not ok 2 y\nnot ok 1 selftests: tsm: abi # TIMEOUT 45 seconds\n"
    )
    assert outcomes(parse(text)) == {
        "tsm/abi/x": "pass",
        "tsm/abi/y": "fail",
        "tsm/abi/#3": "missing",
        "tsm/abi": "timeout",
    }


def test_parent_passes_its_skip_reason_on() -> None:
    report = parse("1..1\n# 1..0 # SKIP no TSM\nok 1 selftests: tsm: abi # SKIP\n")
    assert [(case.outcome, case.reason) for case in report.cases] == [(Outcome.SKIP, "no TSM")]


def test_parent_that_skipped_everything_is_no_pass() -> None:
    report = parse("1..1\n# 1..0 # SKIP no TSM\nok 1 selftests: tsm: abi\n")
    assert outcomes(report) == {"tsm/abi": "skip"}


def test_failed_parent_of_a_whole_skip_stays_failed() -> None:
    report = parse("1..1\n# 1..0 # SKIP no TSM\nnot ok 1 selftests: tsm: abi # exit=1\n")
    assert outcomes(report) == {"tsm/abi": "fail"}


def test_equal_names_are_kept_apart() -> None:
    report = parse("1..4\nok 1 a\nnot ok 2 a\nok 3 a#2\nok 4 a\n")
    assert outcomes(report) == {"a": "pass", "a#2": "fail", "a#2#2": "pass", "a#3": "pass"}


def test_unnamed_points_are_called_by_their_number() -> None:
    assert list(outcomes(parse("1..3\nok\nok 2\nok 3 -\n"))) == ["#1", "#2", "#3"]


def test_more_points_than_planned_is_a_problem() -> None:
    assert "2 results, but 1 planned" in problems(parse("1..1\nok 1 a\nok 2 b\n"))


def test_no_plan_is_a_problem() -> None:
    assert "no plan" in problems(parse(HEAD + "ok 1 a\n"))


def test_a_huge_plan_costs_little() -> None:
    report = parse(f"1..{10**17}\nok 1 a\n")
    assert len(report.cases) <= 1002
    assert "stands for all" in report.cases[-1].reason


def test_a_number_too_long_for_an_integer_is_a_name() -> None:
    report = parse("1..1\nok " + "9" * 5000 + " a\n")
    assert [case.outcome for case in report.cases] == [Outcome.PASS]


def test_bail_out_marks_the_rest_missing() -> None:
    report = parse("1..2\nok 1 a\nBail out! the device is gone\n")
    assert outcomes(report) == {"a": "pass", "#2": "missing"}
    assert report.cases[1].reason == "Bail out! the device is gone"
    assert "Bail out!" in problems(report)


def test_announced_test_without_result_is_missing_by_name() -> None:
    report = parse(
        HEAD + "1..2\n# selftests: tsm: a\nok 1 selftests: tsm: a\n# selftests: tsm: b\n"
    )
    assert outcomes(report) == {"tsm/a": "pass", "tsm/b": "missing"}


def test_harness_test_that_never_ended_is_missing_by_name() -> None:
    report = parse(HEAD + "1..2\n#  RUN           tdi.lock ...\n")
    assert outcomes(report) == {"tdi.lock": "missing", "#2": "missing"}


def test_next_header_closes_a_test_without_result() -> None:
    text = "1..2\n# selftests: t: a\n# ok 1 x\n# selftests: t: b\n# ok 1 y\nok 2 selftests: t: b\n"
    assert outcomes(parse(text)) == {"t/a/x": "pass", "t/a": "missing", "t/b/y": "pass"}


def test_result_glued_to_the_last_words_of_a_test() -> None:
    text = "1..1\n# selftests: t: a\n# no newlinenot ok 1 selftests: t: a # exit=1\n"
    assert outcomes(parse(text)) == {"t/a": "fail"}


def test_glued_text_that_nobody_awaits_is_no_result() -> None:
    text = "1..1\n# selftests: t: a\n# expected ok 1 selftests: t: b\nnot ok 1 selftests: t: a\n"
    assert outcomes(parse(text)) == {"t/a": "fail"}


def test_kernel_message_inside_an_ok_line_is_no_pass() -> None:
    report = parse("1..1\nok 1 na[   12.345678] usb 1-1: gone\n")
    assert outcomes(report) == {"na": "missing"}


def test_kernel_message_inside_a_not_ok_line_is_a_failure() -> None:
    assert outcomes(parse("1..1\nnot ok 1 na[   12.345678] usb 1-1\n")) == {"na": "fail"}


@pytest.mark.parametrize(
    "text",
    [
        "1..2\nnot [   12.345678] usb 1-1: gone\nok 1 a\nok 2 b\n",
        "1..2\nnot[   12.345678] usb 1-1: gone\n[   12.345679] x: y\n ok 1 a\nok 2 b\n",
        "1..2\nnot \rok 1 a\r\nok 2 b\n",
        "1..1\n# 1..2\n# not [   12.345678] usb 1-1\nok 1 a\n# ok 2 b\nok 1 p\n",
        "1..1\n# selftests: tsm: a\nnot \0ok 1 selftests: tsm: a\n",
        "1..1\n# selftests: tsm: a\nnot\tok 1 selftests: tsm: a\n",
    ],
)
def test_a_denial_torn_from_its_result_leaves_no_pass(text: str) -> None:
    report = parse(text)
    found = {case.id[-1]: case.outcome for case in report.cases}
    assert found["a"] is Outcome.MISSING
    assert sum(outcome is Outcome.PASS for outcome in found.values()) <= 1
    assert "its other half" in problems(report)


def test_kernel_lines_do_not_disturb_plain_ones() -> None:
    text = "1..1\n# ok 1 x\n[   12.345678] not a test\nok 1 p\n"
    assert outcomes(parse(text)) == {"p/x": "pass"}
    assert parse(text).problems == ()


@pytest.mark.parametrize(
    "prefix",
    [
        "[   12.345678] ",
        "[   12.345678][  T123] ",
        "<6>[   12.345678] ",
        "[   12.345678] [    T123] ",
        "[   12.345678] lab1 kernel: ",
        "2026-11-22T17:30:44,123456+00:00 ",
        "kern  :info  : [   12.345678] ",
        "[Sun Nov 22 17:30:44 2026] ",
        "[Sun Nov 22 17:30:44 2026] [    T123] ",
        "Nov 22 17:30:44 lab1 kernel: [   12.345678] ",
        "2026-11-22T17:30:44.123456+00:00 lab1 kernel: ",
        "6,1234,12345678,-;",
        "<6>",
        "(vm 3) console: ",
    ],
)
def test_log_prefix(prefix: str) -> None:
    rows = ["KTAP version 1", "1..1", "    1..2", "    ok 1 x", "    not ok 2 y", "not ok 1 s"]
    report = parse("".join(f"{prefix}{row}\n" for row in rows))
    assert outcomes(report) == {"s/x": "pass", "s/y": "fail"}
    assert report.problems == ()


YAML = "  ---\n  got: |\n    not ok 1 deep\n\n    ok 2 deeper\n  1..9\n  ...\n"


def test_the_yaml_behind_a_result_is_no_result() -> None:
    """TAP 13 and 14: indented, from "---" to "..."."""
    plain = "TAP version 14\n1..2\nok 1 a\n{}ok 2 b\n"
    hashed = "# 1..1\n# ok 1 x\n" + "".join(f"# {row}\n" for row in YAML.splitlines())
    assert parse(plain.format(YAML)) == parse(plain.format("\n" * YAML.count("\n")))
    assert outcomes(parse("1..1\n" + hashed + "ok 1 p\n")) == {"p/x": "pass"}


def test_yaml_without_an_end_swallows_no_result() -> None:
    cut = YAML.removesuffix("  ...\n")
    text = f"TAP version 14\n1..2\nok 1 a\n{cut}not ok 2 b\n# ---\nnot ok 3 c\n"
    assert outcomes(parse(text)) == {"a": "pass", "b": "fail", "c": "fail"}
    text = f"TAP version 14\n1..2\nok 1 a\n{cut}prose\n  1..1\n  not ok 1 x\nnot ok 2 b\n"
    assert outcomes(parse(text)) == {"a": "pass", "b/x": "fail"}


def test_totals_that_contradict_the_results_are_a_problem() -> None:
    good = HEAD + "1..1\nok 1 a\n# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0\n"
    assert parse(good).problems == ()
    assert "Totals contradict" in problems(parse(good.replace("pass:1 fail:0", "pass:0 fail:1")))


def test_nested_totals_are_checked_too() -> None:
    text = (
        "1..1\n# 1..1\n# ok 1 a\n# # Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0\nok 1 p\n"
    )
    assert "Totals contradict" in problems(parse(text))


def test_expectation_of_the_harness_is_the_reason() -> None:
    text = "1..1\n#  RUN  f.t ...\n# a.c:9:t:Expected 1 (1) == 0 (0)\nnot ok 1 f.t\n"
    assert parse(text).cases[0].reason == "Expected 1 (1) == 0 (0)"


def test_timeout_of_one_harness_test() -> None:
    text = "1..2\n# t: Test terminated by timeout\nnot ok 1 f.t\nnot ok 2 f.u\n"
    assert outcomes(parse(text)) == {"f.t": "timeout", "f.u": "fail"}


def test_nesting_beyond_the_limit_is_a_problem_and_loses_nothing() -> None:
    text = "".join(" " * depth + "ok 1 x\n" for depth in range(100, -1, -1))
    assert parse(text).cases
    text = "".join(" " * depth + "KTAP version 1\n" for depth in range(100))
    report = parse(text + " " * 100 + "not ok 1 deep\n")
    assert Outcome.FAIL in {case.outcome for case in report.cases}
    assert "nested deeper" in problems(report)


def test_json_is_json() -> None:
    report = parse(b"1..2\nok 1 \xff\xd7\nnot ok 2 b\x01 # \x1b[1mwhy\n")
    data = json.loads(json.dumps(to_json(report)))
    assert data["cases"][1] == {"id": ["b\ufffd"], "outcome": "fail", "reason": "why", "line": 3}
    assert data["problems"] == []


def test_lone_surrogates_do_not_reach_the_report() -> None:
    case = parse("1..1\nok 1 a\ud800\n").cases[0]
    assert case.id[0].encode("utf-8")


def test_a_torn_version_line_does_not_turn_not_into_a_prefix() -> None:
    report = parse("not KTAP version 1\n1..1\nnot ok 1 deep\n")
    assert outcomes(report) == {"deep": "fail"}
