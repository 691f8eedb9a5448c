# SPDX-License-Identifier: GPL-2.0-only
"""report.html: one file, no external resource; for a phone as for a desktop.

Its one script (templates/report.js) only filters and opens; the page's policy admits that script by
its hash and no other, so nothing that a log holds can ever run.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2

from harness.model.kernel import ConfigRow
from harness.model.results import (
    Change,
    Failure,
    KernelRecord,
    MachineRecord,
    Outcome,
    RunResult,
    SplatRecord,
    SubtestResult,
    TestResult,
)
from harness.report import atomic, consoles, events, history, matrix, page, summary, timeline
from harness.report.text import Excerpt, clean, clip, duration, plural, read_log

LOG_LIMIT = 64 * 1024  # bytes of one log
TOTAL_LIMIT = 3 * 1024 * 1024  # bytes of all logs in one report
_SUBTEST_LIMIT = 2000  # subtests listed per test
_TEST_LIMIT = 5000
_CHANGE_LIMIT = 300
_SCRIPT = "report.js"


@dataclass(frozen=True, slots=True)
class TestView:
    """A test with what the template needs beside it."""

    __test__ = False

    test: TestResult
    anchor: str
    cause: str
    bad_subtests: tuple[SubtestResult, ...]
    shown_subtests: tuple[SubtestResult, ...]
    hidden_subtests: int
    counts: str  # of subtests, "" without any
    splats: tuple[tuple[str, SplatRecord], ...]  # (anchor, record)
    log: Excerpt  # read for bad tests only
    console: str = ""  # anchor of its begin marker among the consoles


@dataclass(frozen=True, slots=True)
class FailureView:
    """A run-level failure."""

    failure: Failure
    anchor: str
    log: Excerpt
    console: str = ""  # anchor of the end of the console that it names


@dataclass(frozen=True, slots=True)
class KernelView:
    """A kernel with its configuration proof: broken options first, or the proof file's text."""

    kernel: KernelRecord
    rows: tuple[ConfigRow, ...]
    broken: int
    proof: Excerpt


@dataclass(frozen=True, slots=True)
class Chip:
    """One outcome with its number of tests and of leaf cases."""

    outcome: Outcome
    tests: int
    cases: int


class LogReader:
    """Reads logs below a run directory until the report is large enough."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._left = TOTAL_LIMIT

    def read(self, relative: str) -> Excerpt:
        """Head and tail of a log; a note instead when the report's budget is used up."""
        if not relative:
            return Excerpt("")
        if self._left <= 0:
            return Excerpt("", "not embedded: this report already holds enough logs")
        excerpt = read_log(self._run_dir, relative, LOG_LIMIT)
        self._left -= len(excerpt.text)
        return excerpt


def write(path: Path, result: RunResult, run_dir: Path) -> None:
    """Replace `path`. Logs are read from `run_dir`. Raises StorageError."""
    atomic.write_text(path, render(result, run_dir))


def prepare() -> None:
    """Compile the templates: it takes longer than writing the page of a small run."""
    environment = _template().environment
    for name in environment.list_templates(filter_func=_included):
        environment.get_template(name)


def _included(template: str) -> bool:
    return template.startswith("_") or template.endswith(".css")


def render(result: RunResult, run_dir: Path) -> str:
    """The page. Missing or unreadable logs show as a note, never as an error."""
    logs = LogReader(run_dir)
    splats = [(f"splat-{i}", record) for i, record in enumerate(result.splats, 1)]
    machine_consoles, console_notes = consoles.load(result, run_dir, [name for name, _ in splats])
    failures = [
        FailureView(
            failure,
            f"failure-{i}",
            logs.read("" if failure.excerpt else failure.log),
            _console_end(failure, machine_consoles),
        )
        for i, failure in enumerate(result.failures, 1)
    ]
    bad = [
        _test_view(test, f"bad-{i}", splats, logs, machine_consoles)
        for i, test in enumerate(summary.bad_tests(result), 1)
    ]
    groups = _groups(result)
    group_ids = {name: f"group-{i}" for i, name in enumerate(groups, 1)}
    log = events.merged(result, run_dir, machine_consoles, _anchors(splats, bad))
    changes = result.baseline.cases if result.baseline else ()
    return _template().render(
        run=result,
        sentence=summary.sentence(result),
        heading=summary.heading(result),
        banner=_banner(result),
        count_line=summary.count_line(result),
        chips=_chips(result),
        nothing_ran=summary.nothing_ran(result) or not result.tests,
        failures=failures,
        bad=bad,
        splats=splats,
        splat_lines={
            splat: f"{c.anchor}-{line}" for c in machine_consoles for line, splat in c.hot.items()
        },
        matrix=matrix.layout(result, _hrefs(group_ids, groups, bad)),
        changes=changes[:_CHANGE_LIMIT],
        hidden_changes=max(len(changes) - _CHANGE_LIMIT, 0),
        events=log,
        sources={name: number for number, name in enumerate(log.sources)},
        consoles=machine_consoles,
        console_notes=console_notes,
        kernels=[_kernel_view(kernel, logs) for kernel in result.kernels],
        machines=result.machines,
        groups=groups,
        group_ids=group_ids,
        hidden_tests=max(len(result.tests) - _TEST_LIMIT, 0),
        bars=timeline.layout(result),
        history=history.layout(result),
        plot_px=history.HEIGHT_PX,
        beside=[name for name in _BESIDE if (run_dir / name).is_file()],
        script=page.script(_SCRIPT),
        policy=policy(),
    )


def _hrefs(
    group_ids: Mapping[str, str], groups: Mapping[str, list[TestView]], bad: Sequence[TestView]
) -> dict[str, str]:
    """Where the glance leads: a bad test's card, else its line in the list, else its group."""
    listed = {view.test.key: view.anchor for views in groups.values() for view in views}
    return {**group_ids, **listed, **{view.test.key: view.anchor for view in bad}}


def _anchors(splats: Sequence[tuple[str, SplatRecord]], bad: Sequence[TestView]) -> events.Anchors:
    tests = {(v.test.key, v.test.attempt, v.test.started_s): f"#{v.anchor}" for v in bad}
    return events.Anchors(tests, tuple(name for name, _ in splats))


def policy() -> str:
    """The page's Content-Security-Policy."""
    return page.policy(_SCRIPT)


_BESIDE = (
    "result.json",
    "junit.xml",
    "summary.md",
    "kcidb.json",
    "reproduce.sh",
    "platform.jsonl",
)


def _banner(result: RunResult) -> str:
    """The CSS class of the verdict."""
    return {"PASS": "ok", "FAIL": "bad"}.get(summary.heading(result), "warn")


def _chips(result: RunResult) -> list[Chip]:
    """Every outcome that occurred; pass, fail, skip and missing also when they did not."""
    numbers = summary.tally(result)
    always = (Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.MISSING)
    return [
        Chip(outcome, numbers.tests[outcome], numbers.cases[outcome])
        for outcome in Outcome
        if outcome in always or numbers.tests[outcome] or numbers.cases[outcome]
    ]


def _test_view(
    test: TestResult,
    anchor: str,
    splats: Sequence[tuple[str, SplatRecord]],
    logs: LogReader | None,
    machine_consoles: Sequence[consoles.MachineConsole] = (),
) -> TestView:
    name = f"{test.collection}:{test.program}"
    shown = test.subtests[:_SUBTEST_LIMIT]
    return TestView(
        test=test,
        anchor=anchor,
        cause=summary.first_cause(test),
        bad_subtests=tuple(sub for sub in test.subtests if not sub.outcome.good)[:_SUBTEST_LIMIT],
        shown_subtests=shown,
        hidden_subtests=len(test.subtests) - len(shown),
        counts=_subtest_counts(test),
        splats=tuple((a, r) for a, r in splats if r.test == name and r.role in (test.role, "")),
        log=logs.read(test.log) if logs else Excerpt(""),
        console=_console_anchor(test, machine_consoles),
    )


def _console_anchor(test: TestResult, found: Sequence[consoles.MachineConsole]) -> str:
    """Where the test begins on its machine's console, "" when that line is not on the page."""
    for console in found:
        for window in console.windows:
            here = console.machine == test.machine and window.key == test.key
            if here and window.started_s >= test.started_s and window.first in console.shown:
                return f"{console.anchor}-{window.first}"
    return ""


def _console_end(failure: Failure, found: Sequence[consoles.MachineConsole]) -> str:
    """The last line on the page of the console that a failure names as its log."""
    for console in found:
        if failure.log == console.file and console.shown:
            return f"{console.anchor}-{max(console.shown)}"
    return ""


def _subtest_counts(test: TestResult) -> str:
    found = [sub.outcome for sub in test.subtests]
    return ", ".join(f"{found.count(o)} {o.value}" for o in Outcome if o in found)


def _groups(result: RunResult) -> dict[str, list[TestView]]:
    """role:collection -> its tests in order."""
    groups: dict[str, list[TestView]] = {}
    for index, test in enumerate(result.tests[:_TEST_LIMIT], 1):
        key = f"{test.role}:{test.collection}"
        groups.setdefault(key, []).append(_test_view(test, f"test-{index}", (), None))
    return groups


def _kernel_view(kernel: KernelRecord, logs: LogReader) -> KernelView:
    rows = tuple(sorted(kernel.config_rows, key=lambda row: row.ok))  # stable: broken first
    proof = Excerpt("") if rows else logs.read(kernel.config_proof)
    return KernelView(kernel, rows, sum(not row.ok for row in rows), proof)


def _href(relative: str) -> str:
    """A link to a file of the run directory, "" when the path leads elsewhere."""
    parts = relative.split("/")
    if not relative or relative.startswith("/") or ".." in parts or "\\" in relative:
        return ""
    return "./" + quote(relative, errors="replace")


_CHANGE_TONES = {
    Change.NEW_FAILURE: "bad",
    Change.MISSING: "warn",
    Change.FLAKY: "warn",
    Change.STILL_FAILING: "bad",
    Change.FIXED: "ok",
}


def _change_tone(change: Change) -> str:
    return _CHANGE_TONES.get(change, "skip")


def _machine_note(machine: MachineRecord) -> str:
    if not machine.boots:
        return "never booted"
    up = f"first up after {duration(machine.boot_s)}" if machine.boot_s else "never came up"
    return f"{plural(machine.boots, 'boot')}, {up}"


def _shell_words(argv: Sequence[str]) -> str:
    """An argument vector on several lines, an option per line, as a shell takes it."""
    plain = re.compile(r"[\w@%+=:,./-]+")
    words = [w if plain.fullmatch(w) else "'" + w.replace("'", "'\"'\"'") + "'" for w in argv]
    return re.sub(r" (?=-[a-zA-Z])", " \\\n  ", clean(" ".join(words)))


@functools.cache
def _template() -> jinja2.Template:
    filters: dict[str, Callable[..., object]] = {
        "change_tone": _change_tone,
        "clipped": lambda text: clip(clean(text), LOG_LIMIT).text,
        "href": _href,
        "machine_note": _machine_note,
        "shell_words": _shell_words,
    }
    return page.environment(filters).get_template("report.html.j2")
