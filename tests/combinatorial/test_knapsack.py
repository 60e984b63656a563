"""Packings: against all subsets, torch and numba bit for bit."""

from __future__ import annotations

import random

import pytest
import torch

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import Knapsack
from bigrad.errors import Infeasible

from .feasible import D, assert_best, draw
from .games import affordable


@pytest.mark.parametrize("kind", ["normal", "positive", "whole"])
def test_no_packing_is_worth_more(kind: str) -> None:
    choose = random.Random(len(kind))
    for number in range(150):
        items = choose.randint(1, 8)
        weights = [choose.choice((0, 2, 3, 4, 6, 9)) for _ in range(items)]
        capacity = choose.randint(0, 20)
        profits = draw(5, items, seed=number, kind=kind, dtype=torch.float32 if number % 2 else D)
        points = affordable(torch.tensor(weights), capacity)
        by_torch, by_numba = (
            assert_best(Knapsack(weights, capacity, compiled=compiled), profits, points, maximise=True)
            for compiled in (False, True)
        )
        assert torch.equal(by_torch, by_numba)


def test_larger_ones_agree_with_highs() -> None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    weights = torch.randint(5, 80, (40,), generator=torch.Generator().manual_seed(0))
    profits = draw(5, 40, kind="positive")
    y = Knapsack(weights, 400)(profits)
    for one, packed in zip(profits, y, strict=True):
        rule = LinearConstraint(weights[None].numpy(), -float("inf"), 400)
        best = milp(
            -one.numpy(), integrality=[1] * 40, bounds=Bounds(0, 1), constraints=rule, options={"mip_rel_gap": 0}
        )
        assert float((one * packed).sum()) == pytest.approx(-best.fun, rel=1e-9)
        assert int(packed.long() @ weights) <= 400


def test_a_large_batch_is_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, profits = Knapsack([3, 5, 7, 2], 9, compiled=False), draw(7, 4)
    whole = oracle(profits)
    monkeypatch.setattr("bigrad.combinatorial.knapsack.MOST_CELLS", 80)
    assert torch.equal(oracle(profits), whole)


def test_the_unit_of_the_weights_does_not_matter() -> None:
    """A common divisor is taken out, so that the table stays small; capacity beyond all weights is cut off."""
    profits = draw(9, 3)
    assert torch.equal(Knapsack([3000, 4000, 5000], 8999)(profits), Knapsack([3, 4, 5], 8)(profits))
    assert torch.equal(Knapsack([3, 4, 5], 10**15)(profits), (profits > 0).to(D))


def test_equally_good_packings_are_told_apart_by_a_rule() -> None:
    for compiled in (False, True):
        assert Knapsack([1, 1, 1], 2, compiled=compiled)(torch.ones(2, 3)).tolist() == [[1, 1, 0]] * 2
        assert Knapsack([1, 1], 2, compiled=compiled)(torch.zeros(2)).tolist() == [0, 0]


def test_what_is_no_knapsack_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="several for an item; MixedInteger"):
        Knapsack([[1, 2], [3, 4]], 5)
    with pytest.raises(InputError, match="multiply decimals by a power of ten"):
        Knapsack([1.5, 2.0], 5)
    with pytest.raises(InputError, match="none below zero"):
        Knapsack([1, -2], 5)
    with pytest.raises(InputError, match=r"capacity is 2\.5; wanted an integer"):
        Knapsack([1, 2], 2.5)  # type: ignore[arg-type]
    with pytest.raises(Infeasible, match="capacity is -1"):
        Knapsack([1, 2], -1)
    with pytest.raises(InputError, match=r"\(\*batch, 2\)"):
        Knapsack([1, 2], 1)(torch.ones(3))
