# SPDX-License-Identifier: GPL-2.0-only
"""Is a test slower than its history explains?

The centre of the history is its median and its spread the median absolute deviation (MAD), so that
one run on a busy machine moves neither. A duration is called slow when it lies above the median by
more than several spreads, and by more than a share of the median and a number of seconds, below
which no difference is worth a line in a report.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# For a normal distribution, 1.4826 times the MAD is the standard deviation.
_SIGMA_PER_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class NoisePolicy:
    """What counts as noise. sigmas: spreads above the median."""

    min_runs: int = 5
    sigmas: float = 5.0
    min_share: float = 0.25  # of the median
    min_s: float = 1.0


DEFAULT = NoisePolicy()


@dataclass(frozen=True, slots=True)
class Noise:
    """The history in numbers, in seconds. limit_s: what is still noise."""

    runs: int
    median_s: float
    limit_s: float


def noise(history: Sequence[float], policy: NoisePolicy = DEFAULT) -> Noise | None:
    """The noise of earlier durations in any order; None when there are too few of them."""
    if len(history) < max(policy.min_runs, 1):
        return None
    median = statistics.median(history)
    mad = statistics.median(abs(value - median) for value in history)
    room = max(policy.sigmas * _SIGMA_PER_MAD * mad, policy.min_share * median, policy.min_s)
    return Noise(len(history), median, median + room)
