"""Spanning trees: against all of them, torch and numba bit for bit."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from bigrad import InputError
from bigrad.combinatorial import SpanningTree
from bigrad.errors import Infeasible

from .feasible import D, assert_best, draw, trees


@pytest.mark.parametrize("kind", ["normal", "whole", "zeros"])
@pytest.mark.parametrize("maximise", [False, True])
def test_no_tree_is_better(kind: str, maximise: bool) -> None:
    choose, refused = random.Random(len(kind)), 0
    for number in range(150):
        nodes = choose.randint(1, 5)
        edges = [(choose.randrange(nodes), choose.randrange(nodes)) for _ in range(choose.randint(0, 8))]
        listed, points = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2), trees(edges, nodes)
        if not len(points):
            with pytest.raises(Infeasible, match="add the edges that are missing"):
                SpanningTree(listed, nodes)
            refused += 1
            continue
        cost = draw(5, len(edges), seed=number, kind=kind, dtype=torch.float32 if number % 2 else D)
        by_torch, by_numba = (
            assert_best(SpanningTree(listed, nodes, maximise=maximise, compiled=compiled), cost, points, maximise)
            for compiled in (False, True)
        )
        assert torch.equal(by_torch, by_numba)
    assert 20 < refused < 120


def test_edges_that_cost_nothing_are_edges() -> None:
    """SciPy's sparse matrices would drop them."""
    pairs = list(itertools.combinations(range(5), 2))
    for compiled in (False, True):
        assert SpanningTree(pairs, compiled=compiled)(torch.zeros(10)).sum() == 4


def test_a_larger_tree_agrees_with_scipy() -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pairs = list(itertools.combinations(range(40), 2))
    cost = draw(3, len(pairs), kind="positive")
    u, v = torch.tensor(pairs).T.numpy()
    for compiled in (False, True):
        y = SpanningTree(pairs, compiled=compiled)(cost)
        for one, tree in zip(cost, y, strict=True):
            truth = minimum_spanning_tree(coo_array((one.numpy(), (u, v)), shape=(40, 40))).sum()
            assert float((one * tree).sum()) == pytest.approx(truth)
            assert tree.sum() == 39


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(Infeasible, match="the 1 edges join node 0 with 2 of the 3 nodes"):
        SpanningTree([(0, 1)], 3)
    with pytest.raises(InputError, match="from 0 to 3; wanted nodes from 0 to 2"):
        SpanningTree([(0, 3)], 3)
    with pytest.raises(InputError, match="one number for each edge"):
        SpanningTree([(0, 1)])(torch.ones(2))
