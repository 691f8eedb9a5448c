# SPDX-License-Identifier: GPL-2.0-only
"""The KTAP parser on anything: no exception, no invented pass, no lost failure, linear time."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.ktap import parse, to_json
from harness.model.results import KtapReport, Outcome

DATA = Path(__file__).parent / "data" / "ktap"
TEXTS = sorted(DATA.glob("*.ktap"))
NOISE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[()].|[@-Z\\-_])")

PIECES = st.sampled_from(
    [
        *("ok", "not ok", "ok 1", "not ok 2", " a", " selftests: t: a", "# selftests: t: a", "\n"),
        *("\n", "\n", "# ", "  ", "    ", "TAP version 13", "KTAP version 1", "1..", "1..2", "3"),
        *(" # SKIP", " # TODO", " # XFAIL x", " # TIMEOUT 4", "# exit=3", "Bail out!", "\t", "\r"),
        *("[    1.000000] ", "<6>", "\x1b[0m", "\0", "\ufffd", "# Totals: pass:1 fail:0 skip:0"),
        *("#  RUN  a.b ...", "# Subtest: s", " - ", "\\#", " total:1", "1..0 # SKIP", "\ud800"),
    ]
)
KTAP_LIKE = st.lists(PIECES, max_size=60).map("".join)


def check(data: bytes | str) -> KtapReport:
    """What must hold for every input."""
    report = parse(data)
    to_json(report)
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    rows = NOISE.sub("", text).split("\n")
    grounded = {n for n, row in enumerate(rows, 1) if re.search(r"(?<!not )ok", row)}
    passes = [case for case in report.cases if case.outcome is Outcome.PASS]
    assert {case.line for case in passes} <= grounded
    ids = [case.id for case in report.cases]
    assert len(ids) == len(set(ids))
    assert all(case.id and all(case.id) for case in report.cases)
    assert report.cases or report.problems
    return report


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text(text: str) -> None:
    check(text)


@given(st.binary())
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(KTAP_LIKE)
@settings(max_examples=600, deadline=None)
def test_anything_like_ktap(text: str) -> None:
    check(text)


Tree = list[tuple[bool, "Tree"]]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.lists(st.tuples(st.booleans(), st.just([])), min_size=1, max_size=3),
    lambda inner: st.lists(
        st.tuples(st.booleans(), st.one_of(st.just([]), inner)), min_size=1, max_size=3
    ),
    max_leaves=12,
)


def passed(ok: bool, kids: Tree) -> bool:
    return all(passed(*kid) for kid in kids) if kids else ok


def render(tree: Tree, lead: str, step: str) -> list[str]:
    rows = [f"{lead}KTAP version 1", f"{lead}1..{len(tree)}"]
    for number, (ok, kids) in enumerate(tree, 1):
        if kids:
            rows += render(kids, lead + step, step)
        word = "ok" if passed(ok, kids) else "not ok"
        rows.append(f"{lead}{word} {number} t{number}")
    return rows


def expected(tree: Tree, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Outcome]]:
    out: list[tuple[tuple[str, ...], Outcome]] = []
    for number, (ok, kids) in enumerate(tree, 1):
        key = (*prefix, f"t{number}")
        out += expected(kids, key) if kids else [(key, Outcome.PASS if ok else Outcome.FAIL)]
    return out


@given(TREES, st.sampled_from(["# ", "  ", "    "]), st.sampled_from(["", "[    1.234567] "]))
@settings(max_examples=200, deadline=None)
def test_any_well_formed_tree(tree: Tree, step: str, prefix: str) -> None:
    text = "".join(f"{prefix}{row}\n" for row in render(tree, "", step))
    report = parse(text)
    assert [(case.id, case.outcome) for case in report.cases] == expected(tree)
    assert report.problems == ()


@given(TREES, st.sampled_from(["# ", "  "]), st.data())
@settings(max_examples=200, deadline=None)
def test_a_truncated_tree_is_never_clean(tree: Tree, step: str, data: st.DataObject) -> None:
    text = "".join(f"{row}\n" for row in render(tree, "", step))
    report = check(text[: data.draw(st.integers(0, len(text) - 2))])
    assert report.problems or not all(case.outcome.good for case in report.cases)


@given(TREES, st.data())
@settings(max_examples=200, deadline=None)
def test_a_lost_line_is_never_a_clean_pass(tree: Tree, data: st.DataObject) -> None:
    rows = render(tree, "", "  ")
    points = [n for n, row in enumerate(rows) if "ok " in row]
    del rows[data.draw(st.sampled_from(points))]
    report = check("\n".join(rows) + "\n")
    assert report.problems or not all(case.outcome.good for case in report.cases)


def mutations(data: bytes, rng: random.Random) -> bytes:
    """One to four small damages: a byte, a lost piece, a repeated piece, a swapped line."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.randint(1, 40))
        match rng.randrange(5):
            case 0:
                out[at:at] = bytes([rng.randrange(256)])
            case 1:
                del out[at:end]
            case 2:
                out[at:at] = out[at:end]
            case 3:
                out[at:end] = bytes(rng.choice(b"ok not1.#\n\r\0\x1b[]") for _ in range(end - at))
            case _:
                rows = out.split(b"\n")
                first, second = rng.randrange(len(rows)), rng.randrange(len(rows))
                rows[first], rows[second] = rows[second], rows[first]
                out = bytearray(b"\n".join(rows))
    return bytes(out)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_damaged_golden_texts(path: Path) -> None:
    data = path.read_bytes()
    rng = random.Random(path.stem)
    for _ in range(60):
        check(mutations(data, rng))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_truncated_golden_texts(path: Path) -> None:
    """A pass that the whole text does not confirm comes with a problem."""
    data = path.read_bytes()
    whole = {(case.line, case.outcome) for case in parse(data).cases}
    for end in range(0, len(data), max(1, len(data) // 150)):
        report = check(data[:end])
        new = {(c.line, c.outcome) for c in report.cases if c.outcome is Outcome.PASS} - whole
        assert not new or report.problems


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_kernel_message_inside_a_line_hides_nothing(path: Path) -> None:
    """Wherever it lands, no failure and no skip turns silently into a pass."""
    data = path.read_bytes()

    def passes(report: KtapReport) -> int:
        return sum(case.outcome is Outcome.PASS for case in report.cases)

    before = passes(parse(data))
    message = b"[   12.345678] usb 1-1: new device\n"
    for at in range(0, len(data), max(1, len(data) // 250)):
        report = parse(data[:at] + message + data[at:])
        assert passes(report) <= before or report.problems, data[max(0, at - 40) : at + 40]


def flat(n: int) -> str:
    return f"TAP version 13\n1..{n}\n" + "".join(
        f"ok {i} test {i % 1000}\n" for i in range(1, n + 1)
    )


def runner(n: int) -> str:
    rows = [
        *("# selftests: t: x", "# TAP version 13", "# 1..2", "# ok 1 a", "# not ok 2 b # TODO"),
        "ok 1 selftests: t: x\n",
    ]
    return "TAP version 13\n" + "\n".join(rows) * (n // 6)


SHAPES: dict[str, Callable[[int], str]] = {
    "flat": flat,
    "runner": runner,
    "versions": lambda n: "TAP version 13\n" * n,
    "plans": lambda n: "1..9999\n" * n,
    "staircase": lambda n: "".join(" " * (i % 60) + "ok 1 x\n" for i in range(n)),
    "headers": lambda n: "".join(f"# selftests: t: x{i}\n" for i in range(n)),
    "torn": lambda n: (
        "".join(f"#  RUN  f.{i} ...\n" for i in range(n)) + "ok 1 f[ 1.000000] \n" * n
    ),
    "glued": lambda n: "# selftests: t: a\n" + "# xok 1 selftests: t: b" * n,
    "totals": lambda n: "1..2\n" + "# ok 1 a\n# # Totals: pass:1 fail:0 skip:0 total:1\n" * n,
    "prefixes": lambda n: "".join(
        f"{chr(97 + i % 26) * (i % 70)}: KTAP version 1\n" for i in range(n)
    ),
    "one line": lambda n: "ok 1 " + "a # b\\# [ 1. " * n,
    "spaces": lambda n: "1..1\nok 1 a" + " " * n * 8 + "x\n# RUN" + " " * n * 8 + "x ...\n",
    "escapes": lambda n: "\x1b]" * n + "\x1b[" * n + "[" * n + "\r" * n,
}


def seconds(text: str) -> float:
    start = time.process_time()
    parse(text)
    return time.process_time() - start


@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_linear(shape: str) -> None:
    """Four times the input may take at most ten times as long (quadratic would be sixteen).

    One good round of five is enough: on a busy machine CPU time is no constant either.
    """
    small, large = SHAPES[shape](5_000), SHAPES[shape](20_000)
    assert any(seconds(large) < 10 * seconds(small) + 0.02 for _ in range(5))


@pytest.mark.slow
def test_a_million_lines() -> None:
    text = runner(1_000_000)
    assert text.count("\n") > 999_000
    start = time.process_time()
    report = parse(text.encode())
    assert time.process_time() - start < 40  # about 5 s; the rest is for slow machines
    assert sum(case.outcome is Outcome.PASS for case in report.cases) == 1_000_000 // 6
