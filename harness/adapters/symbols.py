# SPDX-License-Identifier: GPL-2.0-only
"""nm and addr2line on a kernel and its modules."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.adapters.process import run
from harness.core.call_trace import decode as name_addresses
from harness.core.symbols import (
    Place,
    locate,
    parse_entry,
    read_addr2line,
    read_nm,
    with_source,
)
from harness.errors import HarnessError

_LIMIT_S = 120.0


class Decoder:
    """Decodes the traces of one build.

    vmlinux: with debugging information, for source lines; system_map: for the names of bare
    addresses of a kernel that was not moved (nokaslr); modules: tar.gz of lib/modules. Each may be
    absent. What cannot be decoded stays as it is.
    """

    def __init__(self, vmlinux: Path, system_map: Path | None, modules: Path | None) -> None:
        self._vmlinux = vmlinux
        self._system_map = system_map
        self._modules = modules

    def decode(self, traces: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Each trace with source lines where they are known, else the entries as they were."""
        named = [self._named(trace) for trace in traces]
        lines: dict[str, str] = {}
        by_module: dict[str, list[str]] = {}
        for text in dict.fromkeys(entry for trace in named for entry in trace):
            entry = parse_entry(text)
            if entry is not None:
                by_module.setdefault(entry.module, []).append(text)
        with tempfile.TemporaryDirectory(prefix="tdisp-symbols-") as scratch:
            for module, entries in by_module.items():
                elf = self._vmlinux if not module else self._module(module, Path(scratch))
                if elf is not None and elf.is_file():
                    lines |= source_lines(elf, entries, Path(scratch))
        return [tuple(lines.get(entry, entry) for entry in trace) for trace in named]

    def _named(self, trace: Sequence[str]) -> tuple[str, ...]:
        if self._system_map is None or all(parse_entry(entry) for entry in trace):
            return tuple(trace)
        try:
            return name_addresses(trace, self._system_map.read_text(errors="replace"))
        except OSError:
            return tuple(trace)

    def _module(self, name: str, scratch: Path) -> Path | None:
        """The module's file out of the archive. The kernel says "_" where a file may say "-"."""
        if self._modules is None:
            return None
        try:
            with tarfile.open(self._modules) as archive:
                for member in archive:
                    stem = Path(member.name).name.removesuffix(".ko")
                    if member.isfile() and stem.replace("-", "_") == name.replace("-", "_"):
                        source = archive.extractfile(member)
                        target = scratch / f"{name}.ko"
                        target.write_bytes(source.read() if source is not None else b"")
                        return target
        except (OSError, tarfile.TarError):
            return None
        return None


def source_lines(elf: Path, entries: Iterable[str], scratch: Path) -> dict[str, str]:
    """Entry -> the entry with its source lines, for those that are known. Never raises."""
    listing = scratch / "nm"  # a kernel's is too long to be kept as output of a process
    try:
        listing.unlink(missing_ok=True)
        argv = ["nm", "--format=sysv", str(elf)]
        run(argv, timeout_s=_LIMIT_S, check=False, log=listing, what="nm")
        symbols = read_nm(listing.read_text(errors="replace"))
        places: dict[str, Place] = {}
        for text in entries:
            entry = parse_entry(text)
            place = locate(entry, symbols) if entry is not None else None
            if place is not None:
                places[text] = place
        found: dict[str, str] = {}
        for section in {place.section for place in places.values()}:
            asked = {text: p.address for text, p in places.items() if p.section == section}
            frames = _ask(elf, section, sorted(set(asked.values())))
            found |= {text: with_source(text, frames.get(a, ())) for text, a in asked.items()}
        return found
    except (HarnessError, OSError):
        return {}


def _ask(
    elf: Path, section: str, addresses: Sequence[int]
) -> dict[int, tuple[tuple[str, str], ...]]:
    """addr2line; in a relocatable file (a module) addresses are relative to the section."""
    argv = ["addr2line", "-a", "-f", "-i", "-e", str(elf)]
    if elf.suffix == ".ko":
        argv += ["-j", section]
    stdin = "".join(f"{address:#x}\n" for address in addresses).encode()
    return read_addr2line(run(argv, stdin=stdin, timeout_s=_LIMIT_S, check=False).out)
