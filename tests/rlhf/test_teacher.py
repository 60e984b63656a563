"""The synthetic teacher follows Bradley and Terry, and only them."""

from __future__ import annotations

import numpy as np
import pytest

from bigrad.errors import InputError
from bigrad.rlhf import SyntheticTeacher

COUNT = 20_000


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("difference", [-2.0, -0.3, 0.05, 1.0])
def test_frequencies_follow_the_formula(beta: float, difference: float) -> None:
    left = np.linspace(-50, 50, COUNT)
    given = SyntheticTeacher(beta, seed=1).label(left, left + difference)
    assert set(np.unique(given)) <= {0.0, 1.0}
    chance = 1 / (1 + np.exp(-beta * difference))
    assert abs(given.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / COUNT)


@pytest.mark.parametrize("beta", [0.1, 1.0, float("inf")])
def test_exact_ties_are_labelled_a_half(beta: float) -> None:
    returns = np.array([-3.0, 0.0, 1e9])
    assert (SyntheticTeacher(beta).label(returns, returns) == 0.5).all()


def test_an_infinite_beta_never_errs() -> None:
    left, right = np.random.default_rng(0).normal(size=(2, 1000))
    right[:10] = left[:10] + 1e-12
    assert (SyntheticTeacher(float("inf")).label(left, right) == (right > left)).all()


def test_enormous_differences_do_not_overflow() -> None:
    given = SyntheticTeacher(1e6).label(np.array([-1e300, 1e300]), np.array([1e300, -1e300]))
    assert given.tolist() == [1.0, 0.0]


def test_a_seed_decides_the_labels() -> None:
    left, right = np.zeros(200), np.full(200, 0.1)
    first, again, other = (SyntheticTeacher(seed=seed).label(left, right) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_two_questions_get_two_answers() -> None:
    teacher = SyntheticTeacher(seed=0)
    left, right = np.zeros(200), np.full(200, 0.1)
    assert (teacher.label(left, right) != teacher.label(left, right)).any()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_returns_that_no_one_can_rank_are_refused(odd: float, side: int) -> None:
    returns = np.zeros((2, 3))
    returns[side, 1] = odd
    with pytest.raises(InputError, match="NaN or infinite"):
        SyntheticTeacher().label(*returns)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_a_beta_that_is_not_positive_is_refused(beta: float) -> None:
    with pytest.raises(InputError, match=f"beta is {beta}"):
        SyntheticTeacher(beta)
