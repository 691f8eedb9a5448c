# SPDX-License-Identifier: GPL-2.0-only
"""How many splats are recorded, which, and that a storm of them is neither lost nor told twice."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.splat import find_splats, load_rules
from harness.core.splat_records import MAX_RECORDS, not_recorded, records
from harness.core.verdict import verdict
from harness.model.results import Outcome, Splat, SplatRecord, Verdict
from tests.unit.test_verdict import ran

ROOT = Path(__file__).parents[2]
RULES = load_rules((ROOT / "configs" / "splat_rules.toml").read_text(encoding="utf-8"))
OOPS = (Path(__file__).parent / "data" / "splat" / "null-write.log").read_bytes()
KASAN = b"[    1.000000] BUG: KASAN: use-after-free in %s+0x1/0x2\n"
GUEST = ("guest", "guest")


def found(data: bytes, test: str = "tsm:a") -> list[tuple[Splat, str]]:
    return [(splat, test) for splat in find_splats(data, RULES)]


def passes(splats: tuple[SplatRecord, ...]) -> bool:
    return verdict(replace(ran(Outcome.PASS), splats=splats)) is Verdict.PASS


def test_few_are_recorded_with_their_text() -> None:
    data = KASAN % b"f" + KASAN % b"g"
    first, second = records(data, found(data), GUEST, ("kasan",))
    assert (first.machine, first.role, first.test, first.expected) == (*GUEST, "tsm:a", True)
    assert [r.text.encode() + b"\n" for r in (first, second)] == [KASAN % b"f", KASAN % b"g"]


def test_of_a_storm_some_are_kept_and_the_others_counted() -> None:
    data = KASAN % b"f" * 5000
    kept = records(data, found(data), GUEST)
    assert len(kept) == MAX_RECORDS + 1
    rest = kept[-1]
    assert (
        rest.splat.title == f"{5000 - MAX_RECORDS} more kernel reports, of which no record is kept"
    )
    assert (rest.splat.kind, rest.splat.start_line, rest.splat.end_line) == ("kasan", 201, 5000)
    assert rest.test == "tsm:a"
    assert not rest.expected


def test_each_test_has_a_limit_of_its_own() -> None:
    data = KASAN % b"f" * 500
    tests = ["", "tsm:a"]
    kept = records(data, [(s, tests[s.start_line > 250]) for s, _ in found(data)], GUEST)
    assert [sum(r.test == test for r in kept) for test in tests] == [MAX_RECORDS + 1] * 2
    assert [r.splat.start_line for r in kept] == sorted(r.splat.start_line for r in kept)


def test_another_defect_at_the_end_of_a_storm_is_kept() -> None:
    data = KASAN % b"f" * 1000 + KASAN % b"g"
    frames = {r.splat.frame: r.text.encode() for r in records(data, found(data), GUEST)}
    assert frames["g"] + b"\n" == KASAN % b"g"


def test_an_expected_storm_hides_no_surprise() -> None:
    data = KASAN % b"f" * 1000
    assert passes(records(data, found(data), GUEST, ("kasan",)))
    data += b"WARNING: drivers/x.c:1 at f+0x1/0x2, CPU#0: t/1\n" * 1000
    assert not passes(records(data, found(data), GUEST, ("kasan",)))


@pytest.mark.parametrize("count", [3, 1000])
def test_what_is_recorded_with_its_test_is_not_found_again(count: int) -> None:
    window = KASAN % b"f" * count
    data = KASAN % b"boot" + window + KASAN % b"after"
    whole = found(data, "")
    in_test = records(data, whole[1:-1], GUEST, ("kasan",))
    again = not_recorded(whole, in_test, "guest")
    assert [splat.frame for splat, _ in again] == ["boot", "after"]
    assert list(not_recorded(whole, in_test, "host")) == whole


def _seconds(data: bytes) -> float:
    splats = found(data)
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        kept = records(data, splats, GUEST)
        list(not_recorded(splats, kept, "guest"))
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("unit", [KASAN % b"f" * 600, OOPS * 12], ids=["headers", "oopses"])
def test_time_is_linear(unit: bytes) -> None:
    """16 times the reports take about 16 times as long; a square law would take 256 times."""
    small = max(_seconds(unit), 0.002)
    assert _seconds(unit * 16) < small * 64
