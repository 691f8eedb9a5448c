# SPDX-License-Identifier: GPL-2.0-only
"""Patch series: series.toml, patches out of mails, kernel versions. Text in, model out.

series.toml, one table per series, applied in file order:

    [series.dma-freeze]
    title = "..."
    why = "..."
    drop_when = "upstream has ..."
    kernel = ["7.3", "7.4"]        # [min, max)
    cover = "dma-freeze/0000-cover-letter.patch"
    patches = ["dma-freeze/0001-....patch", "..."]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.core.diff import parse_diff, touched_files
from harness.core.mailbox import Mail, decode_mail, split_mbox
from harness.errors import UserError
from harness.model.kernel import Patch

_KEYS = {"title": str, "why": str, "drop_when": str, "kernel": list, "cover": str, "patches": list}
_REQUIRED = ("title", "kernel", "patches")
_RELEASE = re.compile(r"^\d+(?:\.\d+){1,2}$")


@dataclass(frozen=True, slots=True)
class SeriesInput:
    """A loaded series. name: "guest/dma-freeze". kernel: [min, max), None when it names none.

    left_out: mails that are no patches and why, e.g. "0000-cover-letter.patch: cover letter".
    """

    name: str
    origin: str
    patches: tuple[Patch, ...]
    kernel: tuple[str, str] | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesTable:
    """One [series.X] table of a series.toml; paths are relative to its directory."""

    name: str
    title: str
    why: str
    drop_when: str
    kernel: tuple[str, str]
    cover: str
    patches: tuple[str, ...]


def parse_series_toml(text: str, where: str, present: Collection[str]) -> tuple[SeriesTable, ...]:
    """The tables of a series.toml. present: all *.patch files below its directory.

    UserError on: broken TOML, unknown key, wrong type, listed but missing, present but not listed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{where}: {exc}") from exc
    for key in document:
        if key != "series":
            raise UserError(
                f"{where}:{_line(text, key)}: {key}: unknown key",
                hint="a series is a table [series.NAME]",
            )
    series = document.get("series")
    if not isinstance(series, dict) or not series:
        raise UserError(f"{where}: no [series.NAME] table")
    tables = tuple(_table(text, where, name, value) for name, value in series.items())
    _check_listing(text, where, tables, present)
    return tables


def _table(text: str, where: str, name: str, value: object) -> SeriesTable:
    def wrong(key: str, what: str, hint: str = "") -> UserError:
        line = _line(text, key, name)
        return UserError(f"{where}:{line}: series.{name}.{key}: {what}", hint=hint)

    if not isinstance(value, dict):
        raise UserError(f"{where}:{_line(text, name)}: series.{name}: not a table")
    for key, given in value.items():
        if key not in _KEYS:
            raise wrong(key, "unknown key", f"known keys: {', '.join(_KEYS)}")
        if not isinstance(given, _KEYS[key]):
            raise wrong(key, f"must be a {'string' if _KEYS[key] is str else 'list of strings'}")
        if isinstance(given, list) and not all(isinstance(item, str) for item in given):
            raise wrong(key, "must be a list of strings")
    for key in _REQUIRED:
        if not value.get(key):
            raise wrong(key, "missing or empty")
    kernel = value["kernel"]
    if len(kernel) != 2 or not all(_RELEASE.match(version) for version in kernel):
        raise wrong("kernel", f"{kernel} is not [min, max)", 'write kernel = ["7.3", "7.4"]')
    if parse_version(kernel[0]) >= parse_version(kernel[1]):
        raise wrong("kernel", f"{kernel[0]} is not below {kernel[1]}")
    return SeriesTable(
        name=name,
        title=value["title"],
        why=value.get("why", ""),
        drop_when=value.get("drop_when", ""),
        kernel=(kernel[0], kernel[1]),
        cover=value.get("cover", ""),
        patches=tuple(value["patches"]),
    )


def _check_listing(
    text: str, where: str, tables: Sequence[SeriesTable], present: Collection[str]
) -> None:
    owner: dict[str, str] = {}
    for table in tables:
        for path in (*table.patches, *((table.cover,) if table.cover else ())):
            key = f"series.{table.name}"
            line = _line(text, path)
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise UserError(f"{where}:{line}: {key}: {path} lies outside the directory")
            if path in owner:
                raise UserError(f"{where}:{line}: {key}: {path} is listed twice ({owner[path]})")
            if path not in present:
                near = [p for p in sorted(present) if p.rsplit("/", 1)[-1][:4] == _stem(path)[:4]]
                hint = f"there is {near[0]}" if near else "add the file or delete the line"
                raise UserError(f"{where}:{line}: {key}: {path}: no such file", hint=hint)
            owner[path] = key
    for path in sorted(present):
        if path not in owner:
            raise UserError(
                f"{where}: {path} is not listed",
                hint="list it in patches (or as cover), or remove the file: nothing is skipped",
            )


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _line(text: str, needle: str, table: str = "") -> int:
    """1-based line where a key or a value stands, searched from its table on; 1 when nowhere."""
    lines = text.splitlines()
    start = 0
    if table:
        header = re.compile(rf"^\s*\[\s*series\s*\.\s*\"?{re.escape(table)}\"?\s*\]")
        start = next((at for at, line in enumerate(lines) if header.match(line)), 0)
    word = re.compile(rf"(?<![\w/-]){re.escape(needle)}(?![\w/-])")
    found = (at for at, line in enumerate(lines[start:], start) if word.search(line))
    return next(found, start) + 1


def patch_from_file(data: bytes, series: str, name: str, where: str) -> Patch:
    """The one patch in a file. UserError when it holds none or several, or is a cover letter."""
    mails = split_mbox(data)
    if len(mails) != 1:
        raise UserError(
            f"{where}: holds {len(mails)} mails, expected one patch",
            hint=f"--series ROLE={where} takes an mbox as a whole series",
        )
    mail = decode_mail(mails[0], name)
    if not mail.has_diff:
        what = "a cover letter" if mail.cover else "no diff in it"
        raise UserError(f"{where}: {what}: {mail.subject}")
    return _patch(mail, series, name, where)


def cover_in(data: bytes, name: str) -> bool:
    """Whether a file is a cover letter (0/N, or a mail without a diff called so)."""
    mails = split_mbox(data)
    if len(mails) != 1:
        return False
    mail = decode_mail(mails[0], name)
    return mail.cover or (not mail.has_diff and "cover-letter" in name)


def patches_from_mbox(
    data: bytes, series: str, where: str
) -> tuple[tuple[Patch, ...], tuple[str, ...]]:
    """The patches of an mbox in [PATCH n/m] order, and what was left out with its reason.

    Left out are only the cover letter and replies without a diff. UserError when a number is
    missing or doubled, or when a mail cannot be told apart.
    """
    patches: list[tuple[Mail, str]] = []
    left_out: list[str] = []
    for number, raw in enumerate(split_mbox(data), 1):
        name = f"mbox:{number}"
        mail = decode_mail(raw, f"{where}:{name}")
        if mail.cover and not mail.reply:
            left_out.append(f"{name}: cover letter: {mail.subject}")
        elif mail.reply and mail.has_diff:
            raise UserError(
                f"{where}: {name}: a reply that carries a diff: {mail.subject}",
                hint="delete the mail, or drop the Re: when it belongs to the series",
            )
        elif mail.reply:
            left_out.append(f"{name}: reply: {mail.subject}")
        elif mail.has_diff:
            patches.append((mail, name))
        else:
            raise UserError(f"{where}: {name}: no diff in it: {mail.subject}")
    if not patches:
        raise UserError(f"{where}: no patch in it", hint="expected git format-patch output")
    ordered = _ordered(patches, where)
    made = tuple(_patch(mail, series, name, f"{where}:{name}") for mail, name in ordered)
    return made, tuple(left_out)


def _ordered(patches: list[tuple[Mail, str]], where: str) -> list[tuple[Mail, str]]:
    """By number when all are numbered, else as they stand."""
    if not all(mail.numbered for mail, _ in patches):
        return patches
    seen: dict[int, str] = {}
    for mail, name in patches:
        if mail.number in seen:
            raise UserError(
                f"{where}: {seen[mail.number]} and {name} are both patch {mail.number}",
                hint="keep one version of the series in the mbox",
            )
        seen[mail.number] = name
    total = max(mail.total for mail, _ in patches)
    missing = [str(number) for number in range(1, total + 1) if number not in seen]
    if missing:
        raise UserError(f"{where}: patch {', '.join(missing)} of {total} is missing")
    return sorted(patches, key=lambda item: item[0].number)


def _patch(mail: Mail, series: str, name: str, where: str) -> Patch:
    files = touched_files(parse_diff(mail.text))
    for path in files:
        if path.startswith("/") or {"..", ".git"} & set(path.split("/")):
            raise UserError(f"{where}: touches {path!r}, outside the kernel tree")
    if not files:
        raise UserError(f"{where}: its diff names no file")
    return Patch(series, name, mail.subject, mail.text, files)


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of a kernel version: "7.3.4" -> (7, 3, 4), "7.4.0-rc1" -> (7, 4, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    if match is None:
        raise UserError(f"{text!r} is not a kernel version")
    return tuple(int(part) for part in match[0].split("."))


def in_range(version: str, kernel: tuple[str, str]) -> bool:
    """Whether min <= version < max; a release candidate counts as its release."""
    low, high = (_padded(parse_version(bound)) for bound in kernel)
    return low <= _padded(parse_version(version)) < high


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (*numbers, 0, 0, 0)[:3]


def kernel_version(makefile: str) -> str | None:
    """What `make kernelversion` prints, from the text of a top Makefile; None: not a kernel's."""
    values = {
        match[1]: match[2]
        for match in re.finditer(
            r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)[ \t]*$",
            makefile,
            re.MULTILINE,
        )
    }
    if not (values.get("VERSION", "").isdigit() and values.get("PATCHLEVEL", "").isdigit()):
        return None
    sublevel = values.get("SUBLEVEL", "")
    version = f"{values['VERSION']}.{values['PATCHLEVEL']}" + (f".{sublevel}" if sublevel else "")
    return version + values.get("EXTRAVERSION", "")
