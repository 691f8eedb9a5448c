# SPDX-License-Identifier: GPL-2.0-only
"""junit.xml: structure, nothing bad ever turns green, hostile text stays XML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import JUnitXml

from harness.model.results import Outcome, RunResult, SubtestResult, Verdict
from harness.report import junit
from tests.unit import report_eventful, report_samples

SAMPLES = report_samples.everything() | {
    "eventful": report_eventful.result(),
    "celled": report_eventful.celled(),
}


def written(result: RunResult, directory: Path) -> ElementTree.Element:
    report_samples.fill_run_dir(result, directory)
    path = directory / "junit.xml"
    junit.write(path, result)
    return ElementTree.parse(path).getroot()


def case(root: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    found = [c for c in root.iter("testcase") if c.get("classname") == classname]
    return next(c for c in found if c.get("name") == name)


def kinds(root: ElementTree.Element) -> dict[str, str]:
    """ "classname name" -> tag of the verdict element."""
    return {
        f"{c.get('classname')} {c.get('name')}": c[0].tag if len(c) else "passed"
        for c in root.iter("testcase")
    }


def test_subtests_are_cases(tmp_path: Path) -> None:
    root = written(SAMPLES["failing"], tmp_path)
    found = kinds(root)
    assert found["guest.tsm.dma_freeze freeze/refuses_lock"] == "passed"
    assert found["guest.tsm.dma_freeze freeze/unmap_after_accept"] == "failure"
    assert found["guest.tsm.dma_freeze freeze/race_map"] == "failure"
    assert found["guest.tsm.dma_freeze freeze/iova_link"] == "skipped"
    assert found["guest.tsm.race_lock race_lock"] == "failure"
    assert found["guest.tsm.p2p p2p"] == "skipped"
    assert found["guest.tsm.fault_inject fault_inject"] == "failure"
    assert found["guest.tsm.lab_ide lab_ide"] == "skipped"
    assert "guest.tsm.dma_freeze (whole test)" not in found


def test_a_failure_has_reason_splat_and_log(tmp_path: Path) -> None:
    root = written(SAMPLES["failing"], tmp_path)
    failure = case(root, "guest.tsm.dma_freeze", "freeze/unmap_after_accept")[0]
    assert failure.get("message") == "dma_freeze.c:88: expected -EBUSY (-16), got 0"
    assert failure.get("type") == "fail"
    assert "dma_trust_unmap+0x8c" in (failure.text or "")
    assert "# dma_freeze says hello" in (failure.text or "")
    later = case(root, "guest.tsm.dma_freeze", "freeze/race_map")[0]
    assert "log: ktap/guest/tsm/dma_freeze.log" in (later.text or "")
    assert "dma_trust_unmap" not in (later.text or "")


def test_counts_and_times(tmp_path: Path) -> None:
    result = SAMPLES["failing"]
    root = written(result, tmp_path)
    cases = list(root.iter("testcase"))
    assert int(root.get("tests", "")) == len(cases)
    assert int(root.get("failures", "")) == sum(c.find("failure") is not None for c in cases)
    assert int(root.get("skipped", "")) == 3
    suite = next(s for s in root.iter("testsuite") if s.get("name") == "guest:tsm")
    total = sum(test.duration_s for test in result.tests)
    assert float(suite.get("time", "")) == pytest.approx(total)
    assert sum(float(c.get("time", "0")) for c in cases) == pytest.approx(total, abs=0.1)


def test_a_crash_with_only_good_subtests_is_not_green(tmp_path: Path) -> None:
    test = report_samples.test_result("race", Outcome.CRASH, "the guest panicked")
    test = replace(test, subtests=(SubtestResult(("first",), Outcome.PASS, ""),))
    found = kinds(written(report_samples.run(Verdict.FAIL, (test,)), tmp_path))
    assert found == {
        "guest.tsm.race first": "passed",
        "guest.tsm.race (whole test)": "failure",
    }


def test_a_splat_during_a_passing_test_is_a_failure(tmp_path: Path) -> None:
    test = report_samples.test_result("dma_freeze", Outcome.PASS)
    result = replace(report_samples.run(Verdict.FAIL, (test,)), splats=(report_samples.SPLAT,))
    found = kinds(written(result, tmp_path))
    name = "guest.tsm.dma_freeze splat guest:1041: WARNING in dma_trust_unmap"
    assert found[name] == "failure"


def test_every_splat_shows_once(tmp_path: Path) -> None:
    between = replace(report_samples.SPLAT, test="")
    elsewhere = replace(report_samples.SPLAT, machine="host", role="host")
    result = replace(SAMPLES["failing"], splats=(report_samples.SPLAT, between, elsewhere))
    root = written(result, tmp_path)
    own = [c.get("name") for c in root.iter("testcase") if c.get("classname") == "harness"]
    assert own == [
        "splat guest:1041: WARNING in dma_trust_unmap",
        "splat host:1041: WARNING in dma_trust_unmap",
    ]


@pytest.mark.parametrize(
    ("sample", "name", "tag"),
    [
        ("patch_failure", "harness patch guest", "failure"),
        ("config_failure", "harness config guest", "failure"),
        ("boot_failure", "harness boot guest", "failure"),
        ("infra", "harness infra guest", "error"),
        ("infra", "guest.tsm.rebind rebind", "error"),
        ("all_skipped", "harness nothing tested", "skipped"),
    ],
)
def test_run_level_results(sample: str, name: str, tag: str, tmp_path: Path) -> None:
    assert kinds(written(SAMPLES[sample], tmp_path))[name] == tag


def test_patch_failure_says_how_to_repeat(tmp_path: Path) -> None:
    failure = case(written(SAMPLES["patch_failure"], tmp_path), "harness", "patch guest")[0]
    assert "hint: rebase the series" in (failure.text or "")
    assert "repeat by hand: git am" in (failure.text or "")
    assert "dma-iommu.c:812" in (failure.text or "")


@pytest.mark.parametrize("name", SAMPLES)
def test_junitparser_reads_it_back(name: str, tmp_path: Path) -> None:
    result = SAMPLES[name]
    report_samples.fill_run_dir(result, tmp_path)
    junit.write(tmp_path / "junit.xml", result)
    assert JUnitXml.fromfile(str(tmp_path / "junit.xml")).tests >= 0
    assert (tmp_path / "junit.xml").stat().st_size < 200_000


@pytest.mark.parametrize("name", SAMPLES)
def test_a_failed_run_is_never_green(name: str, tmp_path: Path) -> None:
    result = SAMPLES[name]
    root = written(result, tmp_path)
    bad = {tag for tag in kinds(root).values() if tag in ("failure", "error")}
    if result.verdict is Verdict.FAIL:
        assert "failure" in bad
    if result.verdict is Verdict.PASS:
        assert not bad


# What Jenkins' schema (junit-10.xsd) and GitLab's parser know; neither likes anything else.
ALLOWED = {
    "testsuites": {"name", "time", "tests", "failures", "errors", "skipped", "disabled"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message", "type"},
}
INSIDE = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped"},
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_form_is_that_of_gitlab_and_jenkins(name: str, tmp_path: Path) -> None:
    root = written(SAMPLES[name], tmp_path)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) <= ALLOWED[element.tag], element.attrib
        assert {child.tag for child in element} <= INSIDE.get(element.tag, set())
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("name")
        assert int(suite.get("tests", "")) == len(cases) > 0
        for verdict, count in (
            ("failure", "failures"),
            ("error", "errors"),
            ("skipped", "skipped"),
        ):
            assert int(suite.get(count, "")) == sum(c.find(verdict) is not None for c in cases)
        assert all(len(c) <= 1 for c in cases), "Jenkins counts a case once"
        assert all(float(c.get("time", "")) >= 0 for c in cases)
    # GitLab tells cases by these two, and shows one of those that have both in common.
    names = [(c.get("classname"), c.get("name")) for c in root.iter("testcase")]
    assert all(all(name) for name in names)
    assert len(names) == len(set(names))
    assert (tmp_path / "junit.xml").stat().st_size < 30_000_000


def test_two_failures_of_one_kind_are_two_cases(tmp_path: Path) -> None:
    run = SAMPLES["patch_failure"]
    twice = replace(run, failures=(*run.failures, *run.failures, *run.failures))
    names = [c.get("name") for c in written(twice, tmp_path).iter("testcase")]
    assert names == ["patch guest", "patch guest (2)", "patch guest (3)"]


def test_hostile_text_is_visible_not_active(tmp_path: Path) -> None:
    root = written(SAMPLES["hostile"], tmp_path)
    failure = next(c for c in root.iter("testcase") if "guest.tsm" in (c.get("classname") or ""))[0]
    assert "</script>" in (failure.text or "")
    assert "<U+0000>" in (failure.text or "")
    assert "<U+202E>txt.exe" in (failure.text or "")
    assert "TAIL" in (failure.text or "")
    raw = (tmp_path / "junit.xml").read_bytes()
    assert b"\x1b" not in raw
    assert b"\x00" not in raw


@pytest.mark.timeout(20)
def test_many_subtests_take_linear_time(tmp_path: Path) -> None:
    """Quadratic counting would take minutes."""
    subtests = tuple(SubtestResult((f"s{i}",), Outcome.PASS, "") for i in range(6000))
    test = replace(report_samples.test_result("x", Outcome.PASS), subtests=subtests)
    root = written(report_samples.run(Verdict.PASS, (test,)), tmp_path)
    assert root.get("tests") == "6000"


def test_both_attempts_of_a_flaky_test_are_named(tmp_path: Path) -> None:
    root = written(SAMPLES["eventful"], tmp_path)
    text = "".join(root.itertext())
    assert "attempt 1: fail on host: EBUSY (log: ktap/host/iommu/1.log)" in text
    assert "attempt 2: pass on host (log: ktap/host/iommu/2.log)" in text


def test_flaky_is_a_failure_unless_the_plan_forgives_it(tmp_path: Path) -> None:
    test = replace(report_samples.test_result("x", Outcome.FLAKY, "1 of 2"), subtests=())
    run = report_samples.run(Verdict.FAIL, (test,))
    assert kinds(written(run, tmp_path))["guest.tsm.x x"] == "failure"
    forgiven = replace(run, verdict=Verdict.PASS, flaky_passes=True)
    assert kinds(written(forgiven, tmp_path))["guest.tsm.x x"] == "passed"


def test_a_program_in_three_cells_is_three_classes(tmp_path: Path) -> None:
    found = kinds(written(SAMPLES["celled"], tmp_path))
    assert found["guest.tsm.dma_matrix@model-B dma_matrix"] == "failure"
    assert found["guest.tsm.dma_matrix@model-A model_a/map"] == "passed"
    assert list(found.values()).count("failure") == 1, "a control's own splat is no failure"
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    names = [(c.get("classname"), c.get("name")) for c in root.iter("testcase")]
    assert len(names) == len(set(names)), "GitLab keeps one of two cases with one name"


def test_a_forgiven_test_is_green_whatever_its_first_attempt_lacked(tmp_path: Path) -> None:
    """The first attempt broke off, so "#2" has no name; the second one says what it is called."""
    failing = SAMPLES["failing"]
    flaky = replace(
        failing.tests[0],
        outcome=Outcome.FLAKY,
        subtests=(
            SubtestResult(("a",), Outcome.PASS, ""),
            SubtestResult(("#2",), Outcome.MISSING, "planned, but no result line was seen"),
            SubtestResult(("b",), Outcome.PASS, ""),
        ),
    )
    result = replace(
        failing, tests=(flaky,), splats=(), failures=(), verdict=Verdict.PASS, flaky_passes=True
    )
    assert result.excuses(flaky)
    assert set(kinds(written(result, tmp_path)).values()) == {"passed"}
