"""The k best."""

from __future__ import annotations

import pytest
import torch

from bigrad import InputError
from bigrad.combinatorial import TopK

from .feasible import assert_best, draw
from .games import masks


@pytest.mark.parametrize("kind", ["normal", "whole", "zeros"])
@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("k", range(7))
def test_no_other_k_are_better(kind: str, maximise: bool, k: int) -> None:
    points = masks(6)
    assert_best(TopK(k, maximise), draw(50, 6, seed=k, kind=kind), points[points.sum(1) == k], maximise)


def test_of_equals_the_first_are_taken() -> None:
    """A threshold, the usual shortcut, would take all of them."""
    scores = torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert TopK(2)(scores).tolist() == [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    threshold = scores >= scores.topk(2).values[:, -1:]
    assert threshold.sum(1).tolist() == [3, 5]


@pytest.mark.parametrize("maximise", [False, True])
def test_of_many_equals_the_first_are_taken(maximise: bool) -> None:
    """A sort keeps the order of a few equals by chance, that of many only where it is told to."""
    scores = torch.arange(60.0) % 3
    order = sorted(range(60), key=lambda place: (-scores[place] if maximise else scores[place], place))
    assert TopK(25, maximise)(scores).nonzero().flatten().tolist() == sorted(order[:25])


def test_too_few_are_refused() -> None:
    with pytest.raises(InputError, match="k is -1"):
        TopK(-1)
    with pytest.raises(InputError, match="3 entries; wanted at least k = 4"):
        TopK(4)(torch.ones(3))
