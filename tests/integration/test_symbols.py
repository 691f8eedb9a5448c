# SPDX-License-Identifier: GPL-2.0-only
"""Traces decoded with real ELF files: gcc, nm and addr2line, a program and a relocatable module."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.adapters.symbols import Decoder
from harness.core.symbols import Symbol, read_nm
from harness.model.kernel import KernelBuild, Role
from harness.model.results import Splat, SplatRecord
from harness.report import json_report
from harness.stages.decode import decode_traces
from harness.stages.recorder import Recorder
from tests.unit.test_baseline import run

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("gcc", "nm", "addr2line")), reason="no compiler"
)

SOURCE = """\
static inline __attribute__((always_inline)) int inner(volatile int *p)
{
	return *p / 0x7;
}

__attribute__((noinline)) int tdi_lock(volatile int *p)
{
	int x = inner(p);

	return x + *p;
}

int main(void)
{
	int y = 9;

	return tdi_lock(&y);
}
"""


def compiled(directory: Path, *options: str, name: str = "vmlinux") -> Path:
    """Compiled as kbuild does it: in a directory inside the tree."""
    (directory / "drivers").mkdir(exist_ok=True)
    (directory / "build").mkdir(exist_ok=True)
    (directory / "drivers" / "tdi.c").write_text(SOURCE)
    argv = ["gcc", "-O1", *options, "-o", name, "../drivers/tdi.c"]
    subprocess.run(argv, cwd=directory / "build", check=True)
    return directory / "build" / name


def symbol(elf: Path) -> Symbol:
    listed = subprocess.run(
        ["nm", "--format=sysv", str(elf)], check=True, capture_output=True, text=True
    )
    (found,) = read_nm(listed.stdout)["tdi_lock"]
    return found


def entry(elf: Path, module: str = "") -> str:
    """The kernel's own words for the instruction after the inlined division's first."""
    size = symbol(elf).size
    return f"tdi_lock+0x1/{size:#x}" + (f" [{module}]" if module else "")


def test_source_lines_with_the_inlined_function(tmp_path: Path) -> None:
    elf = compiled(tmp_path, "-g")
    text = entry(elf)
    ((decoded, other),) = Decoder(elf, None, None).decode([(text, "gone+0x1/0x2")])
    assert decoded == f"{text} (inner drivers/tdi.c:3, drivers/tdi.c:8)"
    assert other == "gone+0x1/0x2"


def test_a_module_out_of_the_archive(tmp_path: Path) -> None:
    elf = compiled(tmp_path, "-g", "-c", name="tdi-emu.ko")
    archive = tmp_path / "modules.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(elf, "lib/modules/7.3.4/kernel/drivers/tdi-emu.ko")
    text = entry(elf, "tdi_emu")
    decoder = Decoder(tmp_path / "absent", None, archive)
    ((decoded, other),) = decoder.decode([(text, "f+0x1/0x2 [unknown]")])
    assert decoded == f"{text} (inner drivers/tdi.c:3, drivers/tdi.c:8)"
    assert other == "f+0x1/0x2 [unknown]"


def test_without_debugging_information_entries_stay(tmp_path: Path) -> None:
    elf = compiled(tmp_path)
    assert Decoder(elf, None, None).decode([(entry(elf),)]) == [(entry(elf),)]


def test_bare_addresses_get_names_from_the_symbol_table(tmp_path: Path) -> None:
    table = tmp_path / "System.map"
    table.write_text("ffffffff81000000 T _text\nffffffff81000100 t tdi_lock\n")
    decoder = Decoder(tmp_path / "absent", table, None)
    assert decoder.decode([("ffffffff81000110", "f+0x1/0x2")]) == [("tdi_lock+0x10", "f+0x1/0x2")]


@pytest.mark.parametrize("content", [b"", b"no ELF file", b"\x7fELF" + b"\xff" * 200])
def test_files_that_are_broken_decode_nothing(tmp_path: Path, content: bytes) -> None:
    for name in ("vmlinux", "System.map", "modules.tar.gz"):
        (tmp_path / name).write_bytes(content)
    decoder = Decoder(tmp_path / "vmlinux", tmp_path / "System.map", tmp_path / "modules.tar.gz")
    trace = ("tdi_lock+0x1/0x2", "f+0x1/0x2 [tdi]", "ffffffff81000110")
    assert decoder.decode([trace]) == [trace]


def splat(machine: str, trace: tuple[str, ...], line: int) -> SplatRecord:
    found = Splat("warn", "WARNING in tdi_lock", "tdi_lock", line, line + 9, trace=trace)
    return SplatRecord(machine, "guest", "tsm:a", found, "")


@pytest.mark.parametrize("moved", [True, False])
def test_the_splats_of_a_run_are_decoded(tmp_path: Path, moved: bool) -> None:
    elf = compiled(tmp_path, "-g")
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    elf.rename(artifact / "vmlinux")
    (artifact / "System.map").write_text("ffffffff81000100 t tdi_lock\n")
    (artifact / "config").write_text("CONFIG_RANDOMIZE_BASE=y\n" if moved else "")
    build = KernelBuild(Role.GUEST, "k", artifact, "7.3", "ab", "gcc", (), True, 0.0, "c")
    text = entry(artifact / "vmlinux")
    first, second = splat("guest", (text,), 3), splat("guest", ("ffffffff81000110",), 50)
    start = replace(run(1), splats=(first, second))
    recorder = Recorder(start, tmp_path, lambda: 0.0, json_report.write)
    decode_traces(recorder, {Role.GUEST: build})
    decoded = [record.decoded for record in recorder.result.splats]
    assert decoded[0] == (f"{text} (inner drivers/tdi.c:3, drivers/tdi.c:8)",)
    assert decoded[1] == (() if moved else ("tdi_lock+0x10",))
    assert recorder.result.splats[0].splat == first.splat


def test_parse_log_with_a_vmlinux(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elf = compiled(tmp_path, "-g")
    text = entry(elf)
    log = tmp_path / "console.log"
    log.write_text(
        f"WARNING: drivers/tdi.c:8 at {text}, CPU#0: a/1\nCall Trace:\n <TASK>\n {text}\n </TASK>\n"
    )
    assert cli.main(["parse", "log", str(log)]) == 0
    (plain,) = json.loads(capsys.readouterr().out)["splats"]
    assert sorted(plain) == ["corrupted", "end_line", "frame", "kind", "start_line", "title"]
    assert cli.main(["parse", "log", str(log), "--vmlinux", str(elf)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["splats"]
    assert found.pop("trace") == [f"{text} (inner drivers/tdi.c:3, drivers/tdi.c:8)"]
    assert found == plain
    assert cli.main(["parse", "log", str(log), "--vmlinux", "absent"]) == 64
    assert cli.main(["parse", "ktap", str(log), "--vmlinux", str(elf)]) == 64
