"""Skipping, equal, myopic and mistaken teachers against plain loops, with returns of either sign."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bigrad.errors import InputError
from bigrad.rlhf import ReturnScale, SyntheticTeacher

PERFECT: dict[str, Any] = {"beta": math.inf}


def rewards(count: int = 400, steps: int = 6, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, 2, steps))


def scale_of(shown: np.ndarray) -> ReturnScale:
    returns = shown.sum(-1)
    return ReturnScale(float(returns.mean()), float(returns.std()))


def by_hand(shown: np.ndarray, scale: ReturnScale, discount: float, equal: float, skip: float) -> list[float]:
    """A perfect teacher's answers, one after the other."""
    answers = []
    for left, right in shown:
        returns = sum(left), sum(right)
        sums = [sum(r * discount ** (len(side) - 1 - t) for t, r in enumerate(side)) for side in (left, right)]
        answer = 0.5 if sums[0] == sums[1] else float(sums[1] > sums[0])
        if equal and abs(returns[0] - returns[1]) < equal * scale.spread:
            answer = 0.5
        if skip and max(returns) <= scale.mean - (1 - skip) * scale.spread:
            answer = math.nan
        answers.append(answer)
    return answers


@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize("options", [{}, {"discount": 0.6}, {"equal": 0.4}, {"skip": 0.5}, {"discount": 0.0}])
def test_answers_are_those_of_a_loop(options: dict[str, float], shift: float) -> None:
    shown = rewards(shift=shift)
    given = SyntheticTeacher(**PERFECT, **options).label_steps(shown, scale_of(shown))
    expected = by_hand(shown, scale_of(shown), *(options.get(name, usual) for name, usual in USUAL))
    np.testing.assert_array_equal(given, expected)


USUAL = [("discount", 1.0), ("equal", 0.0), ("skip", 0.0)]


def test_all_at_once_come_in_the_published_order() -> None:
    """Skip and equal by plain returns, whatever the myopic ones say."""
    shown = rewards()
    given = SyntheticTeacher(**PERFECT, discount=0.5, equal=0.4, skip=0.5).label_steps(shown, scale_of(shown))
    np.testing.assert_array_equal(given, by_hand(shown, scale_of(shown), 0.5, 0.4, 0.5))
    plain = by_hand(shown, scale_of(shown), 1.0, 0.4, 0.5)
    assert ((given == 0.5) == (np.array(plain) == 0.5)).all()
    assert (np.isnan(given) == np.isnan(plain)).all()
    assert (given[given != 0.5] != np.array(plain)[given != 0.5]).any()


def test_a_myopic_teacher_remembers_the_end_best() -> None:
    early, late = [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
    shown = np.array([[early, late], [late, early]])
    teacher = SyntheticTeacher.named("myopic", discount=0.5)
    assert teacher.label_steps(shown, ReturnScale(0.0, 1.0)).tolist() == [1.0, 0.0]
    assert SyntheticTeacher(**PERFECT).label_steps(shown, ReturnScale(0.0, 1.0)).tolist() == [0.0, 1.0]


def test_boltzmann_sees_the_myopic_returns() -> None:
    count, steps, discount = 20_000, 3, 0.5
    shown = np.tile([[[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]], (count, 1, 1))
    given = SyntheticTeacher(1.5, seed=1, discount=discount).label_steps(shown, ReturnScale(0.0, 1.0))
    chance = 1 / (1 + math.exp(-1.5 * (1.0 - 2.0 * discount ** (steps - 1))))
    assert abs(given.mean() - chance) < 4 * math.sqrt(chance * (1 - chance) / count)


@pytest.mark.parametrize("mistake", [0.1, 0.6, 1.0])
def test_mistakes_turn_choices_round_as_often_as_said(mistake: float) -> None:
    shown = rewards(20_000, 2)
    right = SyntheticTeacher(**PERFECT).label_steps(shown, scale_of(shown))
    given = SyntheticTeacher(**PERFECT, mistake=mistake, seed=2).label_steps(shown, scale_of(shown))
    turned = given != right
    assert abs(turned.mean() - mistake) <= 4 * math.sqrt(mistake * (1 - mistake) / len(given))
    assert (given[turned] == 1 - right[turned]).all()


def test_equal_pairs_stay_equal_whatever_the_mistakes() -> None:
    shown = rewards()
    given = SyntheticTeacher(**PERFECT, mistake=0.5, equal=0.4).label_steps(shown, scale_of(shown))
    plain = by_hand(shown, scale_of(shown), 1.0, 0.4, 0.0)
    assert ((given == 0.5) == (np.array(plain) == 0.5)).all()


@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_thresholds_do_not_depend_on_the_sign_or_offset_of_the_reward(shift: float) -> None:
    """On Pendulum every return is negative: B-Pref's formula would never skip and never find a pair equal there."""
    shown = rewards(2000)
    teacher = SyntheticTeacher(**PERFECT, equal=0.1, skip=0.3)
    expected = teacher.label_steps(shown, scale_of(shown))
    found = teacher.label_steps(shown + shift, scale_of(shown + shift))
    assert (found == expected).sum() + np.isnan(expected).sum() >= 1999  # sums round
    assert 0.01 < np.isnan(found).mean() < 0.2
    assert 0.01 < (found == 0.5).mean() < 0.2


def bpref(shown: np.ndarray, mean: float, equal: float, skip: float) -> list[float]:
    """B-Pref's rules: thresholds are shares of the mean return, and a skip needs a positive one."""
    answers = []
    for left, right in shown.sum(-1):
        answer = 1.0 if left < right else 0.0
        if abs(left - right) < equal * mean:
            answer = 0.5
        if skip * mean > 0 and max(left, right) <= skip * mean:
            answer = math.nan
        answers.append(answer)
    return answers


@pytest.mark.parametrize("shift", [-1.0, 0.3, 2.0])
def test_bpref_compat_follows_its_formulas(shift: float) -> None:
    shown = rewards(shift=shift)
    shown[:5, 1] = shown[:5, 0]  # ties
    teacher = SyntheticTeacher(**PERFECT, equal=0.2, skip=0.9, bpref_compat=True)
    given = teacher.label_steps(shown, scale_of(shown))
    np.testing.assert_array_equal(given, bpref(shown, scale_of(shown).mean, 0.2, 0.9))
    if shift < 0:
        assert not np.isnan(given).any()
        assert not (given == 0.5).any()
    else:
        assert np.isnan(given).any()
        assert (given == 0.5).any()


def test_ties_are_drawn_by_bprefs_boltzmann_teacher() -> None:
    given = SyntheticTeacher(1.0, bpref_compat=True).label_steps(np.zeros((1000, 2, 3)), ReturnScale(0.0, 0.0))
    assert set(given) == {0.0, 1.0}


def test_nothing_is_skipped_or_equal_by_default() -> None:
    shown = rewards()
    given = SyntheticTeacher(**PERFECT).label_steps(shown, scale_of(shown))
    assert set(given) == {0.0, 1.0}


def test_every_kind_of_bprefs_teachers_has_its_numbers() -> None:
    given = {kind: repr(SyntheticTeacher.named(kind)) for kind in SyntheticTeacher.KINDS}
    assert given == {
        "perfect": "SyntheticTeacher(beta=inf, seed=None)",
        "boltzmann": "SyntheticTeacher(beta=1.0, seed=None)",
        "mistake": "SyntheticTeacher(beta=inf, seed=None, mistake=0.1)",
        "skip": "SyntheticTeacher(beta=inf, seed=None, skip=0.1)",
        "equal": "SyntheticTeacher(beta=inf, seed=None, equal=0.1)",
        "myopic": "SyntheticTeacher(beta=inf, seed=None, discount=0.9)",
    }
    with pytest.raises(InputError, match="no teacher 'oracle'; wanted one of perfect, boltzmann"):
        SyntheticTeacher.named("oracle")


@pytest.mark.parametrize("odd", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["discount", "mistake", "equal", "skip"])
def test_a_number_out_of_range_is_named(name: str, odd: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {odd}; wanted "):
        SyntheticTeacher(**{name: odd})


@pytest.mark.parametrize("changes", [{}, {"mistake": 0.2, "equal": 0.1, "skip": 0.3, "discount": 0.9, "seed": 4}])
def test_json_brings_a_teacher_back(changes: dict[str, Any]) -> None:
    teacher = SyntheticTeacher(**PERFECT, **changes, bpref_compat=bool(changes))
    again = SyntheticTeacher.from_json(teacher.to_json())
    assert repr(again) == repr(teacher)
    assert repr(SyntheticTeacher.from_json({"beta": "2.0", "seed": 3})) == "SyntheticTeacher(beta=2.0, seed=3)"
