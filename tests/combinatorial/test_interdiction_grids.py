"""Interdiction on larger grids: against a MILP for each order, and what a stopped search says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.combinatorial import Interdiction, ShortestPath
from bigrad.errors import NotConverged

from .games import D, reached


def arcs(size: int, connectivity: int) -> Tensor:
    """The pairs of neighbouring cells of a square grid, both ways."""
    cells = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    apart = (cells[:, None] - cells[None]).abs()
    near = apart.sum(2) == 1 if connectivity == 4 else apart.amax(2) == 1
    return near.nonzero()


def max_min_by_duality(z: Tensor, w: Tensor, budget: int, connectivity: int) -> float:
    """Raised cells and distances in one MILP (Israeli, Wood)."""
    np, optimize = pytest.importorskip("numpy"), pytest.importorskip("scipy.optimize")
    n, size = z.numel(), z.shape[0]
    before, after = arcs(size, connectivity).T.numpy()
    rows = np.arange(len(before))
    steps = np.zeros((len(rows), 2 * n))
    steps[rows, after], steps[rows, before] = 1, -1
    steps[rows, n + after] = -w.flatten().numpy()[after]
    paid = np.r_[np.zeros(n), np.ones(n)]
    aim = np.zeros(2 * n)
    aim[n - 1], aim[n] = -1, -float(w[0, 0])
    found = optimize.milp(
        aim,
        constraints=[
            optimize.LinearConstraint(steps, ub=z.flatten().numpy()[after]),
            optimize.LinearConstraint(paid[None], ub=budget),
        ],
        bounds=optimize.Bounds(np.zeros(2 * n), np.r_[0.0, np.full(n - 1, np.inf), np.ones(n)]),
        integrality=paid,
    )
    return float(z[0, 0]) - found.fun


def min_max_by_duality(z: Tensor, w: Tensor, budget: int, connectivity: int) -> float:
    """The path, and the dual of what is raised on it, in one MILP (Bertsimas, Sim)."""
    np, optimize = pytest.importorskip("numpy"), pytest.importorskip("scipy.optimize")
    n, size = z.numel(), z.shape[0]
    before, after = arcs(size, connectivity).T.numpy()
    m = len(before)
    flow, visit = np.zeros((n, m + n + 1)), np.zeros((n, m + n + 1))
    flow[before, np.arange(m)], flow[after, np.arange(m)] = 1, -1
    through = np.zeros(n)
    through[0], through[-1] = 1, -1
    visit[after, np.arange(m)] = w.flatten().numpy()[after]
    visit[np.arange(n), m + np.arange(n)], visit[:, -1] = -1, -1  # w y - theta <= p
    limit = np.zeros(n)
    limit[0] = -float(w[0, 0])
    found = optimize.milp(
        np.r_[z.flatten().numpy()[after], np.ones(n), budget],
        constraints=[
            optimize.LinearConstraint(flow, through, through),
            optimize.LinearConstraint(visit, ub=limit),
        ],
        bounds=optimize.Bounds(np.zeros(m + n + 1), np.r_[np.ones(m), np.full(n + 1, np.inf)]),
        integrality=np.r_[np.ones(m), np.zeros(n + 1)],
    )
    return float(z[0, 0]) + found.fun


@pytest.mark.parametrize(("size", "budget", "connectivity"), [(6, 3, 8), (6, 4, 4), (8, 3, 8)])
def test_a_milp_finds_the_same_on_larger_grids(size: int, budget: int, connectivity: int) -> None:
    draw = torch.Generator().manual_seed(size + budget)
    z, w = torch.randint(1, 11, (2, 2, size, size), generator=draw).to(D)
    for order, milp in (("max_min", max_min_by_duality), ("min_max", min_max_by_duality)):
        x, y = Interdiction(ShortestPath(connectivity), budget, order)(z, w)
        truth = [milp(*problem, budget, connectivity) for problem in zip(z, w, strict=True)]
        torch.testing.assert_close(reached(z, w, torch.zeros_like(z), x, y), torch.tensor(truth, dtype=D))


@pytest.mark.parametrize("order", ["max_min", "min_max"])
def test_torch_alone_finds_the_same(order: str) -> None:
    z, w = torch.randint(1, 11, (2, 4, 8, 8), generator=torch.Generator().manual_seed(1)).to(D)
    found = [Interdiction(ShortestPath(compiled=way), 3, order)(z, w) for way in (None, False)]
    torch.testing.assert_close(found[0], found[1])


def test_a_ten_by_ten_grid_with_five_raised_cells_is_proven() -> None:
    z, w = torch.randint(1, 11, (2, 10, 10), generator=torch.Generator().manual_seed(2)).to(D)
    *_, certificate = Interdiction(ShortestPath(), 5, "max_min", max_steps=20_000).search(z[None], w[None])
    assert float(certificate.gap.max()) == 0


def test_a_stopped_search_names_its_gap() -> None:
    z, w = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=D)
    z = z + 1
    none = torch.zeros_like(z)
    best = reached(z, w, none, *Interdiction(ShortestPath(4), 3, "max_min")(z, w))
    for limits in ({"max_steps": 140}, {"seconds": 0.0}):
        game = Interdiction(ShortestPath(4), 3, "max_min", **limits)
        x, y, certificate = game.search(z, w)
        value, gap = reached(z, w, none, x, y), certificate.gap
        assert bool((value <= best + 1e-12).all())
        assert bool((best <= value + gap + 1e-12).all())
        assert float(gap.max()) > 0
        with pytest.raises(NotConverged, match=r"the gap between the value found and the proven bound is \d\.\d+"):
            game(z, w)
