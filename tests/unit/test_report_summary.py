# SPDX-License-Identifier: GPL-2.0-only
"""The verdict sentence, and the short renderings for terminal and CI."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from harness.model.results import Outcome, StageRecord, SubtestResult, Verdict
from harness.report import markdown, summary, terminal
from tests.unit import report_samples

SAMPLES = report_samples.everything()

SENTENCES = {
    "passing": "PASS: 8 of 9 tests passed on the guest kernel; 1 skipped",
    "failing": "FAIL: 3 of 11 tests did not pass on the guest kernel "
    "(1 failed, 1 timed out, 1 gave no result); "
    "1 kernel splat (WARNING in dma_trust_unmap); 1 test and 1 subtest skipped; "
    "1 failed as expected",
    "patch_failure": "FAIL: guest kernel: patch: guest/viommu/0001 does not apply to 7.3.4: "
    "drivers/iommu/dma-iommu.c hunk 2 (line 812); no test ran",
    "config_failure": "FAIL: guest kernel: config: 1 requested option did not stick: TDISP_EMU; "
    "no test ran",
    "boot_failure": "FAIL: guest kernel: boot: guest: panic 4.1 s after the kernel banner; "
    "no test ran",
    "all_skipped": "NOTHING TESTED: all 8 tests were skipped (no TDISP-capable device)",
    "infra": "INFRA: no statement about the kernel: guest: QEMU ended with signal 9 after 31 s; "
    "1 of 2 tests ran",
    "partial": "UNFINISHED: still in stage build; no test ran",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence(name: str) -> None:
    assert summary.sentence(SAMPLES[name]) == SENTENCES[name]


def test_plain_failures_read_plainly() -> None:
    tests = (
        report_samples.test_result("a", Outcome.FAIL),
        report_samples.test_result("b", Outcome.PASS),
    )
    run = report_samples.run(Verdict.FAIL, tests)
    assert summary.sentence(run) == "FAIL: 1 of 2 tests failed on the guest kernel"
    both = report_samples.run(Verdict.FAIL, (tests[0], replace(tests[0], role="host")))
    assert summary.sentence(both) == "FAIL: 2 of 2 tests failed on the guest and host kernels"


def test_a_splat_alone_is_named() -> None:
    run = replace(SAMPLES["passing"], verdict=Verdict.FAIL, splats=(report_samples.SPLAT,) * 2)
    assert summary.sentence(run) == (
        "FAIL: 2 kernel splats (first: WARNING in dma_trust_unmap); 8 of 9 tests ran; 1 skipped"
    )


def test_a_skip_is_not_a_pass() -> None:
    skip = report_samples.test_result("a", Outcome.SKIP, "no device")
    assert summary.heading(report_samples.run(Verdict.PASS, (skip,))) == "NOTHING TESTED"
    assert summary.heading(report_samples.run(Verdict.PASS)) == "NOTHING TESTED"
    assert "the only test was skipped" in summary.sentence(
        report_samples.run(Verdict.PASS, (skip,))
    )


def test_skipped_subtests_are_counted() -> None:
    test = report_samples.test_result("a", Outcome.PASS)
    test = replace(test, subtests=(*test.subtests, SubtestResult(("x",), Outcome.SKIP, "no")))
    run = report_samples.run(Verdict.PASS, (test,))
    assert summary.sentence(run).endswith("; 1 subtest skipped")


def test_count_line_leaves_nothing_out() -> None:
    tests = tuple(report_samples.test_result(o.value, o) for o in Outcome)
    line = summary.count_line(report_samples.run(Verdict.FAIL, tests))
    for outcome in Outcome:
        assert f"1 {outcome.value}" in line


def test_worst_first() -> None:
    order = [test.outcome for test in summary.bad_tests(SAMPLES["failing"])]
    assert order == [Outcome.FAIL, Outcome.TIMEOUT, Outcome.MISSING]


@pytest.mark.parametrize("name", SAMPLES)
def test_terminal_is_short_and_plain(name: str) -> None:
    text = terminal.render(SAMPLES[name], {"report": "runs/x/report.html"})
    assert text.splitlines()[0] == summary.sentence(SAMPLES[name])
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 420
    assert all(c == "\n" or c.isprintable() for c in text)
    assert text.endswith("report: runs/x/report.html")


def test_terminal_names_failures_and_logs() -> None:
    text = terminal.render(SAMPLES["failing"])
    assert (
        "  FAIL guest:tsm:dma_freeze: freeze/unmap_after_accept: "
        "dma_freeze.c:88: expected -EBUSY (-16), got 0\n"
        "      log: ktap/guest/tsm/dma_freeze.log\n" in text
    )
    assert (
        "  SPLAT WARNING in dma_trust_unmap during tsm:dma_freeze (console of guest:1041)" in text
    )
    assert "11 tests: 6 pass, 1 fail, 1 skip, 1 xfail, 1 timeout, 1 missing;" in text
    assert "machines ran without KVM: /dev/kvm: no such device" in text


def test_terminal_with_many_failures_is_still_short() -> None:
    tests = tuple(report_samples.test_result(f"t{i}", Outcome.FAIL, "no") for i in range(500))
    run = replace(
        report_samples.run(Verdict.FAIL, tests),
        splats=(report_samples.SPLAT,) * 50,
        failures=SAMPLES["patch_failure"].failures * 50,
    )
    text = terminal.render(run)
    assert len(text.splitlines()) <= 32
    assert "... and 495 more tests" in text
    assert "... and 47 more splats" in text


@pytest.mark.parametrize("name", SAMPLES)
def test_markdown_starts_with_the_verdict(name: str) -> None:
    text = markdown.render(SAMPLES[name])
    assert text.startswith(f"## {summary.heading(SAMPLES[name])}: ")
    assert len(text) < 64_000


def test_markdown_says_when_nothing_was_tested() -> None:
    assert "**Nothing was tested:**" in markdown.render(SAMPLES["all_skipped"])


def test_markdown_of_hostile_text_is_inert() -> None:
    html = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(markdown.render(SAMPLES["hostile"]))
    )
    assert "<script" not in html
    assert "<a " not in html
    assert "<strong>b</strong>" not in html
    assert "@all" not in html.replace("<pre>", "\0").split("\0")[0]
    assert html.count("<table>") == 2


def test_unfinished_wins_over_the_provisional_verdict() -> None:
    run = replace(SAMPLES["passing"], stages=(StageRecord("kselftest", 1.0, 2.0, "running"),))
    assert summary.sentence(run) == "UNFINISHED: still in stage kselftest; 8 of 9 tests ran"
