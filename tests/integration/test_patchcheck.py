# SPDX-License-Identifier: GPL-2.0-only
"""patchcheck on a kernel in small: real git am, make, gcc and nm, and a checkpatch in small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import cli, commands
from harness.core.patchcheck import Kind
from harness.errors import BuildError, UserError
from harness.model.kernel import Role
from harness.stages.patchcheck import SUMMARY, PatchCheck
from tests.integration.fake_kernel import Site
from tests.integration.kernel_trees import RecordedProgress, edit, format_patch, git

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("git", "make", "gcc", "awk", "perl", "nm")),
    reason="no git, make, gcc, awk, perl or nm",
)
SORT = "lib/sort.c"
Found = list[tuple[str, list[str]]]


class Series:
    """A series for the fake kernel, and patchcheck on it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.base = git(site.tree, "rev-parse", "HEAD").strip()
        self.directory = site.root / "my-series"

    def patch(self, subject: str, *edits: tuple[str, str, str], message: str = "Because.") -> None:
        """One more patch. edits: file, old text ("": a new file), new text."""
        for name, old, new in edits:
            if old:
                edit(self.site.tree, name, old, new)
            else:
                (self.site.tree / name).write_text(new)
        git(self.site.tree, "add", "--all", "--force")
        git(self.site.tree, "commit", "--quiet", "-m", f"{subject}\n\n{message}")

    def check(self, *arguments: str) -> tuple[int, Found]:
        """Exit code, and for each patch its subject and the kinds of what is wrong."""
        if not self.directory.exists():
            format_patch(self.site.tree, self.directory, self.base)
            git(self.site.tree, "reset", "--quiet", "--hard", self.base)
        argv = ["patchcheck", "guest", "--tree", str(self.site.tree), "-j", "2"]
        argv += ["--no-builtin-series", "guest", "--series", f"guest={self.directory}"]
        options = cli.parse([*argv, "--runs-dir", str(self.site.runs), *arguments])
        job = PatchCheck(
            commands.run_options(options, argv),
            (Role.GUEST,),
            RecordedProgress(),
            build=options.build,
            start=options.start,
        )
        self.record: dict[str, Any] = {}
        code = job.execute()
        self.record = json.loads((job.directory / SUMMARY).read_text())
        self.rendered = job.render()
        return code, [
            (one["subject"], [remark["kind"] for remark in one["remarks"]])
            for one in self.record["patches"]
        ]

    def objects(self) -> list[int]:
        return [one["objects"] for one in self.record["patches"]]


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Series:
    site = Site(tmp_path)
    monkeypatch.setenv("TDISP_HARNESS_CACHE", str(site.cache))
    return Series(site)


def kinds(found: Found) -> list[Sequence[str]]:
    return [remarks for _, remarks in found]


def test_a_series_that_is_fit(series: Series) -> None:
    series.patch("one", (SORT, "n + 1", "n + 2"))
    series.patch("two", ("init/main.c", "sort(1)", "sort(2)"))
    assert series.check() == (0, [("one", []), ("two", [])])
    assert series.objects() == [None, None], "nothing is compiled without --build"
    assert series.check("--build") == (0, [("one", []), ("two", [])])
    assert series.objects() == [1, 1], "only what each patch changes"
    assert series.record["complete"]


def test_checkpatch_judges_each_patch(series: Series) -> None:
    series.patch("one", (SORT, "n + 1", "n + 2"), message="word " * 20)
    series.patch("two", (SORT, "n + 2;", "n + 3; "))
    series.patch("three", (SORT, "n + 3; ", "n + 3;"))
    code, found = series.check()
    assert code == 1
    assert kinds(found) == [[Kind.STYLE], [Kind.STYLE], []]
    assert "COMMIT_LOG_LONG_LINE" in series.rendered
    assert "MISSING_SIGN_OFF" not in series.rendered, "a person signs"


@pytest.mark.parametrize("build", [(), ("--build",)])
def test_a_patch_that_does_not_apply_ends_it(series: Series, build: tuple[str, ...]) -> None:
    for number in (1, 2, 3):
        series.patch(f"patch {number}", (SORT, f"n + {number}", f"n + {number + 1}"))
    format_patch(series.site.tree, series.directory, series.base)
    git(series.site.tree, "reset", "--quiet", "--hard", series.base)
    broken = sorted(series.directory.glob("*.patch"))[1]
    broken.write_text(broken.read_text().replace("n + 2", "n + 7"))
    code, found = series.check(*build)
    assert code == 1
    assert found == [("patch 1", []), ("patch 2", [Kind.APPLY])], "the third cannot be judged"


def test_a_patch_that_the_next_one_repairs_does_not_build(series: Series) -> None:
    series.patch("one", (SORT, "n + 1;", "n + missing;"))
    series.patch("two", (SORT, "n + missing;", "n + 2;"))
    code, found = series.check("--build")
    assert (code, kinds(found)) == (1, [[Kind.BUILD], []])
    assert "missing" in series.rendered


def test_a_new_warning_is_found_each_time_and_an_old_one_is_not_blamed(series: Series) -> None:
    # a warning of the base, which the patches only move
    edit(
        series.site.tree,
        SORT,
        "int sort(int n)\n{",
        "int sort(int n);\nint old(int x);\nint old(int x) { return 1; }\n\nint sort(int n)\n{",
    )
    git(series.site.tree, "commit", "--quiet", "-a", "-m", "base with a warning")
    series.base = git(series.site.tree, "rev-parse", "HEAD").strip()
    series.patch("moves", (SORT, "int old(int x);", "\n\nint old(int x);"))
    series.patch(
        "warns",
        (
            SORT,
            "int old(int x);",
            "int old(int x);\nint fresh(int y);\nint fresh(int y) { return 2; }",
        ),
    )
    series.patch(
        "mends", (SORT, "int fresh(int y) { return 2; }", "int fresh(int y) { return y; }")
    )
    for attempt in range(2):
        code, found = series.check("--build")
        assert (code, kinds(found)) == (1, [[], [Kind.WARNING], []]), f"attempt {attempt}"
        assert "unused parameter" in series.rendered


def test_a_source_that_nothing_compiles_is_no_pass(series: Series) -> None:
    series.patch("adds", ("lib/other.c", "", "int other;\n"), (SORT, "n + 1", "n + 2"))
    code, found = series.check("--build")
    assert (code, kinds(found)) == (1, [[Kind.NOT_BUILT]])
    assert "lib/other.c" in series.rendered


def test_objects_of_an_earlier_check_do_not_count(series: Series) -> None:
    declared = "int later(int n);\nint sort(int n)\n{\n\tn = later(n);"
    series.patch("adds", ("lib/other.c", "", "int later(int n) { return n; }\n"))
    series.patch("compiles", ("Makefile", "lib/sort.o\n", "lib/sort.o lib/other.o\n"))
    series.patch("calls", (SORT, "int sort(int n)\n{", declared))
    for _ in range(2):
        code, found = series.check("--build")
        assert (code, kinds(found)) == (0, [[], [], []])
    shutil.rmtree(series.directory)
    git(series.site.tree, "reset", "--quiet", "--hard", series.base)
    series.patch("calls too early", (SORT, "int sort(int n)\n{", declared))
    series.patch("adds", ("lib/other.c", "", "int later(int n) { return n; }\n"))
    series.patch("compiles", ("Makefile", "lib/sort.o\n", "lib/sort.o lib/other.o\n"))
    code, found = series.check("--build")
    assert (code, kinds(found)) == (1, [[Kind.SYMBOL], [], []])


def test_a_source_that_a_later_patch_compiles(series: Series) -> None:
    series.patch("adds", ("lib/other.c", "", "int other;\n"), (SORT, "n + 1", "n + 2"))
    series.patch("selects", ("Makefile", "lib/sort.o\n", "lib/sort.o lib/other.o\n"))
    code, found = series.check("--build")
    assert (code, kinds(found)) == (0, [[], []])


def test_a_function_that_a_later_patch_defines(series: Series) -> None:
    series.patch(
        "calls",
        (SORT, "int sort(int n)\n{", "int later(int n);\nint sort(int n)\n{\n\tn = later(n);"),
    )
    series.patch(
        "defines",
        (
            "init/main.c",
            "void start_kernel",
            "int later(int n);\nint later(int n) { return n; }\n\nvoid start_kernel",
        ),
    )
    code, found = series.check("--build")
    assert (code, kinds(found)) == (1, [[Kind.SYMBOL], []])
    assert "defined later: later" in series.rendered


def test_from_begins_in_the_middle(series: Series) -> None:
    series.patch("one", (SORT, "n + 1;", "n + missing;"))
    series.patch("two", (SORT, "n + missing;", "n + 2;"))
    series.patch("three", (SORT, "n + 2;", "n + 3;"))
    assert series.check("--build", "--from", "0003") == (0, [("three", [])])
    with pytest.raises(BuildError) as caught:
        series.check("--build", "--from", "my-series/0002")
    assert "before the first patch does not build" in caught.value.message
    with pytest.raises(UserError):
        series.check("--from", "0004")


def test_from_needs_a_role() -> None:
    assert cli.main(["patchcheck", "--from", "0001"]) == 64


def test_a_tree_without_checkpatch(series: Series) -> None:
    (series.site.tree / "scripts/checkpatch.pl").unlink()
    git(series.site.tree, "commit", "--quiet", "-a", "-m", "base without checkpatch")
    series.base = git(series.site.tree, "rev-parse", "HEAD").strip()
    series.patch("one", (SORT, "n + 1", "n + 2"))
    with pytest.raises(UserError) as caught:
        series.check()
    assert "checkpatch.pl" in caught.value.message
