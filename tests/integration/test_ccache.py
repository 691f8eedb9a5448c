# SPDX-License-Identifier: GPL-2.0-only
"""The compiler that kbuild is given: gcc through the real ccache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import layout

WRAPPER = layout.CONFIGS / "build" / "cc.sh"
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("ccache", "gcc")), reason="no ccache or gcc"
)


class Compiler:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {**os.environ, "CCACHE_DIR": str(directory / "ccache"), "CCACHE_NOHASHDIR": "1"}
        for name in ("CCACHE_DEPEND", "CCACHE_DISABLE"):
            self.env.pop(name, None)

    def __call__(self, source: str, *options: str) -> bytes:
        argv = (str(WRAPPER), "-Wp,-MMD,.o.d", *options, "-c", "-o", "out.o", source)
        subprocess.run(argv, cwd=self.directory, env=self.env, check=True)
        return (self.directory / "out.o").read_bytes()

    def count(self, *names: str) -> int:
        done = subprocess.run(
            ["ccache", "--print-stats"], env=self.env, capture_output=True, text=True, check=True
        )
        numbers = dict(line.split("\t") for line in done.stdout.splitlines())
        return sum(int(numbers[name]) for name in names)


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


def test_c_is_known_by_its_dependencies_without_a_preprocessor_run(compiler: Compiler) -> None:
    (compiler.directory / "a.h").write_text("#define A 1\n")
    (compiler.directory / "a.c").write_text('#include "a.h"\nint a = A;\n')
    first = compiler("a.c")
    assert compiler("a.c") == first
    assert compiler.count("direct_cache_hit") == 1
    assert compiler.count("preprocessed_cache_hit", "preprocessed_cache_miss") == 0
    (compiler.directory / "a.h").write_text("#define A 2\n")
    assert compiler("a.c") != first
    assert compiler.count("direct_cache_hit") == 1


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("blob.S", '.data\n.incbin "blob"\n'),
        ("blob.c", 'asm(".data\\n.incbin \\"blob\\"\\n");\n'),
    ],
)
def test_what_incbin_takes_in_is_never_stale(compiler: Compiler, source: str, text: str) -> None:
    (compiler.directory / source).write_text(text)
    (compiler.directory / "blob").write_bytes(b"first")
    first = compiler(source)
    assert b"first" in first
    (compiler.directory / "blob").write_bytes(b"other")
    assert b"other" in compiler(source)
    assert compiler.count("direct_cache_hit", "preprocessed_cache_hit") == 0
