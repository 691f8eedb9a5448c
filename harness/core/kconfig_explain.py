# SPDX-License-Identifier: GPL-2.0-only
"""Why a requested option did not become what was requested."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from harness.core.kconfig_symbols import Definition, SymbolTable
from harness.model.kernel import ConfigRow

_TOKEN = re.compile(
    r"\s*(&&|\|\||!=|<=|>=|[()!=<>]|\"[^\"]*\"|'[^']*'|\$\((?:[^()]|\([^()]*\))*\)|[\w./-]+)"
)
_RANK = {"n": 0, "m": 1, "y": 2}
_LISTED = 4
_DEPTH = 2


def explain(table: SymbolTable, row: ConfigRow, config: Mapping[str, str]) -> str:
    """One line for a row whose request was not honoured. config: the final values."""
    definitions = table.symbols.get(row.symbol)
    if not definitions:
        near = difflib.get_close_matches(row.symbol, table.symbols, 1, 0.7)
        return "no such symbol" + (f" (did you mean CONFIG_{near[0]}?)" if near else "")
    reason = _reason(table, row, config, definitions)
    where = ", ".join(d.where for d in definitions[:_LISTED])
    depends = " && ".join(f"({d})" if "||" in d else d for d in definitions[0].depends)
    stated = f", depends on {depends}" if depends and "depends on" not in reason else ""
    return f"{reason} (defined at {where}{stated})"


def _reason(
    table: SymbolTable, row: ConfigRow, config: Mapping[str, str], definitions: list[Definition]
) -> str:
    kind = next((d.kind for d in definitions if d.kind), "")
    if row.requested in _RANK and kind in ("string", "int", "hex"):
        return f"is a {kind}, not a switch"
    if row.requested == "m" and kind == "bool":
        return "is a bool: it cannot be m"
    if _RANK.get(row.got, 0) > _RANK.get(row.requested, 3):
        return _switched_on(table, row.symbol, config)
    if chosen := _chosen_instead(table, definitions, config):
        return f"is one of a choice in which CONFIG_{chosen} was chosen"
    unmet = [Expression(" && ".join(f"({e})" for e in d.depends), config) for d in definitions]
    limits = [one for one in unmet if one.value() < _RANK.get(row.requested, 1)]
    if len(limits) == len(definitions) and limits:
        return "depends on " + _with_cause(limits[0].failing(), table, config)
    asked = [d for d in definitions if d.prompt]
    if not asked:
        selectors = [name for name, _ in table.selectors.get(row.symbol, [])]
        by = f"; selected by {_listed(selectors)}" if selectors else ""
        return f"has no prompt, so it cannot be requested{by}"
    hidden = [d.prompt_if for d in asked if d.prompt_if]
    if len(hidden) == len(asked) and all(Expression(e, config).value() == 0 for e in hidden):
        return f"its prompt is shown only if {hidden[0]}"
    return f"became {row.got or 'n'}: a default, a range or a select elsewhere decided"


def _switched_on(table: SymbolTable, symbol: str, config: Mapping[str, str]) -> str:
    active = [
        name
        for name, condition in table.selectors.get(symbol, [])
        if config.get(name, "n") in ("y", "m")
        and (not condition or Expression(condition, config).value() > 0)
    ]
    if active:
        return f"selected by {_listed(active)}"
    if any(d.prompt for d in table.symbols[symbol]):
        return "is on by default; another option changed what decides it"
    return "has no prompt and is on by default"


def _chosen_instead(
    table: SymbolTable, definitions: list[Definition], config: Mapping[str, str]
) -> str:
    for number in {d.choice for d in definitions if d.choice}:
        for name in table.choice_members(number):
            if config.get(name) == "y" and name != definitions[0].symbol:
                return name
    return ""


def _with_cause(failing: list[str], table: SymbolTable, config: Mapping[str, str]) -> str:
    """The failing terms; a symbol that is off for want of another gets that said too."""
    said = []
    for term in dict.fromkeys(failing):
        cause = _cause(term, table, config, _DEPTH)
        said.append(f"{_state(term, config)}{cause}")
    return " and ".join(said)


def _state(term: str, config: Mapping[str, str]) -> str:
    if re.fullmatch(r"\w+", term):
        return f"{term}, which is {config.get(term, 'n')}"
    return term


def _cause(term: str, table: SymbolTable, config: Mapping[str, str], depth: int) -> str:
    definitions = table.symbols.get(term)
    if re.fullmatch(r"\w+", term) and not definitions:
        return " (no such symbol in this tree)" if term not in config else ""
    if not definitions or depth == 0:
        return ""
    conditions = [Expression(" && ".join(f"({e})" for e in d.depends), config) for d in definitions]
    if any(one.value() > 0 for one in conditions):
        return "" if any(d.prompt for d in definitions) else " (no prompt: needs a select)"
    failing = conditions[0].failing()
    inner = " and ".join(
        f"{_state(t, config)}{_cause(t, table, config, depth - 1)}" for t in dict.fromkeys(failing)
    )
    return f" (it depends on {inner})"


def _listed(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _LISTED} more" if len(unique) > _LISTED else ""
    return ", ".join(unique[:_LISTED]) + more


class Expression:
    """A Kconfig dependency expression over a configuration: value 0 (n), 1 (m), 2 (y).

    A macro call counts as y: it asks about the tool chain, which this harness cannot change.
    """

    def __init__(self, text: str, config: Mapping[str, str]) -> None:
        self._config = config
        self._tokens = [m[1] for m in _TOKEN.finditer(text)]
        self._at = 0
        self._value, self._failing = self._or() if self._tokens else (2, [])

    def value(self) -> int:
        return self._value

    def failing(self) -> list[str]:
        """The terms that keep the value below y: symbols, or terms like `!X (X is y)`."""
        return self._failing

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _or(self) -> tuple[int, list[str]]:
        parts = [self._and()]
        while self._peek() == "||":
            self._next()
            parts.append(self._and())
        value = max(v for v, _ in parts)
        if value == 2 or len(parts) == 1:
            return value, [] if value == 2 else parts[0][1]
        return value, [" or ".join(" and ".join(_plain(t)) for _, t in parts if t)]

    def _and(self) -> tuple[int, list[str]]:
        parts = [self._not()]
        while self._peek() == "&&":
            self._next()
            parts.append(self._not())
        return min(v for v, _ in parts), [t for v, terms in parts if v < 2 for t in terms]

    def _not(self) -> tuple[int, list[str]]:
        if self._peek() != "!":
            return self._term()
        self._next()
        start = self._at
        value, _ = self._not()
        text = " ".join(self._tokens[start : self._at])
        state = f" ({text} is {self._config.get(text, 'n')})" if re.fullmatch(r"\w+", text) else ""
        return 2 - value, [f"!{text}{state}"] if value > 0 else []

    def _term(self) -> tuple[int, list[str]]:
        token = self._next()
        if token == "(":
            inner = self._or()
            self._next()  # ")"
            return inner
        if self._peek() in ("=", "!=", "<", ">", "<=", ">="):
            operator, other = self._next(), self._next()
            holds = _compare(self._lookup(token), operator, self._lookup(other))
            text = f"{token}{operator}{other} ({token} is {self._lookup(token) or 'n'})"
            return (2, []) if holds else (0, [text])
        if token.startswith("$"):
            return 2, []
        value = _RANK.get(self._lookup(token), 0)
        return value, [] if value == 2 else [token]

    def _lookup(self, token: str) -> str:
        if token in _RANK:
            return token
        if token[:1] in "\"'" or token[:1].isdigit():
            return token.strip("\"'")
        return self._config.get(token, "n").strip('"')


def _plain(terms: list[str]) -> list[str]:
    return terms or ["?"]


def _compare(left: str, operator: str, right: str) -> bool:
    if operator == "=":
        return left == right
    if operator == "!=":
        return left != right
    try:
        a, b = int(left, 0), int(right, 0)
    except ValueError:
        return False
    return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[operator]
