# SPDX-License-Identifier: GPL-2.0-only
"""What the platform saw, in the verdict on a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.core.oracle import judge_events, what_was_expected
from harness.core.verdict import verdict
from harness.model.platform import Expectation, MissingFault, PlatformEvents, PlatformFault
from harness.model.results import Outcome, Splat, SplatRecord, Verdict
from harness.stages.platform import events_of, listed
from tests.unit import report_samples

FAULT = PlatformFault(
    1.0, 0, "04:00.0", False, "0x1000", "0x1000", "write", 4096, "private-page", False
)
ANNOUNCED = replace(FAULT, announced=True)
MISSING = MissingFault(1, "tdi-state", 2)
SPLAT = SplatRecord("guest", "guest", "tsm:x", Splat("warn", "WARNING in f", "f", 1, 2), "", True)
CONTROL = Expectation(splats=("warn",), faults=("not-present",))
QUIET = PlatformEvents(tlps_ok=3)


def test_a_quiet_platform_changes_nothing() -> None:
    for outcome in Outcome:
        assert judge_events(outcome, "r", QUIET) == (outcome, "r")


def test_an_announced_fault_is_no_fault() -> None:
    events = PlatformEvents(tlps_blocked=1, faults=(ANNOUNCED,))
    assert judge_events(Outcome.PASS, "", events) == (Outcome.PASS, "")


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.SKIP, Outcome.XFAIL])
def test_an_unannounced_fault_fails_whatever_the_test_says(outcome: Outcome) -> None:
    events = PlatformEvents(unannounced=1, faults=(FAULT, ANNOUNCED))
    found, reason = judge_events(outcome, "fine", events)
    assert found is Outcome.FAIL
    assert reason == (
        "platform: a fault that nobody announced: private-page: T=0 write of 4096 bytes at IOVA "
        "0x1000 (GPA 0x1000) by TDI 0 (04:00.0)"
    )


def test_all_faults_count() -> None:
    events = PlatformEvents(unannounced=77, faults=(FAULT,) * 77)
    assert judge_events(Outcome.PASS, "", events)[1].endswith("and 76 more")


def test_an_announced_fault_that_did_not_happen_fails() -> None:
    found, reason = judge_events(Outcome.PASS, "", PlatformEvents(missing=(MISSING,)))
    assert found is Outcome.FAIL
    assert reason == "platform: an announced fault did not happen: tdi-state of TDI 1, 2 times"


def test_a_worse_outcome_stays_with_both_reasons() -> None:
    events = PlatformEvents(unannounced=1, faults=(FAULT,))
    found, reason = judge_events(Outcome.CRASH, "kernel panic", events)
    assert found is Outcome.CRASH
    assert reason.startswith("kernel panic; platform: a fault")


def test_a_lost_machine_says_nothing() -> None:
    events = PlatformEvents(unannounced=1, faults=(FAULT,))
    assert judge_events(Outcome.INFRA, "QEMU ended", events) == (Outcome.INFRA, "QEMU ended")


def test_a_negative_control_passes_when_it_shows_what_it_must() -> None:
    stale = replace(FAULT, reason="not-present")
    events = PlatformEvents(unannounced=1, faults=(stale,))
    assert judge_events(Outcome.PASS, "", events, CONTROL, [SPLAT]) == (Outcome.PASS, "")
    text = what_was_expected(events, CONTROL, [SPLAT])
    assert text == "as the plan expects: WARNING in f; 1 platform faults not-present"


def test_a_negative_control_that_shows_nothing_fails() -> None:
    found, reason = judge_events(Outcome.PASS, "", QUIET, CONTROL, [])
    assert found is Outcome.FAIL
    assert "expects a platform fault not-present, and none was seen" in reason
    assert "expects a kernel warn, and none was seen" in reason


def test_a_crash_is_not_blamed_for_what_it_did_not_get_to() -> None:
    events = PlatformEvents(missing=(MISSING,))
    found = judge_events(Outcome.CRASH, "kernel panic", events, CONTROL, [])
    assert found == (Outcome.CRASH, "kernel panic")


def test_a_negative_control_excuses_nothing_else() -> None:
    stale = replace(FAULT, reason="not-present")
    events = PlatformEvents(unannounced=2, faults=(stale, FAULT))
    found, reason = judge_events(Outcome.PASS, "", events, CONTROL, [SPLAT])
    assert found is Outcome.FAIL
    assert "private-page" in reason


def test_a_negative_control_may_show_a_flood() -> None:
    """Also of more faults than result.json lists."""
    stale = [tlp(verdict="blocked", reason="not-present") for _ in range(30)]
    events = events_of(stale)
    assert judge_events(Outcome.PASS, "", events, CONTROL, [SPLAT]) == (Outcome.PASS, "")
    assert (
        what_was_expected(events, CONTROL, [])
        == "as the plan expects: 30 platform faults not-present"
    )
    surprise = tlp(verdict="blocked", reason="private-page")
    found, reason = judge_events(Outcome.PASS, "", events_of([*stale, surprise]), CONTROL, [SPLAT])
    assert found is Outcome.FAIL
    assert "nobody announced: private-page: T=1 read" in reason
    assert "more" not in reason
    other = [tlp(verdict="blocked", reason="tdi-state") for _ in range(30)]
    both = Expectation(faults=("tdi-state", "not-present"))
    last = tlp(verdict="blocked", reason="not-present", announced=True)
    assert judge_events(Outcome.PASS, "", events_of([*other, last]), both) == (Outcome.PASS, "")


def test_a_negative_control_may_skip() -> None:
    assert judge_events(Outcome.SKIP, "no switch", QUIET, CONTROL) == (Outcome.SKIP, "no switch")


def test_an_expected_splat_fails_no_run() -> None:
    run = replace(report_samples.passing(), splats=(SPLAT,))
    assert verdict(run) is Verdict.PASS
    surprising = replace(SPLAT, expected=False)
    assert verdict(replace(run, splats=(SPLAT, surprising))) is Verdict.FAIL


def tlp(**changes: Any) -> dict[str, Any]:
    base = {
        "t": 1.5, "event": "tlp", "tdi": 0, "bdf": "04:00.0", "T": 1, "iova": "0x2000",
        "gpa": None, "dir": "read", "len": 8, "tlps": 2, "verdict": "ok", "reason": "none",
        "announced": False,
    }  # fmt: skip
    return {**base, **changes}


def test_records_become_events() -> None:
    move = {"t": 1.0, "event": "transition", "tdi": 0, "bdf": "04:00.0", "before": "UNLOCKED"}
    blocked = {"verdict": "blocked", "reason": "tdi-state"}
    records = [
        {**move, "after": "LOCKED", "cause": "lock"},
        {"t": 1.1, "event": "announce", "tdi": 0, "reason": "tdi-state", "count": 2},
        tlp(),
        tlp(**blocked, announced=True),
        tlp(**blocked, iova="0x3000"),
        {"t": 2.0, "event": "check", "label": "end", "unannounced": 1,
         "missing": [{"tdi": 0, "reason": "tdi-state", "count": 1}]},
    ]  # fmt: skip
    events = events_of(records)
    assert (events.tlps_ok, events.tlps_blocked, events.unannounced) == (2, 2, 1)
    assert [fault.iova for fault in events.faults] == ["0x3000", "0x2000"], "the bad one first"
    assert events.missing == (MissingFault(0, "tdi-state", 1),)
    assert [(one.before, one.after) for one in events.transitions] == [("UNLOCKED", "LOCKED")]


def test_a_flood_is_cut_and_counted() -> None:
    records = [tlp(verdict="blocked", reason="private-page") for _ in range(1000)]
    records.append(tlp(verdict="blocked", reason="tdi-state", announced=True))
    whole = events_of(records)
    assert (len(whole.faults), whole.dropped) == (1001, 0)
    events = listed(whole)
    assert (events.unannounced, events.tlps_blocked) == (1000, 1001)
    assert len(events.faults) == 25
    assert events.dropped == 976
