# SPDX-License-Identifier: GPL-2.0-only
"""What the platform saw, in the verdict on a test.

A TLP that broke a rule without being announced fails the test during which it came; so does an
announced fault that did not happen: then the test did not do what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from harness.model.platform import (
    NOTHING_EXPECTED,
    Expectation,
    MissingFault,
    PlatformEvents,
    PlatformFault,
)
from harness.model.results import Outcome, SplatRecord


def judge_events(
    outcome: Outcome,
    reason: str,
    events: PlatformEvents,
    expected: Expectation = NOTHING_EXPECTED,
    splats: Sequence[SplatRecord] = (),
) -> tuple[Outcome, str]:
    """The outcome with what the platform has to say. A bad outcome stays, with more of a reason.

    events: with all faults, since what was cut cannot be told from what is expected.
    expected: what a negative control must show. It fails when some of that was not seen; `splats`
    are those of this test. A machine that was lost to the infrastructure shows nothing; one that
    crashed is not blamed for what its test did not get to.
    """
    if outcome is Outcome.INFRA:
        return outcome, reason
    if outcome is Outcome.CRASH:
        events = replace(events, missing=())
    said = complaints(events, expected)
    if outcome not in (Outcome.SKIP, Outcome.CRASH):
        said += not_seen(events, expected, splats)
    if not said:
        return outcome, reason
    text = "; ".join([*([reason] if reason and not outcome.good else []), *said])
    return (Outcome.FAIL if outcome.good else outcome), text


def complaints(events: PlatformEvents, expected: Expectation = NOTHING_EXPECTED) -> list[str]:
    """What the log has against a test, a sentence each."""
    bad = [f for f in events.faults if not f.announced and f.reason not in expected.faults]
    said = []
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        said.append(f"platform: a fault that nobody announced: {describe_fault(bad[0])}{more}")
    for one in events.missing:
        said.append(f"platform: an announced fault did not happen: {describe_missing(one)}")
    return said


def not_seen(
    events: PlatformEvents, expected: Expectation, splats: Sequence[SplatRecord]
) -> list[str]:
    """What a negative control should have shown and did not."""
    reasons = {fault.reason for fault in events.faults}
    kinds = {record.splat.kind for record in splats}
    said = [f"the plan expects a platform fault {r}" for r in expected.faults if r not in reasons]
    said += [f"the plan expects a kernel {kind}" for kind in expected.splats if kind not in kinds]
    return [f"{text}, and none was seen" for text in said]


def what_was_expected(
    events: PlatformEvents, expected: Expectation, splats: Sequence[SplatRecord]
) -> str:
    """One sentence on what a negative control showed, "" for an ordinary test."""
    words = [r.splat.title for r in splats if r.splat.kind in expected.splats]
    faults = Counter(f.reason for f in events.faults if f.reason in expected.faults)
    words += [f"{count} platform faults {reason}" for reason, count in faults.items()]
    return f"as the plan expects: {'; '.join(words)}" if words else ""


def describe_fault(fault: PlatformFault) -> str:
    """E.g. "private-page: T=0 write of 4096 bytes at IOVA 0x1000 by TDI 0 (04:00.0)"."""
    gpa = f" (GPA {fault.gpa})" if fault.gpa else ""
    return (
        f"{fault.reason}: T={int(fault.trusted)} {fault.direction} of {fault.length} bytes "
        f"at IOVA {fault.iova}{gpa} by TDI {fault.tdi} ({fault.bdf})"
    )


def describe_missing(missing: MissingFault) -> str:
    times = "once" if missing.count == 1 else f"{missing.count} times"
    return f"{missing.reason} of TDI {missing.tdi}, {times}"
