# SPDX-License-Identifier: GPL-2.0-only
"""The documents say what is there: links, commands, targets, the status table, no private names."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cli
from harness.adapters.process import run
from harness.core.plan import matrix, parse_plan
from harness.layout import KSELFTESTS, REPOSITORY

SPDX = "<!-- SPDX-License-Identifier: GPL-2.0-only -->"
ROWS = [f"S{number}" for number in range(1, 13)]
# Put together here, so that this file does not hold what it looks for.
WORK = "/".join(("", "work", ""))
DEV = "/".join(("", "tmp", "dev"))
LIBRARY = ".".join(("", "library/"))
MIRROR = ".".join(("deb", "debian", "org"))
PRIVATE = {
    "a path of one machine": re.compile(
        rf"(?<![\w.~}}$-]){WORK}|{DEV}\b|(?<!\w){re.escape(LIBRARY)}"
    ),
    "a Debian mirror": re.compile(
        r"\b(?!(?:www|bugs|wiki|packages|tracker)\.)(?:[a-z0-9-]+\.)+debian\.(?:org|net)\b"
        r"|https?://(?:mirrors?|ftp|apt|deb|httpredir)\.(?![\w.-]*\bexample\b)[\w-]+"
    ),
}
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository that git knows and that are there."""
    argv = ("git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "ls-files", "-z")
    names = run(argv).out.split("\0")
    return tuple(REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file())


def markdown_files() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def manual() -> str:
    return (REPOSITORY / "README.md").read_text() + (REPOSITORY / "docs/running.md").read_text()


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    return broken


def private_names(text: str) -> list[str]:
    """What a text names that is nobody else's business."""
    return [f"{what}: {m[0]}" for what, rule in PRIVATE.items() for m in rule.finditer(text)]


def status_rows() -> dict[str, str]:
    text = (REPOSITORY / "README.md").read_text()
    return dict(re.findall(r"^\| (S\d+) \|(.*)\|$", text, re.MULTILINE))


def named_subtests() -> Iterator[tuple[str, str, str]]:
    """(program, fixture, name) of every subtest in the status table; name "*": any of the fixture.

    A subtest is one of the program that is named last before it.
    """
    rule = re.compile(r"`(?:host|guest):tsm:(\w+)[@`]|`(\w+)\.(?:[\w*]+\.)?(\w+|\*)`")
    for row in status_rows().values():
        program = ""
        for found in rule.finditer(row):
            program = found[1] or program
            if not found[1]:
                assert program, row
                yield program, found[2], found[3]


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: page.name)
def test_pages_have_a_licence_and_no_broken_link(page: Path) -> None:
    assert page.read_text().startswith(SPDX)
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One two\n[x](b.md) [y](a.md#one-two) [z](#nowhere) [w](https://a.example)\n")
    assert broken_links(page) == ["b.md", "#nowhere"]


def torn_tables(text: str) -> list[str]:
    """The first line of each block of table rows that has no head, and so is shown as it stands."""
    blocks = re.findall(r"(?:^\|.*\n)+", _FENCE.sub("", text), re.MULTILINE)
    return [
        block.partition("\n")[0] for block in blocks if not re.match(r"\|.*\n\|[-|: ]+\n", block)
    ]


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: page.name)
def test_every_table_has_its_head(page: Path) -> None:
    assert torn_tables("| a |\n|---|\n| 1 |\n\n| 2 |\n") == ["| 2 |"]
    assert torn_tables(page.read_text()) == []


def test_every_verb_says_what_its_exit_codes_mean() -> None:
    verbs = next(
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    said = {
        name: verb.format_help().partition("exit codes:\n")[2]
        for name, verb in verbs.choices.items()
    }
    assert "1   B is worse" in said["compare"]
    assert "1   a mutant survived" in said["mutants"]
    assert "1   something is wrong with a patch" in said["patchcheck"]
    assert "all tests that ran passed" not in said["mutants"] + said["patchcheck"]
    assert "1   a build failed, or a kernel" in said["boot"]


def test_every_verb_is_in_the_manual() -> None:
    verbs = [
        verb
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for verb in action.choices
    ]
    assert "run" in verbs
    assert [v for v in verbs if not re.search(rf"tdisp-harness {v}\b", manual())] == []


def test_every_option_of_run_is_in_the_manual() -> None:
    verbs = next(
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    options = [
        option
        for name in ("run", "build", "boot", "report", "doctor")
        for action in verbs.choices[name]._actions
        for option in action.option_strings
        if option != "-h"
    ]
    assert "--series" in options
    assert [o for o in options if not re.search(rf"`{o}\b", manual())] == []


def test_every_make_target_is_in_the_manual() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE)
    assert "run" in targets
    assert [t for t in targets if not re.search(rf"make {t}\b", manual())] == []


def test_the_status_table_has_all_rows() -> None:
    assert list(status_rows()) == ROWS
    for name, row in status_rows().items():
        shown = row.split("|")[1]
        assert "not shown yet" in shown or ":" in shown, f"{name}: names no test: {shown}"


def test_tests_named_in_the_status_table_exist() -> None:
    subtests = list(named_subtests())
    assert subtests
    for program, fixture, name in subtests:
        source = (KSELFTESTS / "tsm" / f"{program}.c").read_text()
        case = r"\w+" if name == "*" else name
        assert re.search(rf"^TEST_F(?:_TIMEOUT)?\({fixture}, {case}[,)]", source, re.MULTILINE), (
            name
        )


def where_tests_run(plan_name: str) -> set[str]:
    """`guest:tsm:rebind`, with `@` and each cell in which it runs; `*`: all others."""
    path = REPOSITORY / f"configs/plans/{plan_name}.toml"
    plan = parse_plan(path.read_text(), str(path), plan_name)
    found = set()
    for one in plan.selections:
        on = [cell for cell in matrix(plan, one) if cell is not None]
        for test in one.tests:
            name = f"{one.role}:{one.collection}:{test}"
            found |= {name, *(f"{name}@{cell.name}" for cell in on)}
    return found


def test_the_status_table_names_what_the_plans_run() -> None:
    run = where_tests_run("default") | where_tests_run("explosion")
    named = re.findall(r"`((?:host|guest):tsm:[\w@+-]+)`", "".join(status_rows().values()))
    assert "guest:tsm:rebind@model-A" in named
    everything = {"host:tsm:*": "host:tsm:tsm_class", "guest:tsm:*": "guest:tsm:dma_freeze"}
    assert everything.keys() <= run
    assert set(named) - run - set(everything.values()) == set()


def test_the_new_kselftest_of_the_documentation_passes_make_check() -> None:
    """What git has to ignore is told with the line of the Makefile: test_catalogue.py compares."""
    page = (REPOSITORY / "docs/writing-a-test.md").read_text()
    (built,) = re.findall(r"^TEST_GEN_PROGS \+= (\w+)$", page, re.MULTILINE)
    assert f"```\n/{built}\n```" in page
    assert ".gitignore" in page


def claims() -> list[tuple[str, list[str]]]:
    """(what was asked, tests named for it) of each row in docs/verdict.md."""
    text = (REPOSITORY / "docs/verdict.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
    return [
        (
            asked,
            re.findall(r"`(\w+/\w+\.py::\w+)`", shown) or re.findall(r"`[^`]*\bbench\w*`", shown),
        )
        for asked, shown in rows
        if asked != "asked"
    ]


def test_what_the_verdict_rests_on_is_tested() -> None:
    """Each row names a test or a measurement, and each test named is there."""
    found = claims()
    assert len(found) > 70
    assert [asked for asked, tests in found if not tests] == []
    text = (REPOSITORY / "docs/verdict.md").read_text()
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", text)
    assert text.count("::") == len(named), "a name that is not of the form directory/file.py::test"
    absent = [
        f"{file}::{name}"
        for file, name in named
        if f"\ndef {name}(" not in (REPOSITORY / "tests" / file).read_text()
    ]
    assert absent == []


def test_every_top_level_directory_is_in_the_readme() -> None:
    text = (REPOSITORY / "README.md").read_text()
    tops = {file.relative_to(REPOSITORY).parts[0] for file in tracked()}
    directories = sorted(top for top in tops if (REPOSITORY / top).is_dir())
    assert "harness" in directories
    assert [name for name in directories if f"`{name}/`" not in text] == []


def test_no_file_names_private_places() -> None:
    found = [
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file in tracked()
        if file.suffix != ".patch"
        for name in private_names(file.read_bytes().decode(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        (f"cd {WORK}main", True),
        (f"({DEV}/x)", True),
        (f"see /x/{LIBRARY}README", True),
        (f"http://{MIRROR}/debian", True),
        (MIRROR.replace("org", "net"), True),
        ("https://mirrors." + "somewhere.net/debian", True),
        (f"~/.cache/tdisp-harness{WORK}guest", False),
        (f"{DEV}ices", False),
        ("http://mirror.example/debian", False),
        ("https://bugs.debian.org/1", False),
    ],
)
def test_private_names_are_told_from_others(text: str, bad: bool) -> None:
    assert bool(private_names(text)) is bad
