# SPDX-License-Identifier: GPL-2.0-only
"""The processes that a test has started, directly or not."""

from __future__ import annotations

import psutil


def children_with(words: str) -> list[psutil.Process]:
    """Those with these words on their command line; the dead have none."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if words in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            continue
    return found
