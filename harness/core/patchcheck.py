# SPDX-License-Identifier: GPL-2.0-only
"""Checking a series patch by patch: what checkpatch said, what has to compile, the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath

from harness.errors import UserError
from harness.model.kernel import Patch, Role

# MISSING_SIGN_OFF: a person signs when sending. UNKNOWN_COMMIT_ID: an unpacked tree has no history.
IGNORED = ("MISSING_SIGN_OFF", "UNKNOWN_COMMIT_ID")
_TERSE = re.compile(r".*?:(\d+): (ERROR|WARNING|CHECK):(\w+): (.*)")
# Built by other makefiles than that of the kernel, or not at all
_ELSEWHERE = ("Documentation", "samples", "scripts", "tools", "usr")
_KERNEL_DOC = re.compile(r"Warning: ([^\s:]+):(\d+):? (.*)")
_COMPILED = (".c", ".S")


class Kind(StrEnum):
    """What is wrong with a patch."""

    APPLY = "does not apply"
    STYLE = "checkpatch"
    BUILD = "does not build"
    WARNING = "new warning"
    NOT_BUILT = "not compiled"
    SYMBOL = "defined later"


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that is wrong. file and line: in the tree, for checkpatch in the patch."""

    kind: Kind
    text: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " * bool(self.file)
        return f"{self.kind.value}: {where}{self.text}"


@dataclass(frozen=True, slots=True)
class Checked:
    """A patch that was looked at. objects: how many were compiled, None without --build."""

    role: Role
    series: str
    name: str
    subject: str
    objects: int | None
    remarks: tuple[Remark, ...] = ()


def parse_checkpatch(text: str, returncode: int, patch: str) -> tuple[Remark, ...]:
    """The output of `checkpatch.pl --terse --show-types --no-summary` for one patch."""
    found = tuple(
        Remark(Kind.STYLE, f"{match[2]}:{match[3]}: {match[4]}", patch, int(match[1]))
        for match in map(_TERSE.fullmatch, text.splitlines())
        if match is not None
    )
    if returncode != 0 and not found:
        said = text.strip().splitlines()[-1:] or [f"exit status {returncode}"]
        return (Remark(Kind.STYLE, said[0], patch),)
    return found


def kernel_doc_warning(line: str) -> tuple[str, int, str] | None:
    """File, line and text of a warning that scripts/kernel-doc prints in a build with W=1."""
    match = _KERNEL_DOC.fullmatch(line)
    return None if match is None else (match[1], int(match[2]), f"kernel-doc: {match[3]}")


def starts_at(patches: Sequence[Patch], wanted: str) -> int:
    """Index of the patch that --from names: SERIES/NAME, or the beginning of either.

    UserError when none or several begin so. "" is the first.
    """
    if not wanted:
        return 0
    names = [f"{p.series.rpartition('/')[2]}/{p.name}" for p in patches]
    hits = [
        i
        for i, (name, patch) in enumerate(zip(names, patches, strict=True))
        if name.startswith(wanted) or patch.name.startswith(wanted)
    ]
    if "/" not in wanted and len(hits) > 1:
        # the name of a series means its first patch
        hits = [i for i in hits if names[i].startswith(f"{wanted}/")][:1] or hits
    if len(hits) == 1:
        return hits[0]
    what = "names no patch" if not hits else f"names {len(hits)} patches"
    series = dict.fromkeys(name.partition("/")[0] for name in names)
    of_series = [name for name in names if name.startswith(f"{wanted.partition('/')[0]}/")]
    there = [names[i] for i in hits] or of_series or series
    raise UserError(f"--from {wanted}: {what}", hint=f"there are: {', '.join(there)}")


def objects_of(patch: Patch) -> tuple[str, ...]:
    """The sources that a patch touches and kbuild compiles, e.g. "kernel/dma/freeze.c"."""
    return tuple(
        path
        for path in patch.files
        if path.endswith(_COMPILED) and PurePosixPath(path).parts[0] not in _ELSEWHERE
    )


def touches_kconfig(patch: Patch) -> bool:
    return any(PurePosixPath(path).name.startswith("Kconfig") for path in patch.files)


def directories(patches: Sequence[Patch]) -> tuple[str, ...]:
    """Where the sources of a series lie, e.g. "kernel/dma/"; one below another is left out."""
    found = {str(PurePosixPath(path).parent) for patch in patches for path in objects_of(patch)}
    found.discard(".")
    return tuple(
        f"{one}/"
        for one in sorted(found)
        if not any(str(above) in found for above in PurePosixPath(one).parents)
    )


def undefined(listing: str) -> tuple[frozenset[str], frozenset[str]]:
    """(undefined, defined) global symbols out of `nm --format=posix --extern-only`."""
    defined, wanted = set[str](), set[str]()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 2 and len(fields[1]) == 1:
            (wanted if fields[1] == "U" else defined).add(fields[0])
    return frozenset(wanted - defined), frozenset(defined)


def defined_later(
    unresolved: Sequence[Collection[str]], defined: Sequence[Collection[str]]
) -> Mapping[int, tuple[str, ...]]:
    """Index of a patch -> symbols that it needs and that only a later patch defines.

    unresolved, defined: of the objects in the directories of the series, after each patch. What
    none of them ever defines comes from another part of the kernel.
    """
    found = {}
    for at, names in enumerate(unresolved):
        later = set[str]().union(*defined[at + 1 :]) if at + 1 < len(defined) else set[str]()
        before = set(unresolved[at - 1]) if at else set[str]()
        if missing := sorted(set(names) & later - before):
            found[at] = tuple(missing)
    return found


def built_later(checked: Sequence[Checked], built: Callable[[str], bool]) -> list[Checked]:
    """Without remarks about sources that compiled after all: a later patch selects their symbol.

    built: whether a source has an object after the last patch.
    """
    kept = []
    for one in checked:
        remarks = (r for r in one.remarks if r.kind is not Kind.NOT_BUILT or not built(r.file))
        kept.append(replace(one, remarks=tuple(remarks)))
    return kept


def exit_code(checked: Sequence[Checked], complete: bool) -> int:
    """1 when something is wrong with a patch, 2 when not all were looked at, else 0."""
    if any(one.remarks for one in checked):
        return 1
    return 0 if complete and checked else 2


def render(checked: Sequence[Checked]) -> str:
    """The table for a terminal: one line per patch, what is wrong below it."""
    lines = []
    for one in checked:
        state = "FAIL" if one.remarks else "ok"
        built = "" if one.objects is None else f"{one.objects:>5} objects"
        where = f"{one.series}/{one.name.removesuffix('.patch')}"
        lines.append(f"{state:<4}{built}  {one.role.value:<5}  {where}")
        lines += [f"        {remark}" for remark in one.remarks]
    bad = sum(bool(one.remarks) for one in checked)
    lines.append(f"{len(checked)} patches, {bad} with something wrong")
    return "\n".join(lines)
