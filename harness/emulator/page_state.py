# SPDX-License-Identifier: GPL-2.0-only
"""The page-state table (the RMP): one state per guest page, private by default."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from harness.emulator.words import PAGE_BYTES


class PageStates:
    """Shared pages as a sorted list of borders: pages [b0, b1), [b2, b3), ... are shared.

    Cost depends on the number of shared ranges, not on the size of memory.
    """

    def __init__(self) -> None:
        self._borders: list[int] = []

    def is_shared(self, address: int) -> bool:
        return bool(bisect_right(self._borders, address // PAGE_BYTES) & 1)

    def run_bytes(self, address: int, limit: int) -> int:
        """How many bytes from `address` on, at most `limit`, have the state of `address`."""
        at = bisect_right(self._borders, address // PAGE_BYTES)
        if at == len(self._borders):
            return limit
        return min(limit, self._borders[at] * PAGE_BYTES - address)

    def set(self, address: int, pages: int, *, shared: bool) -> int:
        """Give `pages` pages a state; how many of them changed. address: page-aligned."""
        first = address // PAGE_BYTES
        last = first + pages
        before = self._shared_in(first, last)
        low = bisect_left(self._borders, first)
        high = bisect_right(self._borders, last)
        borders = []
        # a border is needed where the state outside differs from the new state inside
        if bool(low & 1) != shared:
            borders.append(first)
        if bool(high & 1) != shared:
            borders.append(last)
        self._borders[low:high] = borders
        return pages - before if shared else before

    def _shared_in(self, first: int, last: int) -> int:
        total = 0
        at = bisect_right(self._borders, first)
        page, inside = first, bool(at & 1)
        while page < last:
            border = self._borders[at] if at < len(self._borders) else last
            if inside:
                total += min(border, last) - page
            page, inside, at = border, not inside, at + 1
        return total

    def shared_pages(self) -> int:
        """How many pages are shared in all."""
        pairs = zip(self._borders[::2], self._borders[1::2], strict=True)
        return sum(end - start for start, end in pairs)

    def ranges(self) -> list[tuple[int, int]]:
        """Shared ranges as (address, pages)."""
        pairs = zip(self._borders[::2], self._borders[1::2], strict=True)
        return [(start * PAGE_BYTES, end - start) for start, end in pairs]

    def reset(self) -> None:
        """All private again."""
        self._borders.clear()
