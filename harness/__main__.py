# SPDX-License-Identifier: GPL-2.0-only
"""`python -m harness` and the tdisp-harness script."""

from __future__ import annotations

import gc
import sys

from harness import cli


def main() -> None:
    code = cli.main()
    gc.freeze()  # what is left at the end need not be searched for garbage: that takes 50 ms
    sys.exit(code)


if __name__ == "__main__":
    main()
