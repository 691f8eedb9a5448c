# SPDX-License-Identifier: GPL-2.0-only
"""Stage patch: a role's kernel tree with its series and overlays applied.

The series is applied by the real `git am` in a scratch repository that holds only the files it
touches; then the role's tree is brought to that result. A failing series leaves the tree as it
was, and the scratch repository beside it, at the failing patch, for repeating it by hand.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.adapters.git import ScratchRepository
from harness.adapters.role_tree import Content, RoleTree, overlay_files, read_content
from harness.adapters.source_cache import altered, load_manifest, require_whole
from harness.core.diff import failures, parse_diff
from harness.core.mailbox import split_mbox, to_bytes, to_text
from harness.core.series import (
    SeriesInput,
    SeriesTable,
    cover_in,
    in_range,
    parse_series_toml,
    patch_from_file,
    patches_from_mbox,
)
from harness.errors import InfraError, PatchError, StorageError, UserError
from harness.model.kernel import HunkFailure, Patch, PatchedTree, PatchReport, Role, SourceTree
from harness.model.progress import Progress

_SCRATCH = "am"  # the scratch repository, beside the tree
_TABLE = "series.toml"


def load(path: Path, role: Role) -> tuple[SeriesInput, ...]:
    """The series at a path: a directory with series.toml, one of *.patch, an mbox, or one patch.

    UserError names the file, and the key and line of a series.toml.
    """
    try:
        if path.is_dir():
            if (path / _TABLE).is_file():
                return _load_table(path, role)
            return (_load_directory(path, role),)
        data = path.read_bytes()
    except OSError as exc:
        raise UserError(f"{exc.filename or path}: {exc.strerror}") from exc
    name = f"{role.value}/{path.stem}"
    if len(split_mbox(data)) == 1:
        patch = patch_from_file(data, name, path.name, str(path))
        return (SeriesInput(name, str(path), (patch,)),)
    patches, left_out = patches_from_mbox(data, name, str(path))
    return (SeriesInput(name, str(path), patches, left_out=left_out),)


def _load_table(directory: Path, role: Role) -> tuple[SeriesInput, ...]:
    table_file = directory / _TABLE
    present = {p.relative_to(directory).as_posix() for p in directory.rglob("*.patch")}
    text = table_file.read_text(encoding="utf-8", errors="replace")
    tables = parse_series_toml(text, str(table_file), present)
    return tuple(_series_of(table, directory, role) for table in tables)


def _series_of(table: SeriesTable, directory: Path, role: Role) -> SeriesInput:
    name = f"{role.value}/{table.name}"
    patches = tuple(
        patch_from_file((directory / p).read_bytes(), name, Path(p).name, str(directory / p))
        for p in table.patches
    )
    left_out = (f"{Path(table.cover).name}: cover letter",) if table.cover else ()
    return SeriesInput(name, str(directory / _TABLE), patches, table.kernel, left_out)


def _load_directory(directory: Path, role: Role) -> SeriesInput:
    name = f"{role.value}/{directory.name}"
    patches: list[Patch] = []
    left_out: list[str] = []
    for file in sorted(directory.glob("*.patch")):
        data = file.read_bytes()
        if cover_in(data, file.name):
            left_out.append(f"{file.name}: cover letter")
        else:
            patches.append(patch_from_file(data, name, file.name, str(file)))
    if not patches:
        raise UserError(f"{directory}: neither {_TABLE} nor a *.patch in it")
    return SeriesInput(name, str(directory), tuple(patches), left_out=tuple(left_out))


def apply(  # noqa: PLR0917  (one argument per thing that makes the tree)
    role: Role,
    source: SourceTree,
    series: Sequence[SeriesInput],
    overlays: Mapping[str, Path],
    workdir: Path,
    progress: Progress,
) -> PatchedTree:
    """`workdir/<role>/linux` with all series applied in order and the overlays on top.

    overlays: directory in the kernel tree -> directory to take its files from. The caller holds a
    lock on `workdir`. PatchError (detail: PatchReport) when a series does not apply or is for
    another kernel; the tree is then as before.
    """
    directory = workdir / role.value
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"{directory}: {exc.strerror}") from exc
    patches = tuple(patch for one in series for patch in one.patches)
    for one in series:
        _check_range(role, source, one)
    extra: dict[str, Content] = {}
    for dest, origin in overlays.items():
        extra |= overlay_files(origin, dest)
    key = _series_hash(source, patches, extra)
    tree = RoleTree(directory, source.path, source_key(source))
    result = PatchedTree(role, source, tree.path, key, patches)
    if tree.is_current(key):
        progress.say(f"{role.value}: {len(patches)} patches already applied")
        return result
    require_whole(source.path)
    wanted = _apply_series(role, source, patches, directory, progress)
    if tree.ensure():
        progress.say(f"{role.value}: new tree {tree.path}")
    changed = tree.sync(wanted | extra, key)
    progress.say(f"{role.value}: {len(patches)} patches, {len(changed)} files changed in the tree")
    return result


def applies(
    role: Role,
    source: SourceTree,
    series: Sequence[SeriesInput],
    directory: Path,
    progress: Progress,
) -> None:
    """Only try it, in a scratch repository below `directory`; PatchError as from `apply`."""
    for one in series:
        _check_range(role, source, one)
    patches = tuple(patch for one in series for patch in one.patches)
    _apply_series(role, source, patches, directory, progress)


def _check_range(role: Role, source: SourceTree, series: SeriesInput) -> None:
    if series.kernel is None or in_range(source.version, series.kernel):
        return
    low, high = series.kernel
    name = series.name.rpartition("/")[2]
    message = f"series {name} wants Linux {low} ≤ v < {high}, the tree is {source.version}"
    report = PatchReport(role.value, series.name, "", "", _base(source), (), (), message, "")
    raise PatchError(
        message,
        hint=f"choose another tree, or leave the series out (--no-builtin-series {role.value})",
        detail=report,
    )


def source_key(source: SourceTree) -> str:
    """Names this very unpacking; also checks that nothing wrote through the hard links."""
    entry = source.path.parent
    manifest = load_manifest(entry)
    damage = "no manifest" if manifest is None else altered(entry, manifest, thorough=False)
    if manifest is None or damage:
        raise StorageError(
            f"{entry}: the pristine tree was altered: {damage}",
            hint="remove it; the next run makes it again",
            command=f"rm -rf {shlex.quote(str(entry))}",
        )
    return f"{source.id}:{manifest.made}"


def _series_hash(source: SourceTree, patches: Sequence[Patch], extra: Mapping[str, Content]) -> str:
    """sha256 over the base, the patches' names and texts, and the overlays' files."""
    digest = hashlib.sha256()

    def add(*fields: bytes) -> None:
        for item in fields:
            digest.update(b"%d:" % len(item))
            digest.update(item)

    add(b"base", source.id.encode())
    for patch in patches:
        add(b"patch", patch.series.encode(), to_bytes(patch.name), to_bytes(patch.text))
    for path, content in sorted(extra.items()):
        add(b"file", os.fsencode(path), b"%o" % content.mode, content.data)
    return digest.hexdigest()


def _apply_series(
    role: Role, source: SourceTree, patches: Sequence[Patch], directory: Path, progress: Progress
) -> dict[str, Content | None]:
    """Every touched path with its content after the last patch, None for one that is gone."""
    if not patches:
        return {}
    touched = tuple(dict.fromkeys(path for patch in patches for path in patch.files))
    scratch = directory / _SCRATCH
    try:
        if scratch.exists():
            shutil.rmtree(scratch)
        (scratch / "patches").mkdir(parents=True)
        _copy_files(source.path, scratch / "linux", touched)
        repository = ScratchRepository(scratch / "linux")
        repository.create(_base(source))
        for number, patch in enumerate(patches):
            progress.count(number, len(patches), "patches")
            stem = re.sub(r"^\d+-|\.patch$", "", Path(patch.name.replace(":", "-")).name)
            file = scratch / "patches" / f"{number + 1:04d}-{stem}.patch"
            file.write_bytes(to_bytes(patch.text))
            done = repository.am(file)
            if done.returncode != 0:
                said = (done.out + done.err).strip()
                raise _refused(role, source, patches, number, (repository, file, said))
        progress.count(len(patches), len(patches), "patches")
        present = {*touched, *repository.files()}
        result = {path: read_content(repository.path / path) for path in sorted(present)}
        shutil.rmtree(scratch)
    except OSError as exc:
        raise StorageError(f"{scratch}: {exc}") from exc
    return result


def _copy_files(tree: Path, into: Path, paths: Sequence[str]) -> None:
    """Copy those of `paths` that exist; never through a link that is a directory's name."""
    into.mkdir()
    for path in paths:
        parents = [tree / p for p in Path(path).parents if p != Path()]
        linked = next((p for p in parents if p.is_symlink()), None)
        # git must see the link itself, so that it refuses to go through it
        name = path if linked is None else str(linked.relative_to(tree))
        content = read_content(tree / name)
        if content is None:
            continue
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if content.mode == 0o120000:
            if not target.is_symlink():
                target.symlink_to(os.fsdecode(content.data))
        else:
            target.write_bytes(content.data)
            target.chmod(content.mode)


def _refused(
    role: Role,
    source: SourceTree,
    patches: Sequence[Patch],
    number: int,
    attempt: tuple[ScratchRepository, Path, str],
) -> PatchError:
    """The error for a patch that git am refused. attempt: repository, patch file, git's words."""
    repository, file, said = attempt
    patch = patches[number]
    files = parse_diff(patch.text)
    contents = {}
    for name in patch.files:
        content = read_content(repository.path / name)
        if content is not None:
            contents[name] = to_text(content.data).split("\n")[:-1] or [to_text(content.data)]
    try:
        rejects = repository.apply_reject(file)
    except InfraError as exc:  # git's own words are enough then
        rejects = exc.message
    failed = failures(rejects, files, contents)
    command = f"git -C {shlex.quote(str(repository.path))} am {shlex.quote(str(file))}"
    report = PatchReport(
        role=role.value,
        series=patch.series,
        patch=patch.name,
        subject=patch.subject,
        base=_base(source),
        applied=tuple(f"{p.series}/{p.name}" for p in patches[:number]),
        failed=failed,
        output=f"{said}\n{rejects}".strip(),
        command=command,
    )
    return PatchError(_message(report), hint=_hint(failed, source), command=command, detail=report)


def _message(report: PatchReport) -> str:
    lines = [
        f"{report.series}: {report.patch} ({report.subject}) does not apply to {report.base}"
        + (f" after {len(report.applied)} patches" if report.applied else "")
    ]
    lines += [
        f"  {one.file}: hunk {one.hunk} (line {one.line}): {one.reason}" for one in report.failed
    ]
    if not report.failed:
        lines += [f"  {line}" for line in report.output.splitlines()[:8]]
    return "\n".join(lines)


def _hint(failed: Sequence[HunkFailure], source: SourceTree) -> str:
    if failed and all(one.reason.startswith("already applied") for one in failed):
        return f"{source.origin} already holds this patch: drop it from the series"
    return f"rebase the series on {source.version}, or choose the tree it was made for"


def _base(source: SourceTree) -> str:
    return f"Linux {source.version} ({source.kind} {source.origin})"
