"""Paths through grids: against all simple paths and an independent Dijkstra, torch and numba bit for bit."""

from __future__ import annotations

import heapq
import itertools

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.combinatorial import ShortestPath

from .feasible import D, assert_best, draw
from .games import grid_points

KINDS = ("positive", "whole", "zeros")
either = pytest.mark.parametrize("connectivity", [4, 8])


def grids(*shape: int, seed: int = 0, kind: str = "positive", dtype: torch.dtype = D) -> Tensor:
    return draw(*shape, seed=seed, kind=kind, dtype=dtype).abs()


def dijkstra(cost: Tensor, connectivity: int) -> float:
    """The cost of the cheapest path, by a heap."""
    height, width = cost.shape
    numbers = cost.tolist()
    distance, heap = {(0, 0): numbers[0][0]}, [(numbers[0][0], 0, 0)]
    while heap:
        far, i, j = heapq.heappop(heap)
        if (i, j) == (height - 1, width - 1):
            return far
        for k, m in itertools.product((i - 1, i, i + 1), (j - 1, j, j + 1)):
            beside = 0 <= k < height and 0 <= m < width and (connectivity == 8 or k == i or m == j)
            if beside and far + numbers[k][m] < distance.get((k, m), float("inf")):
                distance[k, m] = far + numbers[k][m]
                heapq.heappush(heap, (distance[k, m], k, m))
    raise AssertionError


def spiral(size: int) -> Tensor:
    """A corridor of cost 1 between walls that turns as often as it can."""
    cost = torch.ones(size, size, dtype=D)
    for row in range(1, size - 1, 2):
        cost[row] = 1e6
        cost[row, -1 if row % 4 == 1 else 0] = 1
    return cost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("connectivity", "shape"),
    [*itertools.product((4, 8), [(1, 1), (1, 5), (4, 1), (2, 2), (3, 4), (4, 3)]), (4, (5, 5))],
)
def test_no_simple_path_is_cheaper(connectivity: int, kind: str, shape: tuple[int, int]) -> None:
    points = grid_points(*shape, connectivity)
    for dtype, compiled in itertools.product((torch.float32, D), (False, True)):
        cost = grids(20, *shape, kind=kind, dtype=dtype)
        assert_best(ShortestPath(connectivity, compiled), cost, points, maximise=False)


@either
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_numba_marks_the_same_cells_as_torch(connectivity: int, kind: str, dtype: torch.dtype) -> None:
    for seed, shape in enumerate([(2, 9), (9, 2), (7, 7), (12, 12), (5, 17), (20, 13)]):
        cost = grids(21, *shape, seed=seed, kind=kind, dtype=dtype)
        by_torch, by_numba = (ShortestPath(connectivity, compiled)(cost) for compiled in (False, True))
        assert torch.equal(by_torch, by_numba)
        found = (by_torch * cost).sum((1, 2)).tolist()
        wanted = [dijkstra(one, connectivity) for one in cost]
        assert found == pytest.approx(wanted, rel=1e-5)


@either
def test_a_maze_of_many_turns(connectivity: int) -> None:
    """More turns than sweeps are allowed for, so that numba's heap has to finish."""
    mazes = torch.stack([spiral(81), spiral(81).T, spiral(81) + grids(81, 81)])
    by_torch, by_numba = (ShortestPath(connectivity, compiled)(mazes) for compiled in (False, True))
    assert torch.equal(by_torch, by_numba)
    for maze, mask in zip(mazes, by_numba, strict=True):
        assert float((maze * mask).sum()) == pytest.approx(dijkstra(maze, connectivity))
        assert mask.sum() > 40 * 79


@either
def test_paths_go_back_where_that_is_cheaper(connectivity: int) -> None:
    """Steps to the right and down alone, the usual shortcut, would be caught by the tests above."""
    cost = grids(100, 5, 5, kind="zeros")
    best, forward = (ShortestPath(connectivity)(cost) * cost).sum((1, 2)), cost.clone()
    for i, j in itertools.product(range(5), range(5)):
        before = [forward[:, k, m] for k, m in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if k >= 0 and m >= 0]
        before = before[:2] if connectivity == 4 else before
        forward[:, i, j] += torch.stack(before).amin(0) if before else 0
    assert bool((best < forward[:, -1, -1] - 1e-9).any())
    assert bool((best <= forward[:, -1, -1] + 1e-9).all())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plateau_is_left_by_its_shortest_way(compiled: bool) -> None:
    y = ShortestPath(compiled=compiled)(torch.zeros(6, 9))
    assert y.sum() == 9
    assert torch.equal(y, ShortestPath(compiled=compiled)(torch.zeros(2, 6, 9))[1])


@pytest.mark.parametrize("compiled", [False, True])
def test_the_companions_of_a_batch_decide_nothing(compiled: bool) -> None:
    """Ties included: what is found for a problem depends on that problem alone."""
    cost = torch.cat([grids(5, 6, 6, seed=seed, kind=kind) for seed, kind in enumerate(KINDS)])
    together = ShortestPath(compiled=compiled)(cost)
    for one, y in zip(cost, together, strict=True):
        assert torch.equal(ShortestPath(compiled=compiled)(one), y)


def test_a_large_batch_is_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = grids(7, 5, 5)
    whole = ShortestPath(compiled=False)(cost)
    monkeypatch.setattr("bigrad.combinatorial.grid_path.CACHE", 2 * 25 * 8)
    assert torch.equal(ShortestPath(compiled=False)(cost), whole)


def test_what_is_no_grid_is_refused() -> None:
    with pytest.raises(InputError, match="connectivity is 6; wanted 4 or 8"):
        ShortestPath(6)
    with pytest.raises(InputError, match=r"shape \(2, 0, 3\)"):
        ShortestPath()(torch.zeros(2, 0, 3))
    with pytest.raises(InputError, match=r"least cost is -0\.5; wanted costs >= 0"):
        ShortestPath()(torch.tensor([[1.0, -0.5], [1.0, 1.0]]))


@pytest.mark.parametrize("compiled", [False, True])
def test_sums_that_overflow_are_refused(compiled: bool) -> None:
    cost = torch.full((1, 3, 3), 2e38)
    with pytest.raises(InputError, match=r"add up to more than torch\.float32 holds"):
        ShortestPath(compiled=compiled)(cost)
    with pytest.raises(InputError, match=r"overflows torch\.float32; divide"):  # as an estimator would call it
        ShortestPath(compiled=compiled).solve(cost)
    with pytest.raises(InputError, match="overflows"):
        ShortestPath(compiled=compiled).solve(torch.full((1, 3, 3), torch.nan))


def test_a_perturbed_cost_is_projected_onto_the_domain() -> None:
    assert ShortestPath().project(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [0.0, 0.0, 2.0]
