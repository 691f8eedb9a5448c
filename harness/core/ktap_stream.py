# SPDX-License-Identifier: GPL-2.0-only
"""The blocks of KTAP and TAP: a stack machine over the lines of one stream.

The nesting of a line is its column: "# ok 1 x" (runner.sh) and "  ok 1 x" (KTAP) are both
one level down. A block is a run of lines of one column; when a line of a smaller column
comes, the block's points become the subtests of the next point there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.core import ktap_lines as lines
from harness.core.ktap_tree import Block, Node, leaves, node_of
from harness.model.results import KtapProblem, Outcome

_HALF = "a line before ends with 'not': this result may be its other half"
STARTED = "started, but no result line was seen"
_COMMENTS = frozenset("sSRT")  # first letters of comments that say something, but diagnoses
_RESULTS = frozenset("on1KTBb")  # and of lines that do
_DEPTH_MAX = 32  # deeper lines stay on the deepest level: bounds ids and recursion
_MISSING_MAX = 1000  # single MISSING cases per report; beyond, one per block stands for the rest


class Shared:
    """What all streams of one parse share."""

    def __init__(self) -> None:
        self.problems: list[KtapProblem] = []
        self.missing_left = _MISSING_MAX

    def problem(self, line: int, text: str) -> None:
        self.problems.append(KtapProblem(line, text))


class Stream:
    """The stack machine over one stream's lines."""

    def __init__(self, shared: Shared, unnumbered: bool) -> None:
        self.shared = shared
        self.unnumbered = unnumbered  # the stream has a plan or version in column 0
        self.stack = [Block(-1, 0)]
        self.subtest = ""  # a TAP 14 "# Subtest: name" that announces the next block
        self.too_deep = False
        self.last_point = 0  # number of its line
        self.yaml = 0  # column of the YAML block behind a result, 0 outside of one
        self.half = False  # a line ended after "not": the next result may be what it denies

    def feed(self, number: int, text: str, cut: bool) -> None:
        """Take one line without its log prefix."""
        if "selftests: " in text and " selftests: " in text[2:] and self._feed_glued(number, text):
            return
        body = text.lstrip("# \t")
        column = len(text) - len(body)
        first = body[:1]
        if column:
            lead = text[:column]
            if "\t" in lead:
                lead = lead.expandtabs(4)
                column = len(lead)
            if (self.yaml or first == "-") and self._in_yaml(number, column, body):
                return
            if "#" in lead:
                if first in _COMMENTS or ":Expected " in body or body.endswith("by timeout"):
                    self._comment(number, lead.rindex("#"), body)
                if lead[-1] == "#":
                    return
        elif self.yaml and body:
            self.yaml = 0
        if first in _RESULTS:
            self._result(number, column, body, cut)

    def _in_yaml(self, number: int, column: int, body: str) -> bool:
        """TAP 13 and 14 explain a result by indented YAML from "---" to "..."."""
        if self.yaml:
            inside = column >= self.yaml or not body
            if not inside or (column == self.yaml and body.rstrip() == "..."):
                self.yaml = 0
            return inside
        if body.rstrip() != "---":
            return False
        if number != self.last_point + 1 or column <= self.stack[-1].column:
            return False
        self.yaml = column
        return True

    def _result(self, number: int, column: int, body: str, cut: bool) -> None:
        """A line that may be a result, a plan, a version or an end, by its first letter."""
        first = body[0]
        if first in "on":
            self._maybe_point(number, column, body, cut)
        elif first == "1":
            self._maybe_plan(number, column, body, cut)
        elif first in "KT":
            if lines.VERSION.match(body):
                self._version(number, column)
        elif bail := lines.BAIL.match(body):
            block = self._level(column, number)
            block.bail = f"Bail out! {lines.tidy(bail[1])}".strip()
            self.shared.problem(number, block.bail)

    def finish(self) -> list[Node]:
        """Close everything; the top-level nodes."""
        while len(self.stack) > 1:
            self._pop()
        return self.stack[0].pending

    def _feed_glued(self, number: int, text: str) -> bool:
        """Split "# last words of a testok 1 selftests: ..." where that result is awaited."""
        lead = len(text) - len(text.lstrip("# \t"))
        for match in lines.GLUED.finditer(text):
            if match.start() == lead:
                return False
            for block in self.stack:
                if match[1] in block.announced:
                    self.feed(number, text[: match.start()], True)
                    self.half = self.half or lines.DENIAL.search(text, 0, match.start()) is not None
                    self.feed(number, " " * block.column + text[match.start() :], False)
                    return True
        return False

    def _comment(self, number: int, column: int, body: str) -> None:
        """Headers that announce a test, and totals."""
        first = body[:1]
        if first == "s":
            match = lines.SELFTEST.match(body)
            if match:
                block = self._level(column, number)
                if block.pending:
                    self._adopt_orphans(block)
                block.announced[lines.tidy(match[0])] = number
                return
        elif first == "S":
            match = lines.SUBTEST.match(body)
            if match:
                self._subtest(column, lines.tidy(match[1]))
                return
        for block in self.stack:
            if block.column == column:
                self._comment_in(number, block, body)

    def _subtest(self, column: int, name: str) -> None:
        """KUnit names a block inside it, TAP 14 before it and one level out."""
        top = self.stack[-1]
        inside = len(self.stack) > 2 and top.column == column
        if inside and top.plan is None and not top.points:
            top.name = name
        else:
            self.subtest = name

    def _comment_in(self, number: int, block: Block, body: str) -> None:
        """A comment that speaks about the open block of its column."""
        match = lines.RUN.match(body) if body.startswith("RUN") else None
        if match:
            block.announced[lines.tidy(match[1])] = number
            return
        match = lines.TOTALS.match(body) if body.startswith("Totals") else None
        if match:
            self._totals(number, block, match)
        elif not block.note:
            block.note = lines.diagnosis(body)

    def _totals(self, number: int, block: Block, match: re.Match[str]) -> None:
        passed, failed, xfail, xpass, skip, error = (int(n or 0) for n in match.groups()[:6])
        if match[7] is not None:  # KUnit: counts leaves; checked when the suite's result comes
            block.kunit_totals = number, (passed, failed, skip)
            return
        seen = block.summary()
        said = (passed, failed + xpass + error, xfail, skip)
        if seen != said:
            self.shared.problem(
                number,
                "Totals contradict the results seen (pass, fail+xpass+error, xfail, skip): "
                f"{said} against {seen}",
            )

    def _version(self, number: int, column: int) -> None:
        block = self._level(column, number)
        if block.started or block.announced:
            self._pop()
            block = self._level(column, number)
        block.version = True

    def _maybe_plan(self, number: int, column: int, body: str, cut: bool) -> None:
        text, torn = lines.without_kernel_message(body)
        match = lines.PLAN.match(text)
        if not match:
            return
        if torn or cut:
            self._doubt(number, torn)
        block = self._level(column, number)
        if block.plan is not None:
            if block.points < block.plan:
                self.shared.problem(number, "second plan before the first one was fulfilled")
            self._pop()
            block = self._level(column, number)
        block.plan, block.plan_line = int(match[1]), number
        note = lines.read_point(True, f"# {match[2]}") if match[2] else None
        if note is not None and note.outcome is Outcome.SKIP and block.plan == 0:
            block.skip = note.reason
        elif block.plan == 0:
            self.shared.problem(number, "plan 1..0 without SKIP: nothing was tested")

    def _maybe_point(self, number: int, column: int, body: str, cut: bool) -> None:
        text, torn = lines.without_kernel_message(body)
        match = lines.POINT.match(text)
        if not match:
            self.half = self.half or text.rstrip() == "not"
            return
        no, index, rest = match.groups()
        top = self.stack[-1]
        if index is None:
            known = top.column == column and (top.version or top.plan is not None)
            if not known and (column or not (self.unnumbered or rest.startswith("-"))):
                return  # "ok, let us start": prose
        if torn or cut:
            self._doubt(number, torn)
        point = lines.read_point(no is None, rest)
        if point.problem:
            self.shared.problem(number, point.problem)
        level = top.column == column
        block = top if level else self._level(column, number, takes_pending=True)
        self._count(number, block, index)
        self.last_point = number
        if torn:
            point = self._torn(block, point)
        elif self.half:
            self.half = False
            self.shared.problem(number, _HALF)
            if point.outcome is Outcome.PASS:
                point = lines.Point(point.name, Outcome.MISSING, _HALF, "")
        elif block.note and "#" not in rest:
            point = lines.with_diagnosis(point, block.note)
        block.note = ""
        self._add(number, block, point)

    def _doubt(self, number: int, torn: bool) -> None:
        if torn:
            self.shared.problem(number, "a kernel message cuts this line: its end is lost")
        else:
            self.shared.problem(number, "no newline ends this line: it may be cut off")

    @staticmethod
    def _torn(block: Block, point: lines.Point) -> lines.Point:
        """A result whose directive may be lost is no pass; its full name may be announced."""
        last = next(reversed(block.announced), "")
        name = last if last.startswith(point.name) else point.name
        if point.outcome is not Outcome.PASS:
            return point._replace(name=name)
        return lines.Point(name, Outcome.MISSING, "a kernel message cut the result line", "")

    def _count(self, number: int, block: Block, digits: str | None) -> None:
        block.points += 1
        expected = block.points
        index = int(digits) if digits else expected
        if index != expected and not block.out_of_order:
            block.out_of_order = True
            self.shared.problem(number, f"test number {index} where {expected} was expected")
        block.numbers.add(index)

    def _add(self, number: int, block: Block, point: lines.Point) -> None:
        block.announced.pop(point.name, None)
        block.tally[point.outcome] = block.tally.get(point.outcome, 0) + 1
        parts = _parts(point.name or f"#{block.points}")
        outcome, reason = point.outcome, point.reason
        kids: Sequence[Node] = ()
        if block.pending:
            kids, block.pending = block.pending, []
        skip, block.pending_skip = block.pending_skip, None
        block.pending_name = ""
        if skip is not None and not kids and outcome in (Outcome.PASS, Outcome.SKIP):
            outcome, reason = Outcome.SKIP, reason or skip
        node = node_of(parts, outcome, reason, number, kids)
        if kids and outcome.good and (node.bad or node.missing):
            what = "failed" if node.bad else "missing"
            self.shared.problem(number, f"parent says {outcome}, but a subtest is {what}")
        if kids and block.kunit_totals is not None:
            self._check_kunit_totals(block.kunit_totals, kids)
        block.kunit_totals = None
        block.nodes.append(node)

    def _check_kunit_totals(
        self, totals: tuple[int, tuple[int, int, int]], kids: Sequence[Node]
    ) -> None:
        line, said = totals
        results = list(leaves(kids))
        seen = tuple(
            sum(leaf.outcome is kind for leaf in results)
            for kind in (Outcome.PASS, Outcome.FAIL, Outcome.SKIP)
        )
        if seen != said:
            self.shared.problem(
                line,
                f"Totals contradict the results seen (pass, fail, skip): {said} against {seen}",
            )

    def _level(self, column: int, number: int, *, takes_pending: bool = False) -> Block:
        """The open block of this column, opened if need be; deeper ones are closed."""
        while self.stack[-1].column > column:
            self._pop()
        outer = self.stack[-1]
        if outer.column == column:
            return outer
        if len(self.stack) > _DEPTH_MAX:
            if not self.too_deep:
                self.too_deep = True
                self.shared.problem(number, f"nested deeper than {_DEPTH_MAX} levels")
            return outer
        block = Block(column, number, name=self.subtest)
        self.subtest = ""
        if takes_pending and outer.pending:
            block.pending, outer.pending = outer.pending, []
        self.stack.append(block)
        return block

    def _pop(self) -> None:
        block = self.stack.pop()
        outer = self.stack[-1]
        top_level = len(self.stack) == 1
        self._close(block, top_level)
        if block.skip is not None and not block.nodes:
            if top_level:
                block.nodes.append(node_of((), Outcome.SKIP, block.skip, block.plan_line))
            else:
                outer.pending_skip = block.skip
        if block.nodes:
            outer.pending.extend(block.nodes)
            outer.pending_name = block.name

    def _close(self, block: Block, top_level: bool) -> None:
        if block.pending:
            self._adopt_orphans(block)
        for name, line in block.announced.items():
            block.absent += 1
            reason = block.bail or STARTED
            block.nodes.append(node_of(_parts(name), Outcome.MISSING, reason, line))
        block.announced.clear()
        if block.plan is not None:
            if block.points > block.plan:
                text = f"{block.points} results, but {block.plan} planned"
                self.shared.problem(block.plan_line, text)
            self._add_missing(block, block.plan - block.points - block.absent)
        elif top_level and block.nodes:
            self.shared.problem(block.line, "no plan: missing results cannot be noticed")
        elif top_level:
            self.shared.problem(block.line, "no result and no plan")

    def _add_missing(self, block: Block, count: int) -> None:
        """MISSING cases for `count` planned numbers that were not seen."""
        if count <= 0 or block.plan is None:
            return
        self.shared.problem(
            block.plan_line, f"{block.plan} results planned, {count} of them never came"
        )
        reason = block.bail or "planned, but no result line was seen"
        index, named = 0, block.absent  # the announced ones took the first free numbers
        while count > 0 and index < block.plan:
            index += 1
            if index in block.numbers:
                continue
            if named:
                named -= 1
                continue
            if self.shared.missing_left <= 0:
                reason = f"{count} planned results were not seen, this stands for all of them"
                count = 1
            self.shared.missing_left -= 1
            count -= 1
            node = node_of((f"#{index}",), Outcome.MISSING, reason, block.plan_line)
            block.nodes.append(node)

    def _adopt_orphans(self, block: Block) -> None:
        """Subtests whose parent printed no result: the announced parent is MISSING."""
        kids, block.pending, block.pending_skip = block.pending, [], None
        reason = block.bail or "subtests were seen, but not the result of their parent"
        if block.announced:
            name, line = block.announced.popitem()
        elif block.pending_name:
            name, line = block.pending_name, kids[-1].line
        else:
            self.shared.problem(kids[-1].line, reason)
            block.nodes.extend(kids)
            return
        block.pending_name = ""
        block.absent += 1
        self.shared.problem(line, f"{name}: {reason}")
        block.nodes.append(node_of(_parts(name), Outcome.MISSING, reason, line, kids))


def _parts(name: str) -> tuple[str, ...]:
    match = lines.SELFTEST.match(name) if name.startswith("selftests: ") else None
    return (match[1], match[2]) if match else (name,)
