# SPDX-License-Identifier: GPL-2.0-only
"""reproduce.sh: a POSIX shell script in the run directory that runs the same thing again.

It carries the pins of its run, so what cannot be had any more is told and not replaced silently.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

from harness.model.results import RunResult
from harness.report.text import one_line

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_PATHS = ("--tree", "--tarball", "--lab")
_OURS = ("--runs-dir", "--pins")
FLAGS = ("--keep", "--allow-differences")  # the options of run, build and boot without a value

_HEAD = """\
#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs {run_id} again, with the plan and series copied beside this script.
# The result goes to "reproduced/" beside it, or to the directory named by $REPRODUCE_RUNS.
#
# Written by tdisp-harness {version}{at_commit}.
{how_to_get}#
# The original verdict:
#   {verdict}
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 2
harness=${{TDISP_HARNESS:-tdisp-harness}}
runs=${{REPRODUCE_RUNS:-$here/reproduced}}

say() {{ printf 'reproduce: %s\\n' "$*" >&2; }}

if ! command -v "$harness" >/dev/null 2>&1; then
    say "$harness not found; put it on PATH or set TDISP_HARNESS to its path (see the head of $0)"
    exit 2
fi
mkdir -p -- "$runs" || exit 2
"""

_PIN_TREE = """
# The kernel tree may have moved on: give the harness a borrowed clone that stands at the commit.
commit={commit}
tree={tree}
pinned=$runs/tree-$commit
if ! git -C "$tree" cat-file -e "$commit^{{commit}}"; then
    say "$tree does not hold commit $commit; fetch it there first"
    exit 2
fi
if ! [ -d "$pinned" ]; then
    git clone --quiet --shared --no-checkout -- "$tree" "$pinned" || exit 2
fi
git -C "$pinned" update-ref --no-deref HEAD "$commit" || exit 2
"""

_PINS = """
# What the original run was made of. The harness refuses to go on where it finds anything else;
# REPRODUCE_ANYWAY=1 turns that into a note.
pins=$runs/pins.json
cat >"$pins" <<'PINS' || exit 2
{pins}
PINS
"""

_RUN = """
# The arguments are the user's own, letter by letter.
# shellcheck disable=SC2016
exec {command}
"""


def render(
    result: RunResult,
    args: Sequence[str],
    *,
    harness_commit: str,
    files: Mapping[str, str],
    pins: Mapping[str, str],
    plan: str = "",
    cwd: str = "",
) -> str:
    """The script's text, to be written executable as reproduce.sh in the run directory.

    args: the arguments after the program's name, as the user gave them.
    harness_commit: commit of the harness, with "-dirty" when it had local changes; "" if unknown.
    files: path of a series -> path of its copy relative to the run directory, e.g.
    {"/home/me/v2": "series/guest/v2"}. plan: the copy of the plan, likewise; it takes the place of
    the one that the arguments name, if any. pins: of the run (core/pins.py).
    cwd: where the run was started; relative paths of trees, tarballs and labs are meant from there.
    """
    arguments = _absolute(_without(args, _OURS), cwd)
    tree = _option(arguments, "--tree")
    git_ids = {k.source_id for k in result.kernels if k.source_kind == "git"}
    commit = git_ids.pop() if len(git_ids) == 1 else ""
    pin = bool(tree) and _COMMIT.fullmatch(commit) is not None
    if pin:
        arguments = _without(arguments, ("--ref",))
    at = _plan_at(arguments)
    words = [
        _word(option, argument, files, tree if pin else "")
        for option, argument in pairwise(["", *arguments])
    ]
    if plan and words:
        words[at or 1 : at + 1] = [f'"$here"/{shlex.quote(plan)}']
    text = _HEAD.format(
        run_id=_comment(result.run_id),
        version=_comment(result.harness_version),
        at_commit=f", commit {_comment(harness_commit)}" if harness_commit else "",
        how_to_get=_how_to_get(harness_commit),
        verdict=f"{result.verdict.value}, exit code {result.exit_code}",
    )
    if pin:
        text += _PIN_TREE.format(commit=commit, tree=shlex.quote(tree))
    rest = [*_pair_options(words[1:]), *(['--ref "$commit"'] if pin else []), '--runs-dir "$runs"']
    if pins:
        text += _PINS.format(pins=json.dumps(dict(pins), indent=1))
        rest += ['--pins "$pins"', "${REPRODUCE_ANYWAY:+--allow-differences}"]
    lines = ['"$harness"', *words[:1], *rest]
    return text + _RUN.format(command=" \\\n    ".join(lines))


def _how_to_get(harness_commit: str) -> str:
    commit = harness_commit.removesuffix("-dirty")
    if not _COMMIT.fullmatch(commit):
        return "# Its commit is not known: it did not run from a git checkout.\n"
    short = commit[:12]
    text = (
        "# To get that harness, in a checkout of its repository:\n"
        f"#   git fetch --all && git worktree add ../tdisp-harness-{short} {commit}\n"
        f"#   cd ../tdisp-harness-{short} && python3 -m venv .venv && .venv/bin/pip install -e .\n"
        '#   TDISP_HARNESS="$PWD/.venv/bin/tdisp-harness" sh <this script>\n'
    )
    if harness_commit.endswith("-dirty"):
        text += "# It had local changes on top of the commit, which are not kept here.\n"
    return text


def _without(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """Without these options and their values, nor --allow-differences."""
    kept: list[str] = []
    skip = False
    for argument in args:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        elif argument != "--allow-differences" and argument.partition("=")[0] not in names:
            kept.append(argument)
    return kept


def _absolute(args: Sequence[str], cwd: str) -> list[str]:
    """With the paths of _PATHS as they are seen from anywhere."""
    found: list[str] = []
    for argument in args:
        name, equals, value = argument.partition("=")
        if name in _PATHS and equals:
            found.append(f"{name}={posixpath.join(cwd, value)}")
        elif found and found[-1] in _PATHS:
            found.append(posixpath.join(cwd, argument))
        else:
            found.append(argument)
    return found


def _option(args: Sequence[str], name: str) -> str:
    """The last value of an option, "" when it was not given."""
    value = ""
    for index, argument in enumerate(args):
        if argument == name and index + 1 < len(args):
            value = args[index + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def _plan_at(args: Sequence[str]) -> int:
    """Index of the plan in a verb's arguments, 0 without one: no option, nor the value of one."""
    for index, (before, word) in enumerate(pairwise(args), 1):
        # "-kEXPR" and "--option=value" have their value with them
        bare = re.fullmatch(r"-[a-z]|--[a-z-]+", before) is not None and before not in FLAGS
        if not word.startswith("-") and not bare:
            return index
    return 0


def _word(before: str, argument: str, files: Mapping[str, str], tree: str) -> str:
    """One argument as a shell word, pointed at the copy of a series or at the pinned tree.

    before: the argument before it.
    """
    name, equals, value = argument.partition("=")
    if equals and name.startswith("--"):
        prefix = f"{name}="
    else:
        name, prefix, value = before, "", argument
    if tree and (name, value) == ("--tree", tree):
        return prefix + '"$pinned"'
    role, _, path = value.partition("=")
    if name == "--series" and path in files:
        return shlex.quote(f"{prefix}{role}=") + f'"$here"/{shlex.quote(files[path])}'
    return shlex.quote(argument)


def _pair_options(words: Sequence[str]) -> list[str]:
    """An option and its value on one line."""
    lines: list[str] = []
    for word in words:
        bare_option = bool(lines) and re.fullmatch(r"--?[a-z-]+", lines[-1]) is not None
        if bare_option and not word.startswith("-"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _comment(text: str) -> str:
    """Text that cannot leave its comment line."""
    return one_line(text, 120).replace("\\", "/")
