# SPDX-License-Identifier: GPL-2.0-only
"""The tree of KTAP results: nodes, unique ids, and the cases that are reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.model.results import KtapCase, Outcome

_KILLED = re.compile(r"exit=(?:129|1[3-8]\d|19[0-2])$")  # 128 and the number of the signal


@dataclass(slots=True)
class Node:
    """A result line with its subtests. bad/missing: some leaf of the subtree failed / is absent."""

    parts: tuple[str, ...]
    outcome: Outcome
    reason: str
    line: int
    kids: Sequence[Node] = ()
    bad: bool = False
    missing: bool = False
    keep: bool = True  # reported as a case of its own


@dataclass(slots=True)
class Block:
    """The lines of one column up to their parent's result."""

    column: int
    line: int
    version: bool = False
    plan: int | None = None
    plan_line: int = 0
    skip: str | None = None  # reason of "1..0 # SKIP reason"
    bail: str = ""
    name: str = ""  # from "# Subtest: name": what its parent will be called
    points: int = 0
    absent: int = 0  # announced, but without a result: stand for planned numbers
    note: str = ""  # first diagnosis since the last point
    numbers: set[int] = field(default_factory=set)
    out_of_order: bool = False
    nodes: list[Node] = field(default_factory=list)
    tally: dict[Outcome, int] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)  # name -> line, no result yet
    pending: list[Node] = field(default_factory=list)  # subtests of the next point
    pending_skip: str | None = None
    pending_name: str = ""
    kunit_totals: tuple[int, tuple[int, int, int]] | None = None  # line, (pass, fail, skip)

    @property
    def started(self) -> bool:
        return self.version or self.plan is not None or self.points > 0

    def summary(self) -> tuple[int, int, int, int]:
        """(pass, fail+xpass+error, xfail, skip) of the block's own results."""
        count = self.tally.get
        failed = sum(count(kind, 0) for kind in (Outcome.FAIL, Outcome.TIMEOUT, Outcome.XPASS))
        return count(Outcome.PASS, 0), failed, count(Outcome.XFAIL, 0), count(Outcome.SKIP, 0)


def node_of(
    parts: tuple[str, ...],
    outcome: Outcome,
    reason: str,
    line: int,
    kids: Sequence[Node] = (),
) -> Node:
    """A node with the state of its subtree.

    A parent is a case of its own only when its failure would be lost otherwise: no subtest
    failed (absent ones explain nothing), it timed out, or it was killed by a signal.
    """
    missing = outcome is Outcome.MISSING
    failed = not missing and not outcome.good
    if not kids:
        return Node(parts, outcome, reason, line, kids, failed, missing)
    subtests_bad = any(kid.bad for kid in kids)
    broke_off = outcome is Outcome.TIMEOUT or _KILLED.match(reason) is not None
    keep = missing or (failed and (broke_off or not subtests_bad))
    missing = missing or any(kid.missing for kid in kids)
    return Node(parts, outcome, reason, line, kids, subtests_bad or failed, missing, keep)


def leaves(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes without subtests, in order."""
    for node in nodes:
        if node.kids:
            yield from leaves(node.kids)
        else:
            yield node


class Names:
    """Keeps equal ids apart: name, name#2, name#3."""

    def __init__(self) -> None:
        self._used: set[tuple[str, ...]] = set()
        self._next: dict[tuple[str, ...], int] = {}

    def unique(self, key: tuple[str, ...]) -> tuple[str, ...]:
        name = key
        while name in self._used:
            count = self._next.get(key, 2)
            self._next[key] = count + 1
            name = (*key[:-1], f"{key[-1]}#{count}")
        self._used.add(name)
        return name


def cases_of(nodes: Iterable[Node], prefix: tuple[str, ...], names: Names) -> Iterator[KtapCase]:
    """The cases to report, subtests before the parent they belong to."""
    for node in nodes:
        key = names.unique((*prefix, *node.parts) or ("1..0",))
        if node.kids:
            yield from cases_of(node.kids, key, names)
        if node.keep:
            yield KtapCase(key, node.outcome, node.reason, node.line)
