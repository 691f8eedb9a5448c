# SPDX-License-Identifier: GPL-2.0-only
"""The tree of KTAP results: nodes, unique ids, and the cases that are reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.model.results import KtapCase, Outcome


@dataclass(slots=True)
class Node:
    """A result line with its subtests. bad/missing: some leaf of the subtree failed / is absent."""

    parts: tuple[str, ...]
    outcome: Outcome
    reason: str
    line: int
    kids: list[Node] = field(default_factory=list)
    bad: bool = False
    missing: bool = False
    keep: bool = True  # reported as a case of its own


def node_of(
    parts: tuple[str, ...], outcome: Outcome, reason: str, line: int, kids: list[Node]
) -> Node:
    """A node with the state of its subtree.

    A parent is a case of its own only when its failure would be lost otherwise: no subtest
    failed (absent ones explain nothing), or it timed out.
    """
    node = Node(parts, outcome, reason, line, kids)
    node.missing = outcome is Outcome.MISSING or any(kid.missing for kid in kids)
    subtests_bad = any(kid.bad for kid in kids)
    failed = not outcome.good and outcome is not Outcome.MISSING
    node.bad = subtests_bad or failed
    if kids:
        lost = outcome in (Outcome.TIMEOUT, Outcome.MISSING) or (failed and not subtests_bad)
        node.keep = lost
    return node


def leaves(nodes: Iterable[Node]) -> Iterable[Node]:
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


def cases_of(nodes: Iterable[Node], prefix: tuple[str, ...], names: Names) -> Iterable[KtapCase]:
    for node in nodes:
        key = names.unique((*prefix, *node.parts) or ("1..0",))
        yield from cases_of(node.kids, key, names)
        if node.keep:
            yield KtapCase(key, node.outcome, node.reason, node.line)
