"""Paths through graphs: against all simple paths, and every way of solving against every other, bit for bit."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.combinatorial import GraphShortestPath, ShortestPath
from bigrad.errors import Infeasible

from .feasible import D, Edges, assert_best, draw, graph_paths

RIGHT_AND_DOWN = [
    (5 * i + j, 5 * k + m)
    for i, j in itertools.product(range(5), repeat=2)
    for k, m in ((i, j + 1), (i + 1, j))
    if k < 5 and m < 5
]


def listed(edges: Edges) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2)


def graphs(count: int, seed: int) -> list[tuple[Edges, int, int, bool]]:
    """Small random graphs, with loops, parallel edges, dead ends, and parts that are not joined."""
    choose = random.Random(seed)
    found = []
    for _ in range(count):
        nodes = choose.randint(3, 6)
        forward = choose.random() < 0.4
        pairs = [(choose.randrange(nodes), choose.randrange(nodes)) for _ in range(choose.randint(2, 13))]
        edges = [(min(pair), max(pair)) if forward else pair for pair in pairs]
        found.append((edges, choose.randrange(nodes), choose.randrange(nodes), choose.random() < 0.4))
    return found


@pytest.mark.parametrize("kind", ["normal", "whole", "zeros"])
def test_no_simple_path_is_cheaper(kind: str) -> None:
    solved = {True: 0, False: 0}
    refused = 0
    for number, (edges, source, target, directed) in enumerate(graphs(300, seed=len(kind))):
        points = graph_paths(edges, source, target, directed)
        if not len(points):
            with pytest.raises(Infeasible):
                ShortestPath.graph(listed(edges), source, target, directed=directed)
            refused += 1
            continue
        found = []
        for compiled in (False, True):
            oracle = ShortestPath.graph(listed(edges), source, target, directed=directed, compiled=compiled)
            cost = draw(4, len(edges), seed=number, kind=kind, dtype=torch.float32 if number % 2 else D)
            cost = cost.abs() if oracle.nonnegative else cost
            found.append(assert_best(oracle, cost, points, maximise=False))
        assert torch.equal(*found)
        solved[oracle.nonnegative] += 1
    assert refused > 30
    assert min(solved.values()) > 50


def test_a_graph_without_circles_takes_negative_costs_and_others_do_not() -> None:
    acyclic = ShortestPath.graph(RIGHT_AND_DOWN, 0, 24)
    assert not acyclic.nonnegative
    cost = draw(50, 40)
    assert_best(acyclic, cost, graph_paths(RIGHT_AND_DOWN, 0, 24, directed=True), maximise=False)
    around = ShortestPath.graph(RIGHT_AND_DOWN, 0, 24, directed=False)
    assert around.nonnegative
    with pytest.raises(InputError, match="wanted costs >= 0"):
        around(cost)
    assert torch.equal(around.project(cost), cost.clamp_min(0))


def test_circles_out_of_reach_do_not_count() -> None:
    """Only what lies between source and target is looked at."""
    edges = [(0, 1), (1, 2), (3, 4), (4, 3), (4, 1), (2, 5), (5, 2)]
    oracle = ShortestPath.graph(edges, 0, 2)
    assert not oracle.nonnegative
    assert oracle(draw(7)).tolist() == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("kind", ["positive", "whole", "zeros"])
def test_a_larger_graph_by_scipy_and_by_torch(directed: bool, kind: str) -> None:
    choose = random.Random(3)
    edges = [(choose.randrange(60), choose.randrange(60)) for _ in range(400)]
    cost = draw(9, 400, kind=kind).abs()
    found = [ShortestPath.graph(edges, 0, 59, directed=directed, compiled=compiled)(cost) for compiled in (False, True)]
    assert torch.equal(*found)
    for one, y in zip(cost, found[0], strict=True):  # alone as among others, ties included
        assert torch.equal(ShortestPath.graph(edges, 0, 59, directed=directed)(one), y)


def test_of_parallel_edges_the_cheapest_is_taken() -> None:
    """SciPy's sparse matrices would add them up."""
    edges = [(0, 1), (0, 1), (1, 0), (1, 2), (2, 0)]
    for compiled in (False, True):
        oracle = ShortestPath.graph(edges, 0, 2, directed=False, compiled=compiled)
        y = oracle(torch.tensor([[3.0, 1.0, 2.0, 1.0, 9.0], [3.0, 4.0, 2.0, 1.0, 9.0], [3.0, 4.0, 2.0, 1.0, 2.0]]))
        assert y.tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


def test_circles_that_cost_nothing_are_not_walked() -> None:
    edges = [(0, 1), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3), (1, 4)]
    for compiled in (False, True):
        y = ShortestPath.graph(edges, 0, 4, compiled=compiled)(torch.zeros(3, 8))
        assert y.tolist() == [[1, 0, 0, 0, 0, 0, 0, 1]] * 3


def test_a_path_to_where_one_is_takes_no_edge() -> None:
    assert ShortestPath.graph([(0, 1), (1, 0)], 1, 1)(torch.ones(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(Infeasible, match="no path leads from node 1 to node 0 along the 1 directed edges"):
        ShortestPath.graph([(0, 1)], 1, 0)
    with pytest.raises(Infeasible, match="from node 0 to node 7"):
        ShortestPath.graph([(0, 1)], 0, 7)
    with pytest.raises(InputError, match=r"wanted integers \(E, 2\)"):
        ShortestPath.graph([0, 1, 2], 0, 1)
    with pytest.raises(InputError, match=r"torch.float32 of shape \(1, 2\)"):
        ShortestPath.graph([(0.0, 1.5)], 0, 1)
    with pytest.raises(InputError, match="from -1 to 0"):
        ShortestPath.graph([(-1, 0)], 0, 1)
    with pytest.raises(InputError, match="source -1 and target 0"):
        ShortestPath.graph([(0, 1)], -1, 0)
    with pytest.raises(InputError, match="one number for each edge"):
        GraphShortestPath([(0, 1)], 0, 1)(torch.ones(3))
