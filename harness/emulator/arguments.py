# SPDX-License-Identifier: GPL-2.0-only
"""The options of `tdisp-harness platform`, apart from the platform: every verb's parser has them,
and need not pay for a cryptographic library."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.emulator.words import Model

LOG_NAME = "platform.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tdisp-harness platform`."""
    parser.add_argument(
        "--socket-dir", type=Path, required=True, metavar="DIR", help="where the sockets go"
    )
    parser.add_argument(
        "--model",
        choices=[model.value for model in Model],
        default="B",
        help="A: T=0 bypasses the vIOMMU, B: one vIOMMU for both, N: none (default: B)",
    )
    parser.add_argument(
        "--vtom",
        default="all-ones",
        metavar="ADDRESS",
        help="model N: private below, shared above it; all-ones: all private (default)",
    )
    parser.add_argument(
        "--locked-t0",
        choices=["allow", "block"],
        default="allow",
        help="T=0 DMA of a locked TDI (default: allow)",
    )
    parser.add_argument(
        "--bme-clear",
        choices=["error", "ignore"],
        default="error",
        help="clearing bus mastering while locked: to ERROR, or nothing (default: error)",
    )
    parser.add_argument(
        "--c-bit", type=int, default=51, metavar="N", help="C-bit in IO page tables (default: 51)"
    )
    parser.add_argument(
        "--tdi",
        action="append",
        metavar="BDF",
        help="serve a TDI, called so in the log; repeatable (default: 01:00.0 and 02:00.0)",
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help=f"event log (default: DIR/{LOG_NAME})"
    )
    parser.add_argument(
        "--no-autobind", action="store_true", help="the host has to connect and bind each TDI"
    )
    parser.add_argument(
        "--stay", action="store_true", help="go on serving when the last client is gone"
    )
    parser.add_argument("--print-qemu", action="store_true", help="print the QEMU options first")
