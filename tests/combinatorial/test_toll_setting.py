"""Tolls against a linear program for each path, and against a MILP by strong duality."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import ShortestPath, TollSetting
from bigrad.errors import NotConverged, Unbounded

from .games import D

Edges = list[tuple[int, int]]


def grid(size: int) -> Edges:
    """The edges of a square grid, to the right and down."""
    nodes = [(row, column) for row in range(size) for column in range(size)]
    right = [(row * size + column, row * size + column + 1) for row, column in nodes if column < size - 1]
    return right + [(row * size + column, (row + 1) * size + column) for row, column in nodes if row < size - 1]


def problem(seed: int) -> tuple[Edges, int, bool, Tensor, Tensor]:
    """A grid, or a random graph with parallel edges; with or without directions, ties, and limits."""
    draw = torch.Generator().manual_seed(seed)
    edges, target = grid(3), 8
    if seed % 3 == 0:
        pairs = torch.randint(0, 6, (14, 2), generator=draw)
        edges, target = [tuple(pair) for pair in pairs[pairs[:, 0] != pairs[:, 1]].tolist()] + [(0, 5)], 5
    z = torch.rand(len(edges), generator=draw, dtype=D) * 10
    largest = torch.tensor([0.0, 0.0, 3.0, torch.inf], dtype=D)
    w = largest[torch.randint(0, 4, z.shape, generator=draw)]
    return edges, target, seed % 2 == 0, z if seed % 4 else z.floor(), w


def highway(seed: int) -> tuple[Edges, int, bool, Tensor, Tensor]:
    """Short and long roads along a line, cheaper where there are tolls; one long free road."""
    draw = torch.Generator().manual_seed(seed)
    pairs = [(tail, head) for tail in range(6) for head in range(tail + 1, 6)]
    edges = [pair for pair in pairs if torch.rand((), generator=draw) < 0.7 or pair == (0, 5)] + [(0, 5)]
    z = torch.tensor([(head - tail) * (1 + 2 * float(torch.rand((), generator=draw))) for tail, head in edges], dtype=D)
    w = torch.where(torch.rand(len(edges), generator=draw) < 0.5, torch.inf, 0.0).to(D)
    z = torch.where(w > 0, 0.4 * z, z)
    z[-1], w[-1] = 15, 0
    return edges, 5, True, z, w


# Here it is not the cheapest path without tolls that pays best.
DETOURS = [31, 114, 181, 220, 258, 354, 373, 463]


def all_paths(edges: Edges, target: int, directed: bool) -> Tensor:
    """All simple paths from node 0 as masks ``(P, E)``."""
    found: list[list[int]] = []

    def walk(node: int, seen: set[int], used: list[int]) -> None:
        if node == target:
            found.append(used)
            return
        for place, ends in enumerate(edges):
            for tail, head in (ends,) if directed else (ends, ends[::-1]):
                if tail == node and head not in seen:
                    walk(head, seen | {head}, [*used, place])

    walk(0, {0}, [])
    paths = torch.zeros(len(found), len(edges), dtype=D)
    for row, used in enumerate(found):
        paths[row, used] = 1
    return paths


def by_linear_programs(paths: Tensor, z: Tensor, w: Tensor) -> float:
    """The most that any path collects if the tolls are to make it the cheapest."""
    optimize = pytest.importorskip("scipy.optimize")
    best = -torch.inf
    bounds = [(0, None if limit == torch.inf else limit) for limit in w.tolist()]
    for path in paths:
        found = optimize.linprog(
            -path.numpy(), A_ub=(path - paths).numpy(), b_ub=((paths - path) @ z).numpy(), bounds=bounds
        )
        if found.status == 3:
            return torch.inf
        best = max(best, -found.fun if found.status == 0 else -torch.inf)
    return best


def by_duality(edges: Edges, target: int, z: Tensor, w: Tensor) -> float:
    """One MILP: a flow, distances under tolls, equal values of both, and what is collected edge by edge."""
    np, optimize = pytest.importorskip("numpy"), pytest.importorskip("scipy.optimize")
    m, n = len(edges), 1 + max(max(pair) for pair in edges)
    most = float(z.sum()) + 1  # no toll above is ever paid
    limit = w.clamp_max(most).numpy()
    tail, head = np.array(edges).T
    eye, none, place = np.eye(m), np.zeros((m, m)), np.arange(m)
    flow, steps = np.zeros((n, m)), np.zeros((m, n))
    flow[tail, place] += 1
    flow[head, place] -= 1
    steps[place, head] += 1
    steps[place, tail] -= 1
    through = np.zeros(n)
    through[0], through[target] = 1, -1
    empty = np.zeros((m, n))
    least = [optimize.LinearConstraint(np.c_[flow, np.zeros((n, 2 * m + n))], through, through)]
    least += [  # variables: path, tolls, collected, distances
        optimize.LinearConstraint(np.c_[none, -eye, none, steps], ub=z.numpy()),
        optimize.LinearConstraint(np.c_[-np.diag(limit), none, eye, empty], ub=0),
        optimize.LinearConstraint(np.c_[none, -eye, eye, empty], ub=0),
        optimize.LinearConstraint(np.c_[np.diag(limit), eye, -eye, empty], ub=limit),
    ]
    equal = np.r_[z.numpy(), np.zeros(m), np.ones(m), through]
    least.append(optimize.LinearConstraint(equal[None], 0, 0))
    free = np.full(n, np.inf)
    found = optimize.milp(
        -np.r_[np.zeros(2 * m), np.ones(m), np.zeros(n)],
        constraints=least,
        bounds=optimize.Bounds(np.r_[np.zeros(3 * m), -free], np.r_[np.ones(m), limit, limit, free]),
        integrality=np.r_[np.ones(m), np.zeros(2 * m + n)],
    )
    return -found.fun


def assert_answer(paths: Tensor, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> None:
    """The tolls are allowed, and the path is one that the follower may take."""
    assert bool(((x >= 0) & (x <= w) & x.isfinite()).all())
    assert bool((paths == y).all(1).any())
    prices = paths @ (z + x)
    assert float((z + x) @ y - prices.min()) <= 1e-12 * float(z.sum())


@pytest.mark.parametrize("part", range(4))
def test_linear_programs_find_the_same(part: int) -> None:
    unbounded = 0
    for seed in range(part * 25, part * 25 + 25):
        edges, target, directed, z, w = problem(seed)
        paths = all_paths(edges, target, directed)
        truth = by_linear_programs(paths, z, w)
        game = TollSetting(ShortestPath.graph(edges, 0, target, directed=directed))
        if truth == torch.inf:
            unbounded += 1
            with pytest.raises(Unbounded, match=f"each path from node 0 to node {target} has a toll without limit"):
                game(z, w)
            continue
        x, y = game(z, w)
        assert_answer(paths, z, w, x, y)
        assert float(x @ y) == pytest.approx(truth, abs=1e-9)
    assert unbounded < 20


@pytest.mark.parametrize("seed", DETOURS)
def test_a_path_that_is_dearer_may_pay_better(seed: int) -> None:
    edges, target, _, z, w = highway(seed)
    paths = all_paths(edges, target, directed=True)
    graph = ShortestPath.graph(edges, 0, target)
    x, y = TollSetting(graph)(z, w)
    assert_answer(paths, z, w, x, y)
    assert float(x @ y) == pytest.approx(by_linear_programs(paths, z, w), abs=1e-9)
    assert not torch.equal(y, graph(z))


@pytest.mark.parametrize("seed", range(6))
def test_a_milp_finds_the_same_on_a_larger_grid(seed: int) -> None:
    edges = grid(4)
    draw = torch.Generator().manual_seed(seed)
    z = torch.randint(1, 11, (len(edges),), generator=draw).to(D)
    w = torch.where(torch.rand(len(edges), generator=draw) < 0.4, torch.inf, 0.0).to(D)
    w[[2, 5, 8, 11]] = 0  # the last of each row, on a free way
    w[:3], w[-1], w[15], w[19] = 0, 0, 0, 0
    x, y = TollSetting(ShortestPath.graph(edges, 0, 15))(z, w)
    assert float((x * y).sum()) == pytest.approx(by_duality(edges, 15, z, w), abs=1e-6)


def test_of_equal_paths_the_follower_takes_the_one_that_pays() -> None:
    graph = ShortestPath.graph([(0, 1), (0, 1)], 0, 1)
    x, y = TollSetting(graph)(torch.tensor([5.0, 2.0]), torch.tensor([0.0, torch.inf]))
    assert (x.tolist(), y.tolist()) == ([0, 3], [0, 1])


def test_a_toll_on_a_way_that_is_too_dear_does_not_bring_it_back() -> None:
    graph = ShortestPath.graph([(0, 1), (0, 1)], 0, 1)
    x, y = TollSetting(graph)(torch.tensor([2.0, 5.0]), torch.tensor([0.0, torch.inf]))
    assert y.tolist() == [1, 0]
    assert 0 <= float(x[1]) < torch.inf


@pytest.mark.parametrize("seed", DETOURS[:3])
def test_a_stopped_search_names_its_gap(seed: int) -> None:
    edges, target, _, z, w = highway(seed)
    graph = ShortestPath.graph(edges, 0, target)
    best = (lambda x, y: float(x @ y))(*TollSetting(graph)(z, w))
    for limits in ({"max_steps": 0}, {"seconds": 0.0}):
        game = TollSetting(graph, **limits)
        x, y, certificate = game.search(z[None], w[None])
        assert float(x[0] @ y[0]) < best <= float(x[0] @ y[0] + certificate.gap) + 1e-12
        with pytest.raises(NotConverged, match=r"toll setting \(problem 0 of 1\) stopped early: the gap"):
            game(z, w)


def test_batches_and_dtypes() -> None:
    graph = ShortestPath.graph(grid(3), 0, 8)
    z, w = torch.rand(2, 4, 3, 12, generator=torch.Generator().manual_seed(0))
    x, y = TollSetting(graph)(z, w)
    assert (x.shape, y.shape, x.dtype) == (z.shape, z.shape, torch.float32)
    torch.testing.assert_close((x[2, 1], y[2, 1]), TollSetting(graph)(z[2, 1], w[2, 1]))


def test_what_makes_no_sense_is_refused() -> None:
    graph = ShortestPath.graph([(0, 1), (0, 1)], 0, 1)
    with pytest.raises(InputError, match="the follower is ShortestPath"):
        TollSetting(ShortestPath())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the least cost or largest toll is -1"):
        TollSetting(graph)(torch.ones(2), -torch.ones(2))
    with pytest.raises(InputError, match="least cost or largest toll"):
        TollSetting(graph)(-torch.ones(2), torch.ones(2))
    with pytest.raises(InputError, match="NaN"):
        TollSetting(graph)(torch.ones(2), torch.full((2,), torch.nan))
    with pytest.raises(InputError, match="one number for each edge"):
        TollSetting(graph)(torch.ones(3), torch.ones(3))
    with pytest.raises(UnsupportedError, match="no tilt of the tolls"):
        TollSetting(graph).search(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2))
