# SPDX-License-Identifier: GPL-2.0-only
"""Splats as they are recorded: with their text, and not more of them than a reader can use.

A kernel that reports without end makes tens of thousands in a minute. Of each test MAX_RECORDS are
kept, then one record says how many more there were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from harness.core.splat import excerpts
from harness.model.results import Splat, SplatRecord

MAX_RECORDS = 200


def records(
    data: bytes,
    found: Iterable[tuple[Splat, str]],
    machine: tuple[str, str],
    expected: Collection[str] = (),
) -> tuple[SplatRecord, ...]:
    """found: splats of `data` by first line, each with "collection:test" or "". machine: its name
    and role. expected: kinds that fail nothing.
    """
    tests: dict[str, list[SplatRecord]] = {}
    for splat, test in found:
        record = SplatRecord(*machine, test, splat, "", splat.kind in expected)
        tests.setdefault(test, []).append(record)
    kept = [record for of_test in tests.values() for record in _limited(of_test)]
    kept.sort(key=lambda record: record.splat.start_line)
    texts = excerpts(data, [record.splat for record in kept])
    return tuple(replace(record, text=text) for record, text in zip(kept, texts, strict=True))


def not_recorded(
    found: Iterable[tuple[Splat, str]], recorded: Iterable[SplatRecord], machine: str
) -> Iterator[tuple[Splat, str]]:
    """Of what was found on a machine's console, by first line: what no record covers."""
    spans = sorted((r.splat.start_line, r.splat.end_line) for r in recorded if r.machine == machine)
    covered_to = index = 0
    for splat, test in found:
        while index < len(spans) and spans[index][0] <= splat.start_line:
            covered_to = max(covered_to, spans[index][1])
            index += 1
        if splat.start_line > covered_to:
            yield splat, test


def _limited(found: Sequence[SplatRecord]) -> list[SplatRecord]:
    """The most telling of one test's reports, and a record that stands for all others."""
    if len(found) <= MAX_RECORDS:
        return list(found)
    seen: set[str] = set()
    ranks = []  # what fails the test first, then one of each defect, then by line
    for index, record in enumerate(found):
        ranks.append((record.expected, record.splat.fingerprint in seen, index))
        seen.add(record.splat.fingerprint)
    order = [index for *_, index in sorted(ranks)]
    more = [found[index] for index in sorted(order[MAX_RECORDS:])]
    rest = Splat(
        kind=more[0].splat.kind,
        title=f"{len(more)} more kernel reports, of which no record is kept",
        frame="",
        start_line=more[0].splat.start_line,
        end_line=max(record.splat.end_line for record in more),
    )
    all_expected = all(record.expected for record in more)
    return [
        *(found[index] for index in order[:MAX_RECORDS]),
        replace(more[0], splat=rest, expected=all_expected),
    ]
