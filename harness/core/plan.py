# SPDX-License-Identifier: GPL-2.0-only
"""Reading plan files, and choosing tests from what was built."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from harness.core.platform_plan import (
    cells,
    check_matrix,
    host_binds,
    parse_entry,
    parse_expectation,
    parse_platform,
)
from harness.core.select import Expression
from harness.core.toml_table import Table
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
from harness.model.platform import BY_HOST, PlatformCell

_MAX_PAIR_MIB = 3072
MAX_REPEAT = 100


def parse_plan(text: str, where: str, name: str) -> Plan:
    """A plan from TOML text. where: the file, for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{where}: {exc}", hint="see configs/plans/default.toml") from exc
    top = Table(where, "", data)
    top.known(
        "title", "topology", "source", "kernel", "machines", "tests",
        "repeat", "infra_retries", "flaky", "platform", "notes",
    )  # fmt: skip
    source, kernel, machines = top.table("source"), top.table("kernel"), top.table("machines")
    source.known("package")
    kernel.known("debug", "options")
    machines.known("host", "guest")
    topology = Topology(top.choice("topology", [t.value for t in Topology]))
    plan = Plan(
        name=name,
        title=top.get("title", str, "a sentence"),
        topology=topology,
        package=source.get("package", str, "a package name", "linux-source-7.3"),
        debug=kernel.get("debug", bool, "true or false", False),
        host=_size(machines.table("host"), 2304),
        guest=_size(machines.table("guest"), 768),
        selections=tuple(
            _selection(Table(where, f"tests[{index}]", entry), topology)
            for index, entry in enumerate(top.get("tests", list, "an array of tables"))
        ),
        repeats=RepeatPolicy(_times(top, "repeat"), _times(top, "infra_retries")),
        flaky_passes=top.choice("flaky", ("fail", "pass"), "fail") == "pass",
        platform=parse_platform(top.table("platform")) if "platform" in top.data else None,
        options=_options(kernel.table("options")),
        notes=tuple(" ".join(str(note).split()) for note in top.get("notes", list, "texts", [])),
    )
    if not plan.selections:
        raise top.error("tests", "empty: a plan without tests proves nothing")
    _check_platform(top, plan)
    if plan.host.memory_mib > _MAX_PAIR_MIB:
        raise machines.error("host.memory_mib", f"at most {_MAX_PAIR_MIB}")
    if plan.topology is Topology.PAIR and plan.guest.memory_mib > plan.host.memory_mib - 512:
        raise machines.error("guest.memory_mib", "must leave 512 MiB of the host's memory")
    return plan


def _check_platform(top: Table, plan: Plan) -> None:
    if plan.platform is None:
        for index, selection in enumerate(plan.selections):
            if selection.axes or selection.expect.faults:
                raise top.error(f"tests[{index}]", "needs the [platform] table, which is missing")
            if selection.solo and plan.topology is Topology.PAIR:
                where = f"{top.where}: tests[{index}].topology"
                raise UserError(
                    f"{where}: solo in a plan for the pair: needs the [platform] table",
                    hint="without a platform a test of the guest belongs into the pair",
                )
        return
    for index, selection in enumerate(plan.selections):
        if selection.expect.faults and matrix(plan, selection) == (None,):
            raise UserError(
                f"{top.where}: tests[{index}].expect.faults: these tests have no platform",
                hint='in a pair give the entry topology = "solo", or a platform table',
            )
    if plan.topology is Topology.PAIR and not all_cells(plan):
        raise UserError(
            f"{top.where}: platform: no entry of [[tests]] has it",
            hint='in a pair give an entry topology = "solo", or a platform table',
        )
    axes = {f"tests[{index}]": one.axes for index, one in enumerate(plan.selections)}
    check_matrix(top.table("platform"), plan.platform, axes)


def _options(table: Table) -> tuple[tuple[Role, str, str], ...]:
    """guest = { SYMBOL = "y" }: one role's, since a symbol of one series is not in the other."""
    table.known(*(role.value for role in Role))
    found = []
    for role in Role:
        own = table.table(role.value)
        for symbol, value in own.data.items():
            if symbol.startswith("CONFIG_"):
                raise own.error(symbol, f"without CONFIG_: {symbol.removeprefix('CONFIG_')}")
            if not isinstance(value, str) or not value or "\n" in value:
                raise own.error(symbol, f'expected text such as "y", "n" or "64", got {value!r}')
            found.append((role, symbol, value))
    return tuple(found)


def _times(table: Table, key: str) -> int:
    value: int = table.get(key, int, f"a number from 0 to {MAX_REPEAT}", 1)
    if not 0 <= value <= MAX_REPEAT:
        raise table.error(key, f"expected 0 to {MAX_REPEAT}, got {value}")
    return value


def _size(table: Table, default_mib: int) -> VmSize:
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


def _place(table: Table, role: Role, topology: Topology) -> tuple[bool, bool]:
    """Of an entry: whether its guest is a VM of the controller, and whether it has the platform.

    In solo every guest has the platform. In a pair only those do that ask for it.
    """
    named = [topology.value for topology in Topology]
    where = Topology(table.choice("topology", named, topology.value))
    if "topology" in table.data and role is Role.HOST:
        raise UserError(
            f"{table.where}: {table.path}.topology: only for the role guest",
            hint="the host machine is a part of the pair; leave the key out",
        )
    if where is Topology.PAIR and topology is Topology.SOLO:
        raise UserError(
            f"{table.where}: {table.path}.topology: pair in a plan for solo",
            hint='a plan with topology = "pair" may have entries with topology = "solo"',
        )
    _check_binds(table, role, where)
    solo = where is Topology.SOLO
    return solo, solo or "platform" in table.data


def _check_binds(table: Table, role: Role, where: Topology) -> None:
    """The host's kernel binds in the pair alone, and has no other business with the platform."""
    axes = parse_entry(table.table("platform"))
    if role is Role.HOST and "platform" in table.data and dict(axes).get("binds") != (BY_HOST,):
        raise UserError(
            f"{table.where}: {table.path}.platform: only for the role guest",
            hint=f'the host machine has a part in it with binds = "{BY_HOST}"',
        )
    if host_binds(axes) and where is Topology.SOLO:
        raise UserError(
            f'{table.where}: {table.path}.platform.binds: "{BY_HOST}" in topology solo',
            hint="there is no host machine; such an entry belongs into a plan for the pair",
        )


def _selection(table: Table, topology: Topology) -> TestSelection:
    table.known(
        "role", "collection", "tests", "skip", "timeout_s", "known", "sysctl",
        "topology", "platform", "expect",
    )  # fmt: skip
    role = Role(table.choice("role", [role.value for role in Role]))
    solo, on_platform = _place(table, role, topology)
    skip = table.table("skip").data
    timeout = table.get("timeout_s", (int, float), "seconds", 60)  # type: ignore[arg-type]
    if timeout <= 0:
        raise table.error("timeout_s", "expected more than 0")
    tests = table.get("tests", list, "a list of test names", ["*"])
    if not tests:
        raise table.error("tests", "names nothing to run: leave the key out for all")
    if all(str(pattern).startswith("!") for pattern in tests):
        raise table.error("tests", 'leaves out, but names nothing to run: add "*"')
    collection = table.get("collection", str, "a kselftest collection, e.g. tsm")
    if not collection.strip("/"):
        raise table.error("collection", "expected a kselftest collection, e.g. tsm")
    return TestSelection(
        role=role,
        collection=collection,
        tests=tuple(tests),
        skip=tuple((str(name), str(reason)) for name, reason in skip.items()),
        timeout_s=float(timeout),
        known=tuple(_known(table.table("known"), pattern) for pattern in table.table("known").data),
        sysctl=tuple((name, str(v)) for name, v in table.table("sysctl").data.items()),
        solo=solo,
        on_platform=on_platform,
        axes=parse_entry(table.table("platform")),
        expect=parse_expectation(table.table("expect")),
    )


def _known(table: Table, pattern: str) -> KnownFailure:
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


def matrix(plan: Plan, selection: TestSelection) -> tuple[PlatformCell | None, ...]:
    """The cells in which the tests of a selection run; (None,) without a platform."""
    if plan.platform is None or not selection.on_platform:
        return (None,)
    if selection.role is Role.HOST and not host_binds(selection.axes):
        return (None,)
    found = cells(plan.platform, selection.axes)
    nested = plan.topology is Topology.PAIR and not selection.solo
    return tuple(replace(cell, nested=True) for cell in found) if nested else found


def all_cells(plan: Plan) -> dict[str, PlatformCell]:
    """Every cell of the plan by name, in the order in which they run: those of the pair first.

    The pair's machines end before the first VM of the controller begins. In solo a plan with a
    platform has at least one cell.
    """
    found = [cell for selection in plan.selections for cell in matrix(plan, selection)]
    ordered = sorted((c for c in found if c is not None), key=lambda cell: not cell.nested)
    named = {cell.name: cell for cell in ordered}
    if plan.platform is not None and not named and plan.topology is Topology.SOLO:
        named[plan.platform.base.name] = plan.platform.base
    return named


def first_cell(plan: Plan) -> str:
    """The cell of the first test of the guest: what `boot` boots; "" without a platform."""
    for selection in plan.selections:
        if selection.role is Role.GUEST and (cell := matrix(plan, selection)[0]) is not None:
            return cell.name
        if selection.role is Role.GUEST:
            return ""
    return next(iter(all_cells(plan)), "")


def in_topology(plan: Plan, topology: Topology) -> Plan:
    """The plan as --topology makes it. In solo every guest is a VM of the controller.

    Entries in which the host binds are left out there. UserError for a plan whose platform belongs
    to solo, and when nothing is left.
    """
    if topology is plan.topology:
        return plan
    if topology is Topology.PAIR and plan.platform is not None:
        raise UserError(
            f"--topology {topology}: plan {plan.name} has a [platform] for solo",
            hint="plan default has tests of both topologies",
        )
    left = tuple(one for one in plan.selections if not host_binds(one.axes))
    if not left:
        raise UserError(
            f"--topology {topology}: plan {plan.name} has no test without a host machine",
            hint="leave the option out",
        )
    return replace(plan, topology=topology, selections=left)


def choose_tests(
    plan: Plan, built: Mapping[Role, Iterable[str]], expression: Expression | None
) -> tuple[tuple[TestId, TestSelection], ...]:
    """The tests to run, in plan order, cell by cell of the platform's matrix.

    built: per role, "collection:test" lines as installed. A name or pattern of the plan to which
    nothing that was built answers is chosen as it stands: it then ends as MISSING, never silently
    dropped. Roles absent from `built` are not part of this run.
    """
    chosen: dict[TestId, TestSelection] = {}
    for selection in plan.selections:
        if selection.role not in built:
            continue
        for name in _names(selection, built[selection.role]):
            for cell in matrix(plan, selection):
                cell_name = cell.name if cell is not None else ""
                test = TestId(selection.role, selection.collection, name, cell_name)
                if expression is None or expression.matches(str(test)):
                    chosen.setdefault(test, selection)
    order = {name: rank for rank, name in enumerate(all_cells(plan))}
    # stable: within a cell the plan's order stays, and each cell needs its machine once
    return tuple(sorted(chosen.items(), key=lambda item: order.get(item[0].cell, -1)))


def names_test(selection: TestSelection, program: str) -> bool:
    """Whether the selection's patterns name a program. "!pattern" takes out what others name."""
    wanted = [pattern for pattern in selection.tests if not pattern.startswith("!")]
    return _named(program, wanted) and not _named(program, _left_out(selection))


def _left_out(selection: TestSelection) -> list[str]:
    return [pattern[1:] for pattern in selection.tests if pattern.startswith("!")]


def _named(program: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(program, pattern) for pattern in patterns)


def _names(selection: TestSelection, built: Iterable[str]) -> Iterable[str]:
    """The tests that a selection names, and those of its patterns that match nothing built."""
    available = [
        line.split(":", 1)[1] for line in built if line.split(":", 1)[0] == selection.collection
    ]
    out = _left_out(selection)
    for pattern in selection.tests:
        if not pattern.startswith("!"):
            # left out afterwards: a pattern that names only what "!" takes out is not missing
            found = [name for name in available if fnmatchcase(name, pattern)] or [pattern]
            yield from (name for name in found if not _named(name, out))
