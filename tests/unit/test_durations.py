# SPDX-License-Identifier: GPL-2.0-only
"""Slow-downs: flagged when they exceed the noise, and not before."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.durations import Noise, NoisePolicy, noise

SECONDS = st.floats(0.0, 1e5, allow_nan=False)
HISTORIES = st.lists(SECONDS, min_size=5, max_size=40)
BARE = NoisePolicy(min_share=0.0, min_s=0.0)


def limit(history: list[float], policy: NoisePolicy = BARE) -> float:
    found = noise(history, policy)
    assert found is not None
    return found.limit_s


def test_median_and_limit() -> None:
    policy = NoisePolicy(sigmas=2.0, min_share=0.0, min_s=0.0)
    found = noise([10.0, 11.0, 12.0, 9.0, 100.0], policy)
    assert found == Noise(5, 11.0, 11.0 + 2.0 * 1.4826)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([10.0] * 5, 12.5),  # no spread: a share of the median
        ([0.1] * 5, 1.1),  # short: a second at least
        ([10.0, 12.0, 14.0, 8.0, 6.0], 10.0 + 5 * 1.4826 * 2),
    ],
)
def test_the_largest_of_three_rooms_counts(history: list[float], expected: float) -> None:
    assert limit(history, NoisePolicy()) == pytest.approx(expected)


@given(st.lists(SECONDS, max_size=4))
def test_too_short_a_history_says_nothing(history: list[float]) -> None:
    assert noise(history) is None


def test_an_empty_history_says_nothing_even_when_none_is_asked_for() -> None:
    assert noise([], NoisePolicy(min_runs=0)) is None


@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_order_of_the_history_does_not_matter(history: list[float], rng: random.Random) -> None:
    mixed = list(history)
    rng.shuffle(mixed)
    assert noise(mixed) == noise(history)


@given(HISTORIES)
def test_the_middle_of_the_history_is_never_slow(history: list[float]) -> None:
    assert limit(history) >= sorted(history)[len(history) // 2 - (len(history) % 2 == 0)]
    assert limit(history, NoisePolicy()) > 0


@given(HISTORIES, st.floats(0.125, 8.0))
def test_a_slower_clock_changes_nothing(history: list[float], factor: float) -> None:
    scaled = limit([value * factor for value in history])
    assert scaled == pytest.approx(limit(history) * factor, abs=1e-6)


@given(st.lists(st.floats(9.0, 11.0), min_size=5, max_size=40), SECONDS)
def test_one_wild_run_does_not_hide_a_slow_down(history: list[float], wild: float) -> None:
    """However wild, the limit stays within the spread of the others."""
    assert limit([*history, wild]) <= 11.0 + 5 * 1.4826 * 2.0


@given(HISTORIES, st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_more_sigmas_never_lower_the_limit(history: list[float], a: float, b: float) -> None:
    few, many = (NoisePolicy(sigmas=s, min_share=0.0, min_s=0.0) for s in sorted((a, b)))
    assert limit(history, few) <= limit(history, many)


@pytest.mark.parametrize("runs", [5, 10, 30])
def test_noise_is_not_flagged_and_a_doubling_is(runs: int) -> None:
    """2000 tests whose duration varies by 5 %: fewer than 10 called slow, no doubling lost."""
    rng = random.Random(runs)
    false, lost = 0, 0
    for _ in range(2000):
        history = [rng.gauss(60.0, 3.0) for _ in range(runs)]
        highest = limit(history, NoisePolicy())
        false += rng.gauss(60.0, 3.0) > highest
        lost += rng.gauss(120.0, 6.0) <= highest
    assert false < 10
    assert lost == 0
