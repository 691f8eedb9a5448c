# SPDX-License-Identifier: GPL-2.0-only
"""python -m harness.emulator --socket-dir DIR: the platform as a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness.emulator.arguments import add_arguments
from harness.emulator.serve import run
from harness.errors import HarnessError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.emulator", description="Serve an emulated TEE-IO platform to QEMU."
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except HarnessError as exc:
        print(f"error: {exc.render()}", file=sys.stderr)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
