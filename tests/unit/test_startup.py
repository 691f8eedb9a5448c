# SPDX-License-Identifier: GPL-2.0-only
"""What a command does not load: a cached run of one test should cost little more than its boot."""

from __future__ import annotations

import subprocess
import sys

import pytest

# module -> what takes so long
HEAVY = {
    "run": {
        "invoke.context": "paramiko wants it for files of ssh_config",
        "harness.emulator.platform": "cryptography's X.509, for the process of the platform",
        "jinja2": "the reports, made ready while the first machine boots",
        "jsonschema": "the same",
    },
    "parse": {"paramiko": "no machine", "jinja2": "no report"},
}
STAGE = {"run": "harness.stages.run", "parse": "harness.core.ktap"}


@pytest.mark.parametrize("verb", HEAVY)
def test_a_verb_does_not_load_what_it_does_not_use(verb: str) -> None:
    code = f"import sys, harness.cli, harness.commands, {STAGE[verb]}; print(*sys.modules)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert STAGE[verb] in loaded
    assert [name for name in HEAVY[verb] if name in loaded] == []
