"""Statistics against cases computed by hand, by complete enumeration, by SciPy, and by rliable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import factorial

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from bigrad.errors import InputError
from bigrad.rlhf import comparison

Estimate, aggregate, band = comparison.Estimate, comparison.aggregate, comparison.band
difference, improvement = comparison.difference, comparison.improvement

FIVE = np.array([0.0, 1.0, 4.0, 9.0, 25.0])
OTHER = np.array([1.0, 1.0, 3.0, 10.0, 30.0])
RLIABLE_RUNS = tuple(
    [np.array(task, dtype=np.float64) for task in side]
    for side in (
        ((-70, 70, -90, -10, -20, 0, -100), (90, 120, -150, -70, 90, -70, 70), (-10, 40, 180, 10, 0, 50, 150)),
        ((-180, 430, 140, 0, 90, 0, -120), (-320, -100, -80, 130, 20, -90, -110), (140, -140, -30, -10, -80, 50, 270)),
    )
)  # two methods, three tasks, seven runs


def samples(size: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of ``size`` runs can be drawn in a bootstrap sample, and with what probability."""
    counts = np.array([row for row in product(range(size + 1), repeat=size) if sum(row) == size])
    weights = [factorial(size) / np.prod([factorial(count) for count in row]) / size**size for row in counts]
    return counts, np.array(weights)


def quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), level)])


def near(estimate: Estimate, values: np.ndarray, weights: np.ndarray) -> bool:
    """Whether an interval is the exact one, up to what chance does to its levels."""
    assert estimate.low is not None
    assert estimate.high is not None
    return all(
        quantile(values, weights, level - 0.006) - 1e-9 <= end <= quantile(values, weights, level + 0.006) + 1e-9
        for end, level in ((estimate.low, 0.025), (estimate.high, 0.975))
    )


@pytest.mark.parametrize(
    ("scores", "value"),
    [
        ([[7.0]], 7.0),
        ([[1.0, 2.0, 30.0]], 11.0),  # a quarter of three is less than one: nothing is cut
        ([[100.0, 1.0, 3.0, -100.0]], 2.0),
        ([list(range(1, 11))], 5.5),  # two of ten are cut at each end
        ([[0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 50.0, 60.0]], 2.0),
        ([[0.0, 8.0], [1.0, 3.0]], 2.0),  # over all tasks together, not the mean of their own (2.5)
    ],
)
def test_the_interquartile_mean_by_hand(scores: list[list[float]], value: float) -> None:
    assert aggregate([np.array(task) for task in scores]).value == pytest.approx(value)


def test_the_interval_is_that_of_all_bootstrap_samples() -> None:
    drawn = np.array(list(product(FIVE, repeat=5)))
    drawn.sort(1)
    found = aggregate([FIVE])
    assert near(found, drawn[:, 1:4].mean(1), np.full(len(drawn), 1 / len(drawn)))
    assert not near(Estimate(0, *np.percentile(FIVE, (2.5, 97.5))), drawn[:, 1:4].mean(1), np.full(len(drawn), 5**-5.0))


def test_strata_are_drawn_apart() -> None:
    """Five runs at 0 and five at 10 always meet in the middle; drawn together they would not."""
    assert aggregate([np.zeros(5), np.full(5, 10.0)]) == Estimate(5.0, 5.0, 5.0)
    assert aggregate([np.array([0.0] * 5 + [10.0] * 5)]).low != 5.0


def test_runs_in_pairs_are_drawn_in_pairs() -> None:
    shifted = difference([FIVE + 2], [FIVE])
    assert (shifted.value, shifted.low, shifted.high) == pytest.approx((2.0, 2.0, 2.0))
    loose = difference([FIVE + 2], [FIVE[::-1]])  # the same runs, other partners
    assert loose.value == pytest.approx(2.0)
    assert loose.low is not None
    assert loose.low < 0
    assert difference([np.array([1.0, 5.0])], [np.array([2.0, 3.0])]) == Estimate(0.5)


@pytest.mark.parametrize(("left", "right", "value"), [([1, 3], [1, 2], 5 / 8), ([1, 1], [1], 0.5), ([2], [1, 3], 0.5)])
def test_the_probability_of_improvement_by_hand(left: list[float], right: list[float], value: float) -> None:
    assert improvement([np.array(left)], [np.array(right)]).value == value


def test_the_probability_of_improvement_is_mann_and_whitneys_mean_over_tasks() -> None:
    generator = np.random.default_rng(0)
    left = [generator.integers(0, 6, size).astype(float) for size in (7, 5, 9)]
    right = [generator.integers(1, 7, size).astype(float) for size in (6, 8, 5)]
    shares = [mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(left, right, strict=True)]
    pooled = mannwhitneyu(np.concatenate(left), np.concatenate(right)).statistic / (21 * 19)
    found = improvement(left, right).value
    assert found == pytest.approx(np.mean(shares))
    assert found != pytest.approx(pooled)
    assert improvement(right, left).value == pytest.approx(1 - found)


def test_the_interval_of_improvement_is_that_of_all_bootstrap_samples() -> None:
    counts, weights = samples(5)
    won = (FIVE[:, None] > OTHER) + 0.5 * (FIVE[:, None] == OTHER)
    values = counts @ won @ counts.T / 25
    assert near(improvement([FIVE], [OTHER]), values.ravel(), np.outer(weights, weights).ravel())
    together = (counts @ won * counts).sum(1) / 25  # both sides drawn alike: another distribution
    assert not near(improvement([FIVE], [OTHER]), together, weights)


def test_a_band_is_that_of_all_bootstrap_samples_of_curves() -> None:
    counts, weights = samples(5)
    curves = np.stack([FIVE, OTHER, np.ones(5)], 1)
    mean, low, high = band(curves)
    np.testing.assert_allclose(mean, curves.mean(0))
    for point in range(3):
        found = Estimate(mean[point], low[point], high[point])
        assert near(found, counts @ curves[:, point] / 5, weights)
    np.testing.assert_allclose(band(curves + 1)[1], low + 1)  # pairs stay pairs


def test_rliable_finds_the_same() -> None:
    """Values of rliable 1.2.0, 50,000 bootstrap repeats (5,000 for improvement)."""
    left, right = RLIABLE_RUNS
    found = aggregate(left, repeats=50_000)
    assert found.value == pytest.approx(11.818181818181818)
    assert (found.low, found.high) == pytest.approx((-28.18, 50.91), abs=2)
    better = improvement(left, right, repeats=50_000)
    assert better.value == pytest.approx(0.5714285714285715)
    assert (better.low, better.high) == pytest.approx((0.388, 0.748), abs=0.015)


def test_below_five_runs_no_interval_is_claimed() -> None:
    four, five = [np.arange(4.0), np.arange(5.0)], [np.arange(5.0)] * 2
    for estimate in (aggregate(four), difference(four, four), improvement(four, five), improvement(five, four)):
        assert (estimate.low, estimate.high) == (None, None)
    assert all(found.low is not None for found in (aggregate(five), difference(five, five), improvement(five, five)))
    assert aggregate(four).shown() == "1.8"
    assert Estimate(1.25, -2.0, 3.0).shown(".2f") == "1.25 [-2.00, 3.00]"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: aggregate([]), r"shapes \[\]"),
        (lambda: aggregate([np.zeros(3), np.zeros(0)]), r"\(0,\)"),
        (lambda: aggregate([np.zeros((3, 2))]), r"\(3, 2\)"),
        (lambda: aggregate([np.array([1.0, np.nan])]), "NaN"),
        (lambda: difference([np.zeros(3)], [np.zeros(2)]), "wanted pairs"),
        (lambda: improvement([np.zeros(3)], [np.zeros(2)] * 2), "1 and 2 tasks"),
    ],
)
def test_bad_scores_are_refused(wrong: Callable[[], object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        wrong()
