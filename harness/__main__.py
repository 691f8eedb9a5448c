# SPDX-License-Identifier: GPL-2.0-only
"""`python -m harness` and the tdisp-harness script."""

from __future__ import annotations

import sys

from harness import cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
