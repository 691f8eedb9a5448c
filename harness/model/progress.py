# SPDX-License-Identifier: GPL-2.0-only
"""How a stage tells what it is doing; the terminal and the tests implement it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Live progress of one run. Calls are cheap and thread-safe."""

    def stage(self, name: str, note: str = "") -> None:
        """A stage begins (the previous one ends)."""

    def say(self, text: str) -> None:
        """One line worth keeping, e.g. "downloading linux-source-7.3 (167 MB)"."""

    def count(self, done: int, total: int, what: str) -> None:
        """Work done within the stage, e.g. (512, 1700, "objects"). total 0: unknown."""


class SilentProgress:
    """A Progress that says nothing."""

    def stage(self, name: str, note: str = "") -> None:
        del name, note

    def say(self, text: str) -> None:
        del text

    def count(self, done: int, total: int, what: str) -> None:
        del done, total, what
