# SPDX-License-Identifier: GPL-2.0-only
"""Stage config: tinyconfig plus fragments, and the proof that every requested option stuck.

The kselftests' own `config` and `config.<role>` files are merged too. Those that come with the
harness (not in the pristine tree, or changed there) bind like a fragment; those of the kernel are
wishes: what they do not get is shown in the proof and stops nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from harness.adapters.kbuild import ARCH, Kbuild, compiler_identity, kselftest_collections
from harness.adapters.store import ArtifactStore
from harness.core.kbuild_output import KbuildOutput
from harness.core.kconfig import (
    Merged,
    Request,
    config_hash,
    describe_broken,
    merge,
    parse_fragment,
    prove,
)
from harness.core.kconfig_symbols import read_symbols
from harness.errors import BuildError, ConfigError, UserError, cause
from harness.model.kernel import ConfigProof, ConfigRow, PatchedTree
from harness.model.progress import Progress

RECIPE = 1  # part of the key: raise it when the way a configuration is made changes
_KIND = "config"
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
# besides the files named Kconfig: what they call, and what tinyconfig begins with
_KCONFIG_ALSO = (
    *("Makefile", "scripts", "arch/x86/Makefile", "arch/x86/configs", "kernel/configs"),
)
_SCRATCH = ".config.next"  # the warm .config must not be touched while a new one is made


def configure(
    tree: PatchedTree,
    fragments: Sequence[Path],
    collections: Sequence[str],
    store: ArtifactStore,
    progress: Progress,
    *,
    own_series: bool = True,
    options: Mapping[str, str] = NO_OPTIONS,
) -> tuple[ConfigProof, str]:
    """The proof, and the hash of the configuration; `build/.config` holds it afterwards.

    own_series: the harness's series are applied, so what its kselftests ask for must stick; without
    them the symbols may be absent, and the tests skip. options: symbol (without CONFIG_) -> value,
    what the plan itself asks for.

    ConfigError (detail: ConfigProof) when a binding request did not stick; UserError for a
    malformed fragment or an unknown collection; BuildError when Kconfig itself fails. An unchanged
    configuration comes from the store without a make.
    """
    _check_collections(tree, collections)
    asked = "".join(f"CONFIG_{symbol}={value}\n" for symbol, value in options.items())
    merged = merge(
        [
            *_fragments(fragments),
            *_kselftest_requests(tree, collections, own_series),
            parse_fragment("the plan's kernel.options", asked),
        ]
    )
    for line in merged.overrides:
        progress.say(f"{tree.role}: {line}")
    kbuild = Kbuild(tree.path, store.root.parent / "ccache")
    proof, state = _proof(tree, merged, store), "unchanged"
    if proof is None:
        state = "proved"
        final = _make(tree, kbuild, merged)
        proof = prove(tree.role.value, merged, final, read_symbols(_reader(tree.path), "x86"))
        if proof.broken:
            raise _broken(tree, proof)
        _store(tree, _key(tree, merged, _kconfig_digest(tree.path)), proof, store)
        _store(tree, _key(tree, merged, tree.series_hash), proof, store)
    kbuild.write_config(proof.final)
    progress.say(f"{tree.role}: {len(proof.rows)} options {state}")
    return proof, config_hash(proof.final)


def wished(tree: PatchedTree, fragments: Sequence[Path], kbuild: Kbuild) -> str:
    """A configuration without a proof: what the tree does not know is left out.

    For a tree in the middle of a series. BuildError when Kconfig fails.
    """
    return _make(tree, kbuild, merge(_fragments(fragments)))


def _proof(tree: PatchedTree, merged: Merged, store: ArtifactStore) -> ConfigProof | None:
    """The proof in the store: of this very series, or of one with the same Kconfig files.

    The second is slower to find, and spares a make after every change of a C file.
    """
    exact = _key(tree, merged, tree.series_hash)
    entry = store.get(_KIND, exact)
    same_series = entry is not None
    if entry is None:
        entry = store.get(_KIND, _key(tree, merged, _kconfig_digest(tree.path)))
    if entry is None:
        return None
    rows = json.loads((entry / "rows.json").read_text(encoding="utf-8"))
    final = (entry / "config").read_text(encoding="utf-8")
    proof = ConfigProof(tree.role.value, tuple(ConfigRow(**row) for row in rows), final)
    if not same_series:
        _store(tree, exact, proof, store)
    return proof


def _store(tree: PatchedTree, key: str, proof: ConfigProof, store: ArtifactStore) -> None:
    with store.put(_KIND, key) as draft:
        (draft.directory / "config").write_text(proof.final, encoding="utf-8")
        rows_text = json.dumps([asdict(row) for row in proof.rows])
        (draft.directory / "rows.json").write_text(rows_text, encoding="utf-8")
        draft.metadata["role"] = tree.role.value


def _check_collections(tree: PatchedTree, collections: Sequence[str]) -> None:
    known = kselftest_collections(tree.path) if collections else ()
    for name in collections:
        if not (tree.path / "tools/testing/selftests" / name / "Makefile").is_file():
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f"collection {name}: no tools/testing/selftests/{name} in the {tree.role} tree",
                hint=f"did you mean {near[0]}?" if near else "",
            )


def _fragments(paths: Sequence[Path]) -> list[tuple[Request, ...]]:
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UserError(f"{path}: cannot be read: {cause(exc)}") from exc
        found.append(parse_fragment(_short(path), text))
    return found


def _short(path: Path) -> str:
    """How a fragment is named: configs/kernel/base.config for the harness's own."""
    parts = path.absolute().parts
    return "/".join(parts[-3:]) if parts[-3:-1] == ("configs", "kernel") else str(path)


def _kselftest_requests(
    tree: PatchedTree, collections: Sequence[str], own_series: bool
) -> list[tuple[Request, ...]]:
    found = []
    for collection in collections:
        for name in ("config", f"config.{tree.role.value}"):
            inside = f"tools/testing/selftests/{collection}/{name}"
            text = _reader(tree.path)(inside)
            if text is not None:
                ours = own_series and _reader(tree.source.path)(inside) != text
                found.append(parse_fragment(inside, text, binding=ours))
    return found


def _reader(root: Path) -> Callable[[str], str | None]:
    def read(path: str) -> str | None:
        try:
            return (root / path).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    return read


def _key(tree: PatchedTree, merged: Merged, sources: str) -> str:
    """Everything the proof depends on. sources: stands for the Kconfig files."""
    requests = [asdict(request) for request in merged.requests]
    parts = [RECIPE, tree.role.value, sources, ARCH, compiler_identity(), requests]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _kconfig_digest(root: Path) -> str:
    """SHA-256 of what Kconfig reads of a tree: its files, scripts and tinyconfig's fragments."""
    read, texts = _reader(root), dict[str, str | None]()

    def remember(path: str) -> str | None:
        texts[path] = read(path)
        return texts[path]

    read_symbols(remember, "x86")
    for place in _KCONFIG_ALSO:
        path = root / place
        files = path.rglob("*") if path.is_dir() else [path]
        for file in (one for one in files if "__pycache__" not in one.parts):
            remember(str(file.relative_to(root)))
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()


def _make(tree: PatchedTree, kbuild: Kbuild, merged: Merged) -> str:
    """tinyconfig, the requests on top, olddefconfig; the text of the result."""
    scratch = kbuild.output / _SCRATCH
    with tempfile.TemporaryDirectory(prefix="tdisp-config-") as directory:
        log = Path(directory) / "make.log"
        _run(tree, kbuild, "tinyconfig", log)
        with scratch.open("a", encoding="utf-8") as stream:
            stream.write(merged.render())
        _run(tree, kbuild, "olddefconfig", log)
    final = scratch.read_text(encoding="utf-8")
    scratch.unlink()
    scratch.with_name(f"{_SCRATCH}.old").unlink(missing_ok=True)
    return final


def _run(tree: PatchedTree, kbuild: Kbuild, target: str, log: Path) -> None:
    output = KbuildOutput(str(tree.path), lambda _: None)
    targets = (target, f"KCONFIG_CONFIG={_SCRATCH}")
    done = kbuild.make(targets, log=log, on_line=output.line)
    if done.returncode == 0:
        return
    first = output.first_error
    where = f"{first.file}:{first.line}: {first.text}" if first is not None else "no message"
    tail = "\n".join(f"  {line}" for line in (done.out + done.err).splitlines()[-12:])
    raise BuildError(
        f"{tree.role}: make {target} failed: {where}\n{tail}",
        command=kbuild.command(done.argv),
        detail=first,
    )


def _broken(tree: PatchedTree, proof: ConfigProof) -> ConfigError:
    count = len(proof.broken)
    options = "option" if count == 1 else "options"
    return ConfigError(
        f"{tree.role}: {count} requested {options} did not stick:\n{describe_broken(proof)}",
        hint="correct the fragment that is named, or add what the option depends on",
        detail=proof,
    )
