# SPDX-License-Identifier: GPL-2.0-only
"""Reading plan files, and choosing tests from what was built."""

from __future__ import annotations

import datetime
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from harness.core.select import Expression
from harness.errors import UserError
from harness.model.kernel import Role
from harness.model.plan import (
    KnownFailure,
    Plan,
    RepeatPolicy,
    TestId,
    TestSelection,
    Topology,
    VmSize,
)

_MAX_PAIR_MIB = 3072
MAX_REPEAT = 100


class _Table:
    """A TOML table whose every access names the file and key when it fails."""

    def __init__(self, where: str, path: str, data: Mapping[str, Any]) -> None:
        self.where = where
        self.path = path
        self.data = data

    def error(self, key: str, expected: str) -> UserError:
        name = f"{self.path}.{key}" if self.path else key
        return UserError(f"{self.where}: {name}: {expected}")

    def known(self, *keys: str) -> None:
        for key in self.data:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(keys)}"
                name = f"{self.path}.{key}" if self.path else key
                raise UserError(f"{self.where}: {name}: unknown key", hint=hint)

    def get(self, key: str, kind: type, expected: str, default: Any = None) -> Any:
        value = self.data.get(key, default)
        if value is None:
            raise self.error(key, f"missing, expected {expected}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"expected {expected}, got {value!r}")
        return value

    def choice(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        allowed = list(choices)
        value = self.get(key, str, f"one of {', '.join(allowed)}", default)
        if value not in allowed:
            raise self.error(key, f"expected one of {', '.join(allowed)}, got {value!r}")
        return str(value)

    def table(self, key: str) -> _Table:
        path = f"{self.path}.{key}" if self.path else key
        return _Table(self.where, path, self.get(key, dict, "a table", {}))


def parse_plan(text: str, where: str, name: str) -> Plan:
    """A plan from TOML text. where: the file, for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{where}: {exc}", hint="see configs/plans/default.toml") from exc
    top = _Table(where, "", data)
    top.known(
        "title", "topology", "source", "kernel", "machines", "tests",
        "repeat", "infra_retries", "flaky",
    )  # fmt: skip
    source, kernel, machines = top.table("source"), top.table("kernel"), top.table("machines")
    source.known("package")
    kernel.known("debug")
    machines.known("host", "guest")
    plan = Plan(
        name=name,
        title=top.get("title", str, "a sentence"),
        topology=Topology(top.choice("topology", [t.value for t in Topology])),
        package=source.get("package", str, "a package name", "linux-source-7.3"),
        debug=kernel.get("debug", bool, "true or false", False),
        host=_size(machines.table("host"), 2304),
        guest=_size(machines.table("guest"), 768),
        selections=tuple(
            _selection(_Table(where, f"tests[{index}]", entry))
            for index, entry in enumerate(top.get("tests", list, "an array of tables"))
        ),
        repeats=RepeatPolicy(_times(top, "repeat"), _times(top, "infra_retries")),
        flaky_passes=top.choice("flaky", ("fail", "pass"), "fail") == "pass",
    )
    if not plan.selections:
        raise top.error("tests", "empty: a plan without tests proves nothing")
    if plan.host.memory_mib > _MAX_PAIR_MIB:
        raise machines.error("host.memory_mib", f"at most {_MAX_PAIR_MIB}")
    if plan.topology is Topology.PAIR and plan.guest.memory_mib > plan.host.memory_mib - 512:
        raise machines.error("guest.memory_mib", "must leave 512 MiB of the host's memory")
    return plan


def _times(table: _Table, key: str) -> int:
    value: int = table.get(key, int, f"a number from 0 to {MAX_REPEAT}", 1)
    if not 0 <= value <= MAX_REPEAT:
        raise table.error(key, f"expected 0 to {MAX_REPEAT}, got {value}")
    return value


def _size(table: _Table, default_mib: int) -> VmSize:
    table.known("memory_mib", "cpus")
    size = VmSize(
        table.get("memory_mib", int, "a number of MiB", default_mib),
        table.get("cpus", int, "a number of CPUs", 2),
    )
    if size.memory_mib < 256:
        raise table.error("memory_mib", "at least 256")
    if size.cpus < 1:
        raise table.error("cpus", "at least 1")
    return size


def _selection(table: _Table) -> TestSelection:
    table.known("role", "collection", "tests", "skip", "timeout_s", "known", "sysctl")
    skip = table.table("skip").data
    timeout = table.get("timeout_s", (int, float), "seconds", 60)  # type: ignore[arg-type]
    if timeout <= 0:
        raise table.error("timeout_s", "expected more than 0")
    return TestSelection(
        role=Role(table.choice("role", [role.value for role in Role])),
        collection=table.get("collection", str, "a kselftest collection, e.g. tsm"),
        tests=tuple(table.get("tests", list, "a list of test names", ["*"])),
        skip=tuple((str(name), str(reason)) for name, reason in skip.items()),
        timeout_s=float(timeout),
        known=tuple(_known(table.table("known"), pattern) for pattern in table.table("known").data),
        sysctl=tuple((name, str(v)) for name, v in table.table("sysctl").data.items()),
    )


def _known(table: _Table, pattern: str) -> KnownFailure:
    """`pattern` = "reason", or { reason = "...", until = 2027-01-31 }."""
    expected = 'a reason, or { reason = "...", until = YYYY-MM-DD }'
    value = table.get(pattern, (str, dict), expected)  # type: ignore[arg-type]
    if isinstance(value, str):
        reason, until = value, None
    else:
        entry = table.table(pattern)
        entry.known("reason", "until")
        reason = entry.get("reason", str, "a sentence")
        until = entry.data.get("until")
        # a datetime is a date to Python, but names an hour that nobody looks at
        if until is not None and type(until) is not datetime.date:
            raise entry.error("until", f"expected a date such as 2027-01-31, got {until!r}")
    if not reason.strip():
        raise table.error(pattern, "the reason is empty")
    return KnownFailure(pattern, reason, until)


def choose_tests(
    plan: Plan, built: Mapping[Role, Iterable[str]], expression: Expression | None
) -> tuple[tuple[TestId, TestSelection], ...]:
    """The tests to run, in plan order. built: per role, "collection:test" lines as installed.

    A test named in the plan that was not built is chosen all the same: it then ends as MISSING,
    never silently dropped. Roles absent from `built` are not part of this run.
    """
    chosen: dict[TestId, TestSelection] = {}
    for selection in plan.selections:
        if selection.role not in built:
            continue
        available = [
            line.split(":", 1)[1]
            for line in built[selection.role]
            if line.split(":", 1)[0] == selection.collection
        ]
        for pattern in selection.tests:
            names = [name for name in available if fnmatchcase(name, pattern)]
            literal = not any(char in pattern for char in "*?[")
            for name in names or ([pattern] if literal else []):
                test = TestId(selection.role, selection.collection, name)
                if expression is None or expression.matches(str(test)):
                    chosen.setdefault(test, selection)
    return tuple(chosen.items())
