"""Tours: against all of them, torch and numba bit for bit."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch

from bigrad import InputError, MissingPackage
from bigrad.combinatorial import Tour

from .feasible import D, assert_best, draw, tours


@pytest.mark.parametrize("kind", ["normal", "positive", "whole"])
@pytest.mark.parametrize("directed", [False, True])
def test_no_tour_is_shorter(kind: str, directed: bool) -> None:
    for nodes, dtype in itertools.product(range(2, 8), (torch.float32, D)):
        cost = draw(20, nodes, nodes, seed=nodes, kind=kind, dtype=dtype)
        by_torch, by_numba = (
            assert_best(Tour(directed, compiled=compiled), cost, tours(nodes, directed), maximise=False)
            for compiled in (False, True)
        )
        assert torch.equal(by_torch, by_numba)


def test_a_tour_without_direction_counts_each_edge_twice() -> None:
    place = draw(4, 6, 2)
    length = torch.cdist(place, place)
    y = Tour()(length)
    assert torch.equal(y, y.mT)
    one_way = (length * Tour(directed=True)(length)).sum((1, 2))
    torch.testing.assert_close((length * y).sum((1, 2)), 2 * one_way)


def test_the_largest_that_a_program_solves() -> None:
    """On a circle the neighbours are known."""
    angle = torch.linspace(0, 6.2, 13)[:12][torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    place = torch.stack([angle.cos(), angle.sin()], 1)
    order = angle.argsort()
    truth = torch.zeros(12, 12)
    truth[order, order.roll(1)] = 1
    for compiled in (False, True):
        assert torch.equal(Tour(compiled=compiled)(torch.cdist(place, place)), truth + truth.T)


def test_a_large_batch_is_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = draw(7, 5, 5)
    whole = Tour(compiled=False)(cost)
    monkeypatch.setattr("bigrad.combinatorial.tour.PART", 3)
    assert torch.equal(Tour(compiled=False)(cost), whole)


def test_more_nodes_want_or_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools", None)
    with pytest.raises(MissingPackage, match="a Tour through 13 nodes, more than 12"):
        Tour()(torch.ones(13, 13))


@pytest.mark.parametrize("directed", [False, True])
def test_or_tools_agrees_with_the_program(directed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ortools")
    cost = draw(5, 7, 7)
    program = Tour(directed)(cost)
    monkeypatch.setattr("bigrad.combinatorial.tour.MOST_NODES", 6)
    by_circuit = Tour(directed)(cost)
    torch.testing.assert_close((cost * by_circuit).sum((1, 2)), (cost * program).sum((1, 2)), rtol=1e-6, atol=1e-6)


def test_what_is_no_distance_matrix_is_refused() -> None:
    for shape in ((2, 3), (1, 1), (4, 0, 0)):
        with pytest.raises(InputError, match=r"n, n\) with n >= 2"):
            Tour()(torch.ones(shape))
