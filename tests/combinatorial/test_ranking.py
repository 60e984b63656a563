"""Ranks."""

from __future__ import annotations

import pytest
import torch

from bigrad.combinatorial import Ranking

from .feasible import assert_best, draw, permutations


@pytest.mark.parametrize("kind", ["normal", "whole"])
@pytest.mark.parametrize("maximise", [False, True])
def test_no_other_order_is_better(kind: str, maximise: bool) -> None:
    for size in range(1, 6):
        cost = draw(60, size, seed=size, kind=kind)
        assert_best(Ranking(maximise), cost, permutations(size) + 1, maximise)


def test_the_greatest_score_has_rank_one() -> None:
    scores = torch.tensor([0.1, 5.0, -2.0, 5.0])
    assert Ranking()(scores).tolist() == [3, 1, 4, 2]
    assert Ranking(maximise=True)(scores).tolist() == [2, 3, 1, 4]


@pytest.mark.parametrize("maximise", [False, True])
def test_many_equals_are_ranked_as_they_come(maximise: bool) -> None:
    scores = torch.arange(60.0) % 3
    order = sorted(range(60), key=lambda place: (scores[place] if maximise else -scores[place], place))
    assert Ranking(maximise)(scores)[order].tolist() == [*range(1, 61)]
