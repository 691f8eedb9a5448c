# SPDX-License-Identifier: GPL-2.0-only
"""The merged timeline and what it is made from: consoles, their clocks, the platform's log."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.results import Outcome, RunResult
from harness.report import (
    clock,
    console,
    consoles,
    events,
    history,
    html,
    matrix,
    platform_events,
)
from tests.unit import report_eventful, report_samples

RUN = report_eventful.result()


def loaded(directory: Path, run: RunResult = RUN) -> tuple[consoles.MachineConsole, ...]:
    found, _ = consoles.load(run, directory, [f"splat-{i}" for i, _ in enumerate(run.splats, 1)])
    return found


def log(directory: Path, run: RunResult = RUN) -> events.EventLog:
    names = tuple(f"splat-{i}" for i, _ in enumerate(run.splats, 1))
    return events.merged(run, directory, loaded(directory, run), events.Anchors({}, names))


def written(directory: Path, text: str | bytes) -> console.Scan:
    path = directory / "console.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return console.scan(path)


# console


@pytest.mark.parametrize(
    ("data", "lines"), [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\nb", 2), (b"a\r\n\x00\xff\n", 2)]
)
def test_lines_are_counted_as_editors_do(tmp_path: Path, data: bytes, lines: int) -> None:
    known = written(tmp_path, data)
    assert known.lines == lines
    assert len(console.read_lines(known, 1, 10)) == lines


def test_any_line_of_a_long_console_is_found(tmp_path: Path) -> None:
    known = written(tmp_path, "".join(f"line {i}\n" for i in range(1, 3001)))
    for first in (1, 499, 500, 501, 1000, 1001, 2999, 3000):
        found = console.read_lines(known, first, first + 1)
        assert found[0].text == f"line {first}"
        assert found[0].number == first
    assert console.read_lines(known, 3001, 3005) == ()


def test_one_endless_line_is_cut(tmp_path: Path) -> None:
    known = written(tmp_path, b"x" * 1_000_000 + b"\nend\n")
    assert known.lines == 2
    first, second = console.read_lines(known, 1, 2)
    assert len(first.text) == console.LINE_LIMIT
    assert second.text == "end"


def test_marks_are_boots_and_markers_only(tmp_path: Path) -> None:
    known = written(
        tmp_path,
        "[    0.000000] Linux version 7.3.4 (x)\n"
        "[    1.0] systemd says Linux version 7\n"
        "[    2.500000] tdisp-harness: begin guest:tsm:uapi 12 0123456789ab\n"
        "tdisp-harness: begin guest:tsm:uapi twelve 0123456789ab\n"
        "[    3.500000][    T1] tdisp-harness: end guest:tsm:uapi 12 0123456789ab\n"
        "[    0.000000][    T0] Linux version 7.3.4 (x)\n",
    )
    assert [(m.line, m.kind, m.key, m.stamp) for m in known.marks] == [
        (1, "boot", "", 0.0),
        (3, "begin", "guest:tsm:uapi", 2.5),
        (5, "end", "guest:tsm:uapi", 3.5),
        (6, "boot", "", 0.0),
    ]


def test_chunks_keep_the_wanted_lines_and_tell_the_gaps(tmp_path: Path) -> None:
    known = written(tmp_path, "".join(f"line {i}\n" for i in range(1, 3001)))
    found = console.chunks(known, [(2000, 2003), (10, 12), (11, 13)], 10_000)
    assert [(c.left_out, c.lines[0].number, c.lines[-1].number) for c in found] == [
        (9, 10, 13),
        (1986, 2000, 2003),
    ]
    small = console.chunks(known, [(2000, 2003), (10, 12)], 3 * 33)
    assert [line.number for c in small for line in c.lines] == [2000, 2001, 2002]


def test_a_console_outside_the_run_directory_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", "link", "", "nul\0", str(tmp_path / "secret"), "none"):
        assert console.find(run_dir, name) is None


# clock


def test_markers_tie_a_console_to_the_runs_clock(tmp_path: Path) -> None:
    report_eventful.fill_run_dir(RUN, tmp_path)
    guest = loaded(tmp_path)[1]
    assert [boot.exact for boot in guest.boots] == [True]
    assert guest.boots[0].zero_s == pytest.approx(report_eventful.BOOT_S)
    keys = [window.key for window in guest.windows]
    assert "guest:tsm:dma_freeze" in keys
    assert "guest:tsm:fault_inject" not in keys, "it never ran"


def test_both_attempts_have_their_window(tmp_path: Path) -> None:
    report_eventful.fill_run_dir(RUN, tmp_path)
    host = loaded(tmp_path)[0]
    assert [(w.key, w.good, w.started_s) for w in host.windows] == [
        ("host:iommu:host_bind", False, 540.0),
        ("host:iommu:host_bind", True, 542.0),
    ]


def test_a_boot_without_markers_is_an_estimate(tmp_path: Path) -> None:
    text = report_eventful.console(RUN, "guest") + "[    0.000000] Linux version 7.3.4 again\n"
    known = written(tmp_path, text)
    windows = clock.windows(known, [test for test in RUN.tests if test.role == "guest"])
    first, second = clock.boots(known, windows, 0.0)
    assert (first.exact, second.exact) == (True, False)
    assert second.zero_s == pytest.approx(max(w.ended_s for w in windows))


def test_a_forged_marker_moves_nothing(tmp_path: Path) -> None:
    """A test that prints the begin marker of another one that runs later."""
    forged = "[    1.000000] tdisp-harness: begin guest:tsm:uapi 1 0123456789ab\n"
    known = written(tmp_path, report_eventful.console(RUN, "guest") + forged)
    tests = [test for test in RUN.tests if test.role == "guest"]
    assert [w.key for w in clock.windows(known, tests)].count("guest:tsm:uapi") == 1


# platform


def test_platform_events_become_rows(tmp_path: Path) -> None:
    path = tmp_path / "platform.jsonl"
    path.write_text(report_eventful.platform(RUN))
    found = platform_events.read(path)
    texts = [event.text for event in found.events]
    assert any(text.startswith("800 TLPs like this: TDI 0 T=1 write") for text in texts)
    assert [e.tone for e in found.events if "BLOCKED" in e.text] == ["warn", "bad"]
    assert found.note == "platform.jsonl: 1 line cannot be read"


def test_a_flood_of_events_keeps_the_faults(tmp_path: Path) -> None:
    path = tmp_path / "platform.jsonl"
    irq = json.dumps({"t": 1.0, "event": "irq", "function": "tdi0"}) + "\n"
    fault = json.dumps({"t": 2.0, "event": "tlp", "verdict": "blocked", "reason": "x"}) + "\n"
    path.write_text(irq * (platform_events.EVENT_LIMIT + 500) + fault)
    found = platform_events.read(path)
    assert "BLOCKED" in found.events[-1].text
    assert found.note == "platform.jsonl: 500 events left out"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\n",
        b"[]\n1\nnull\n",
        b'{"t": "x", "event": "tlp"}\n',
        b'{"t": 1e999, "event": "tlp", "verdict": "ok", "tlps": "x"}\n',
        b'{"t": 1, "event": "check", "missing": 3}\n{"t"',
        b"[" * 200_000,
    ],
)
def test_a_broken_platform_log_is_a_note(tmp_path: Path, data: bytes) -> None:
    report_eventful.fill_run_dir(RUN, tmp_path)
    (tmp_path / "platform.jsonl").write_bytes(data)
    assert any(note.startswith("platform.jsonl: ") for note in log(tmp_path).notes)


# merged


def test_rows_of_all_sources_are_in_order(tmp_path: Path) -> None:
    report_eventful.fill_run_dir(RUN, tmp_path)
    found = log(tmp_path)
    assert found.sources == ("controller", "tests", "host", "guest", "platform")
    assert [row.at_s for row in found.rows] == sorted(row.at_s for row in found.rows)
    freeze = next(t for t in RUN.tests if t.test == "dma_freeze")
    splat = next(row for row in found.rows if row.text.startswith("splat: "))
    assert freeze.started_s <= splat.at_s <= freeze.started_s + freeze.duration_s
    assert (splat.source, splat.href, splat.exact) == ("guest", "#splat-1", True)


def test_times_are_readable() -> None:
    assert events.Row(62.3456, "x", "").stamp == "1:02.346"
    assert events.Row(-1.5, "x", "", exact=False).stamp == "~-0:01.500"


def test_lines_that_are_left_out_are_told(tmp_path: Path) -> None:
    report_eventful.fill_run_dir(RUN, tmp_path)
    with (tmp_path / "console-guest.log").open("a") as stream:
        stream.writelines(f"[  900.000000] flood {i}\n" for i in range(20_000))
    found = log(tmp_path)
    assert len(found.rows) < events.ROW_LIMIT + 100
    gaps = [row.text for row in found.rows if row.tone == "gap"]
    assert any("console-guest.log" in text for text in gaps)


@pytest.mark.parametrize("name", report_samples.everything())
def test_nothing_at_all_is_fine(name: str, tmp_path: Path) -> None:
    found = log(tmp_path, report_samples.everything()[name])
    assert {row.source for row in found.rows} <= set(found.sources)


TOKENS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\n",
            b"\r\n",
            b"[    0.000000] Linux version 7.3.4\n",
            b"[   61.5] tdisp-harness: begin guest:tsm:uapi 1 0123456789ab\n",
            b"[   62.5] tdisp-harness: end guest:tsm:uapi 1 0123456789ab\n",
            b"[99999999999999999999.0] x\n",
            b"[   -1.0] x\n",
            b'{"t": 1785579784, "event": "tlp", "verdict": "ok", "tlps": 3}\n',
            b'{"t": -1e308, "event": "check", "missing": {}}\n',
            b'{"t": 1785579784, "event": "tlp", "verdict": "ok", "tlps": [1]}\n',
        ]
    ),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, max_size=30).map(b"".join), st.lists(TOKENS, max_size=30).map(b"".join))
def test_any_console_and_any_platform_log_make_a_page(guest: bytes, platform: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "console-guest.log").write_bytes(guest)
        (directory / "platform.jsonl").write_bytes(platform)
        page = html.render(report_eventful.celled(), directory)
    assert "1 of 9 tests failed" in page
    assert page.rstrip().endswith("</html>")


# matrix and history


def test_matrix_shows_roles_and_the_worst_outcome() -> None:
    found = matrix.layout(RUN, {"guest:tsm": "group-1", "guest:tsm:uapi": "test-1"})
    assert found.columns == ("host", "guest")
    rows = dict(found.rows)
    assert rows["tsm"][0] is None
    guest = rows["tsm"][1]
    assert guest is not None
    assert (guest.text, guest.tone, guest.href) == ("6/11", "bad", "group-1")
    assert "1 timed out" in guest.title


def test_matrix_of_cells_has_a_row_per_test() -> None:
    run = report_eventful.celled()
    bad = "guest:tsm:dma_matrix@model-B"
    found = matrix.layout(run, {bad: "bad-1", "guest:tsm": "group-1"})
    assert found.columns == ("model-A", "model-B", "model-N+vtom-0x800000000000")
    assert [name for name, _ in found.rows] == [
        "guest:tsm:dma_matrix",
        "guest:tsm:dma_freeze",
        "guest:tsm:uapi",
    ]
    fields = found.rows[0][1]
    assert [field and field.tone for field in fields] == ["ok", "bad", "ok"]
    assert [field and field.href for field in fields] == ["group-1", "bad-1", "group-1"]


def test_a_test_without_a_platform_has_a_column_of_its_own() -> None:
    run = report_eventful.celled()
    run = replace(run, tests=(*run.tests, report_samples.test_result("host_only", Outcome.PASS)))
    found = matrix.layout(run, {})
    assert found.columns[-1] == matrix.NO_CELL
    assert dict(found.rows)["guest:tsm:host_only"][:3] == (None, None, None)


def test_skips_do_not_make_a_field_green() -> None:
    assert matrix.worst([Outcome.SKIP, Outcome.PASS]) is Outcome.PASS
    assert matrix.worst([Outcome.SKIP]) is Outcome.SKIP
    assert set(matrix._WORST) == set(Outcome)


def test_history_plots_lie_within_their_drawing() -> None:
    found = history.layout(RUN)
    assert found.plots[0].slower
    for plot in found.plots:
        assert len(plot.segments) == len(plot.dots) - 1
        assert all(0 <= dot.x <= 100 and 0 <= dot.y_px <= history.HEIGHT_PX for dot in plot.dots)


def test_a_test_seen_once_has_no_plot() -> None:
    once = replace(RUN.history[0], points=RUN.history[0].points[:1])
    assert history.layout(replace(RUN, history=(once,))).plots == ()
