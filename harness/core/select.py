# SPDX-License-Identifier: GPL-2.0-only
"""The -k expression: words joined by and, or, not and parentheses, as pytest has it.

A word matches when it is a part of "role:collection:test", without regard to case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import UserError

_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: a word, or an operator over operands."""

    operator: str  # "word", "and", "or", "not"
    word: str = ""
    operands: tuple[Expression, ...] = ()

    def matches(self, name: str) -> bool:
        if self.operator == "word":
            return self.word.lower() in name.lower()
        if self.operator == "not":
            return not self.operands[0].matches(name)
        join = all if self.operator == "and" else any
        return join(operand.matches(name) for operand in self.operands)


def parse_expression(text: str) -> Expression:
    """Raises UserError for an expression that cannot be read."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise UserError("-k: empty expression", hint="e.g. -k 'guest and not race'")
    expression, rest = _parse_or(tokens, text)
    if rest:
        raise _unreadable(text, rest[0])
    return expression


def _unreadable(text: str, token: str) -> UserError:
    return UserError(
        f"-k {text!r}: cannot be read at {token!r}", hint="use words, and, or, not, parentheses"
    )


def _parse_or(tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    return _parse_join("or", tokens, text)


def _parse_join(operator: str, tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    parse = _parse_not if operator == "and" else lambda t, x: _parse_join("and", t, x)
    first, tokens = parse(tokens, text)
    operands = [first]
    while tokens and tokens[0] == operator:
        operand, tokens = parse(tokens[1:], text)
        operands.append(operand)
    if len(operands) == 1:
        return first, tokens
    return Expression(operator, operands=tuple(operands)), tokens


def _parse_not(tokens: list[str], text: str) -> tuple[Expression, list[str]]:
    if not tokens:
        raise _unreadable(text, "its end")
    head, rest = tokens[0], tokens[1:]
    if head == "not":
        operand, rest = _parse_not(rest, text)
        return Expression("not", operands=(operand,)), rest
    if head == "(":
        inner, rest = _parse_or(rest, text)
        if not rest or rest[0] != ")":
            raise _unreadable(text, "an open parenthesis")
        return inner, rest[1:]
    if head in ("and", "or", ")"):
        raise _unreadable(text, head)
    return Expression("word", head), rest
