# SPDX-License-Identifier: GPL-2.0-only
"""report.html: what it shows, in which order, and that nothing in a log becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.model.results import (
    KernelRecord,
    MachineRecord,
    Outcome,
    RunResult,
    StageRecord,
    SubtestResult,
    Verdict,
)
from harness.report import html, summary, timeline
from tests.unit import report_eventful, report_samples

SAMPLES = report_samples.everything() | {
    "eventful": report_eventful.result(),
    "celled": report_eventful.celled(),
}
VOID = {"meta", "br", "wbr", "rect", "input", "circle", "line"}


class Page(HTMLParser):
    """Collects what the tests ask for and checks that every tag is closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        assert not {"src", "style", "srcset", "action"} & set(values)
        if values.get("id"):
            self.ids.append(values["id"] or "")
        if "href" in values:
            self.links.append(values["href"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title", "script"):
            self.text += data


def rendered(result: RunResult, directory: Path) -> str:
    filled = report_eventful if result is SAMPLES["eventful"] else report_samples
    filled.fill_run_dir(result, directory)
    return html.render(result, directory)


@pytest.mark.parametrize("name", SAMPLES)
def test_well_formed_and_self_contained(name: str, tmp_path: Path) -> None:
    source = rendered(SAMPLES[name], tmp_path)
    page = Page(source)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"img", "link", "iframe", "object", "base"}
    assert not re.search(r"@import|url\(", source)
    for link in page.links:
        assert link.startswith(("#", "./")), link
        if link.startswith("#"):
            assert link[1:] in page.ids, link


@pytest.mark.parametrize("name", SAMPLES)
def test_verdict_comes_first(name: str, tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES[name], tmp_path))
    assert page.text.strip().startswith(summary.sentence(SAMPLES[name]))


def test_order_of_the_sections(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["failing"], tmp_path))
    wanted = ["matrix", "bad-1", "splats", "timeline", "consoles", "kernels", "durations"]
    wanted += ["machines", "tests", "again"]
    assert [anchor for anchor in page.ids if anchor in wanted] == wanted


def test_failures_show_reason_subtests_and_log(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["failing"], tmp_path))
    failures = page.text[page.text.index("2 of 4 subtests failed") : page.text.index("Raw text")]
    assert "freeze/unmap_after_accept" in failures
    assert "expected -EBUSY (-16), got 0" in failures
    assert "freeze/race_map" in failures
    assert "freeze/refuses_lock" not in failures
    assert "# dma_freeze says hello" in failures
    assert "no output for 45 s" in failures
    assert "#splat-1" in page.links
    assert "dma_trust_unmap+0x8c/0xd0" in page.text


def test_passing_logs_are_linked_not_embedded(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["failing"], tmp_path))
    assert "uapi says hello" not in page.text
    assert "./ktap/guest/tsm/uapi.log" in page.links


def test_environment_and_kernels(tmp_path: Path) -> None:
    text = Page(rendered(SAMPLES["failing"], tmp_path)).text
    for needed in (
        "/dev/kvm: no such device",
        report_samples.BASE_ID,
        "c0ffee00112233445566778899aabbccddeeff00",
        "gcc (Debian 12.2.0-14+deb12u1)",
        "PCI/TSM: refuse lock while a driver is bound",
        "unused variable 'epoch'",
        "CONFIG_DMA_API_DEBUG",
        "-k 'tsm and not race'",
        "-append 'console=ttyS0 quiet'",
    ):
        assert needed in text


def test_a_broken_option_is_shown_first(tmp_path: Path) -> None:
    text = Page(rendered(SAMPLES["config_failure"], tmp_path)).text
    assert "1 did not stick" in text
    assert text.index("CONFIG_TDISP_EMU") < text.index("CONFIG_PCI_TSM")
    assert "depends on PCI_TSM [=n]" in text


def test_a_proof_file_stands_in_for_rows(tmp_path: Path) -> None:
    kernel: KernelRecord = replace(report_samples.kernel(), config_rows=())
    text = Page(rendered(replace(SAMPLES["passing"], kernels=(kernel,)), tmp_path)).text
    assert "CONFIG_PCI_TSM requested y got y" in text


def test_all_skipped_says_so(tmp_path: Path) -> None:
    source = rendered(SAMPLES["all_skipped"], tmp_path)
    assert "Nothing was tested: not one of 8 tests gave an answer" in Page(source).text
    assert '<header class="banner warn">' in source


def test_missing_and_skip_are_counted_even_at_zero(tmp_path: Path) -> None:
    source = rendered(report_samples.run(Verdict.PASS), tmp_path)
    for outcome in ("pass", "fail", "skip", "missing"):
        assert f"<b>0</b>{outcome}" in source


def test_hostile_text_is_text(tmp_path: Path) -> None:
    source = rendered(SAMPLES["hostile"], tmp_path)
    page = Page(source)
    assert "<script>alert(1)</script>" in page.text
    assert len(re.findall("<script", source)) == 1
    for bad in ("\x00", "\x1b", "\u202e", "\u200f", "\ud800"):
        assert bad not in source
    assert "<U+202E>txt.exe" in page.text
    source.encode("utf-8")


def test_only_our_script_may_run(tmp_path: Path) -> None:
    """The policy names the script by the hash of the very text between its tags."""
    source = rendered(SAMPLES["hostile"], tmp_path)
    scripts = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in unescape(policy[1]).split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{digest}'"


def test_a_large_log_is_cut_with_a_note(tmp_path: Path) -> None:
    source = rendered(SAMPLES["hostile"], tmp_path)
    text = Page(source).text
    assert "HEAD\n" in text
    assert "TAIL\n" in text
    assert "bytes left out in the middle" in text
    assert len(source) < 500_000


def test_a_log_outside_the_run_directory_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    test = replace(report_samples.test_result("x", Outcome.FAIL), log="../secret")
    source = html.render(report_samples.run(Verdict.FAIL, (test,)), run_dir)
    assert "the secret" not in source
    assert "the log lies outside the run directory" in source
    assert "../secret" not in Page(source).links


def test_many_failures_stay_bounded(tmp_path: Path) -> None:
    (tmp_path / "big.log").write_bytes(b"0123456789abcde\n" * 20_000)
    test = replace(report_samples.test_result("x", Outcome.FAIL, "no"), log="big.log")
    source = html.render(report_samples.run(Verdict.FAIL, (test,) * 300), tmp_path)
    assert len(source) < html.TOTAL_LIMIT + 1_500_000
    assert "not embedded: this report already holds enough logs" in source


def test_many_bad_subtests_do_not_hide_what_comes_after(tmp_path: Path) -> None:
    subtests = tuple(SubtestResult((f"s{i}",), Outcome.FAIL, "no") for i in range(75))
    test = replace(report_samples.test_result("x", Outcome.FAIL), subtests=subtests)
    source = rendered(report_samples.run(Verdict.FAIL, (test,)), tmp_path)
    card = source[source.index('id="bad-1"') : source.index("</section>")]
    seen, _, folded = card.partition("<summary>65 more subtests</summary>")
    assert "s9</code>" in seen and "s10</code>" not in seen
    assert "s10</code>" in folded and "s74</code>" in folded


def test_the_command_is_one_that_can_be_repeated(tmp_path: Path) -> None:
    text = Page(rendered(SAMPLES["failing"], tmp_path)).text
    assert "The original command:\n\ntdisp-harness run smoke" in text


def test_many_subtests_are_capped_with_a_note(tmp_path: Path) -> None:
    subtests = tuple(SubtestResult((f"s{i}",), Outcome.PASS, "") for i in range(2500))
    test = replace(report_samples.test_result("x", Outcome.PASS), subtests=subtests)
    text = Page(rendered(report_samples.run(Verdict.PASS, (test,)), tmp_path)).text
    assert "and 500 more, see result.json" in text
    assert "2500 pass" in text


def test_missing_logs_are_a_note(tmp_path: Path) -> None:
    text = Page(html.render(SAMPLES["failing"], tmp_path)).text
    assert "cannot read the log: No such file or directory" in text


def test_an_eventful_run_shows_everything(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["eventful"], tmp_path))
    for needed in (
        "1 known failure has expired",
        "Since 20260731T101500Z-smoke",
        "NEW FAILURE",
        "freeze/unmap_after_accept",
        "since 20260728T101500Z-smoke",
        "Slower than before",
        "6 runs, 0.0 s to 7.5 s, 1 of them not good",
        "BLOCKED: not-present (NOT announced)",
        "TDI 0: UNLOCKED → LOCKED (lock)",
        "1 line cannot be read",
    ):
        assert needed in page.text, needed
    assert "./ktap/host/iommu/1.log" in page.links, "both attempts keep their logs"


def test_cells_of_the_platform(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["celled"], tmp_path))
    assert "dma_matrix@model-B" in page.text
    assert "1 blocked TLP, 1 unannounced fault" in page.text
    assert "TDI 0 (00:04.0) T=1 write of 64 bytes at 0x1000: not-present NOT ANNOUNCED" in page.text
    assert "WARN, EXPECTED" in page.text, "a negative control's splat is no failure"
    assert "#bad-1" in page.links


def test_a_failure_leads_to_its_line_on_the_console(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["eventful"], tmp_path))
    line = f"c2-{report_eventful.SPLAT_LINE}"
    assert line in page.ids
    assert page.links.count(f"#{line}") >= 3  # from the test, the splat and the console's head
    begin = report_eventful.console(SAMPLES["eventful"], "guest").splitlines()
    number = next(i for i, text in enumerate(begin, 1) if "begin guest:tsm:dma_freeze" in text)
    assert f"#c2-{number}" in page.links


def test_a_boot_failure_leads_to_the_end_of_the_console(tmp_path: Path) -> None:
    page = Page(rendered(SAMPLES["boot_failure"], tmp_path))
    assert "#c1-200" in page.links
    assert "c1-200" in page.ids


def test_a_huge_console_makes_no_huge_page(tmp_path: Path) -> None:
    result = SAMPLES["eventful"]
    report_eventful.fill_run_dir(result, tmp_path)
    path = tmp_path / "console-guest.log"
    with path.open("ab") as stream:
        for _ in range(8):
            stream.write(b"[  999.000000] a line of a flood \xff\x00\x1b[1m\n" * 25_000)
    source = html.render(result, tmp_path)
    assert len(source) < 2_500_000
    page = Page(source)
    assert re.search(r"[\d,]+ lines left out: all are in the file", page.text)
    assert re.search(r"lines not shown here: console-guest\.log, \d+ to \d+", page.text)
    assert f"c2-{report_eventful.SPLAT_LINE}" in page.ids, "the splat is shown whatever else goes"


def test_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    html.write(path, SAMPLES["passing"], tmp_path)
    assert path.read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_machine_that_never_booted(tmp_path: Path) -> None:
    record = MachineRecord("spr1", "host", "lab", "none", "", end="never-booted")
    text = Page(html.render(replace(SAMPLES["infra"], machines=(record,)), tmp_path)).text
    assert "never booted" in text
    tried = replace(record, boots=2, boot_s=0.0)
    text = Page(html.render(replace(SAMPLES["infra"], machines=(tried,)), tmp_path)).text
    assert "2 boots, never came up" in text


def test_timeline_lies_within_its_width() -> None:
    for result in SAMPLES.values():
        drawn = timeline.layout(result)
        assert len(drawn.bars) >= len(result.stages)
        for bar in drawn.bars:
            assert bar.left >= 0
            assert bar.width > 0
            assert bar.left + bar.width <= 100.01


def test_timeline_proportions() -> None:
    stages = (StageRecord("a", 0, 25, "ok"), StageRecord("b", 25, 100, "failed"))
    drawn = timeline.layout(replace(SAMPLES["passing"], stages=stages, tests=(), duration_s=100))
    assert [(b.left, b.width, b.tone) for b in drawn.bars] == [(0, 25, "ok"), (25, 75, "bad")]


def test_timeline_of_many_tests_keeps_the_bad_ones() -> None:
    tests = [
        replace(report_samples.test_result(f"t{i}", Outcome.PASS, index=i)) for i in range(200)
    ]
    tests.append(replace(report_samples.test_result("short", Outcome.FAIL), duration_s=0.1))
    drawn = timeline.layout(report_samples.run(Verdict.FAIL, tuple(tests)))
    assert any("short" in bar.label for bar in drawn.bars)
    assert drawn.note.startswith("141 shorter tests")


def test_timeline_of_nothing() -> None:
    empty = replace(report_samples.run(Verdict.INFRA), stages=(), duration_s=0.0)
    assert timeline.layout(empty).bars == ()


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_enough_contrast(tmp_path: Path) -> None:
    """WCAG 2.1 AA, 4.5:1, for text on its ground, light and dark."""
    style = html.render(SAMPLES["passing"], tmp_path)
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        pairs = [(ink, ground) for ink in ("text", "soft", "link") for ground in ("page", "card")]
        pairs += [("on", tone) for tone in ("ok", "bad", "warn", "skip", "cached", "run")]
        pairs += [(tone, "pre") for tone in ("ok", "bad", "warn", "run")] + [("soft", "pre")]
        pairs += [(tone, "card") for tone in ("ok", "bad", "warn", "skip")] + [("text", "pre")]
        for first, second in pairs:
            high, low = sorted((luminance(colours[first]), luminance(colours[second])))[::-1]
            assert (high + 0.05) / (low + 0.05) >= 4.5, (first, second)


def test_decoded_traces_and_last_lines_are_on_the_page(tmp_path: Path) -> None:
    sample = report_samples.everything()["failing"]
    splat = replace(sample.splats[0], decoded=("f+0x1/0x2 (drivers/x.c:<7>)",))
    bad = replace(sample.tests[-1], outcome=Outcome.CRASH, last_lines=("the </end>",))
    page = html.render(replace(sample, splats=(splat,), tests=(bad,)), tmp_path)
    assert "f+0x1/0x2 (drivers/x.c:&lt;7&gt;)" in page
    assert "the &lt;/end&gt;" in page


def test_notes_of_the_plan_are_on_the_page_in_full(tmp_path: Path) -> None:
    sentence = "What is seen here is <expected>. " * 8
    run = replace(report_samples.passing(), notes=(sentence, "another"))
    page = html.render(run, tmp_path)
    assert sentence.replace("<", "&lt;").replace(">", "&gt;").strip() in page
    assert '<p role="note">another</p>' in page
