"""Games small enough to try everything: all points of both levels, and the values of all pairs."""

from __future__ import annotations

import itertools
from functools import cache

import torch
from torch import Tensor

from bigrad.combinatorial import BilevelEstimator, BilevelOracle, Estimator, Interdiction, Knapsack, ShortestPath, Tour
from bigrad.layers import BilevelCombinatorial

D = torch.float64
WEIGHTS = torch.tensor([3, 5, 2, 7, 4, 4])
GAMES = {
    "path max_min": (Interdiction(ShortestPath(), 2, "max_min"), (3, 4)),
    "path min_max": (Interdiction(ShortestPath(4), 2, "min_max"), (3, 4)),
    "knapsack min_max": (Interdiction(Knapsack(WEIGHTS, 12), 2, "min_max"), (6,)),
    "knapsack max_min": (Interdiction(Knapsack(WEIGHTS, 12), 2, "max_min"), (6,)),
    "tour max_min": (Interdiction(Tour(), 1, "max_min"), (4, 4)),
}
Costs = tuple[Tensor, Tensor, Tensor, Tensor]


@cache
def grid_points(height: int, width: int, connectivity: int) -> Tensor:
    """All simple paths from the first to the last cell, as masks ``(P, height * width)``."""
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if abs(i) + abs(j) in (1, 1 if connectivity == 4 else 2)]
    found: list[set[tuple[int, int]]] = []

    def walk(cell: tuple[int, int], seen: set[tuple[int, int]]) -> None:
        if cell == (height - 1, width - 1):
            found.append(seen)
            return
        for down, right in steps:
            beside = cell[0] + down, cell[1] + right
            if 0 <= beside[0] < height and 0 <= beside[1] < width and beside not in seen:
                walk(beside, seen | {beside})

    walk((0, 0), {(0, 0)})
    cells = list(itertools.product(range(height), range(width)))
    return torch.tensor([[float(cell in path) for cell in cells] for path in found], dtype=D)


def masks(size: int) -> Tensor:
    """All 0/1 vectors ``(2^size, size)``."""
    return (torch.arange(2**size)[:, None] >> torch.arange(size) & 1).to(D)


def affordable(prices: Tensor, budget: int) -> Tensor:
    """All sets that a budget pays."""
    every = masks(len(prices))
    return every[every @ prices.to(D) <= budget]


def values(z: Tensor, w: Tensor, a: Tensor, leader: Tensor, follower: Tensor) -> Tensor:
    """The value of each pair of points in each problem ``(B, X, Y)``, for costs ``(B, n)``."""
    shared = torch.einsum("xn,bn,yn->bxy", leader, w, follower)
    return (z @ follower.T)[:, None] + shared + (a @ leader.T)[:, :, None]


def max_min(table: Tensor) -> Tensor:
    """The value where the maximising leader is first."""
    return table.min(2).values.max(1).values


def min_max(table: Tensor) -> Tensor:
    """The value where the minimising follower is first."""
    return table.max(1).values.min(1).values


def reached(z: Tensor, w: Tensor, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The value of one pair of points in each problem ``(B,)``."""
    x, y, z, w, a = (part.flatten(1) for part in (x, y, z, w, a))
    return ((z + x * w) * y + a * x).sum(1)


def drawn(game: Interdiction, event: tuple[int, ...], problems: int = 20, seed: int = 0) -> Costs:
    """``z`` and ``w``, far enough inside the domain, and gradients of ``x`` and ``y``."""
    draw = torch.Generator().manual_seed(seed)
    z, w = torch.rand(2, problems, *event, generator=draw, dtype=D)
    g_x, g_y = 0.3 * torch.randn(2, problems, *event, generator=draw, dtype=D)
    return 2 + z, -2 * w if game.follower_maximises else 2 * w, g_x, g_y.clamp(-1.5, 1.5)


def gradients(layer: BilevelCombinatorial, costs: Costs) -> tuple[Tensor, Tensor]:
    """The gradients of ``<g_x, x> + <g_y, y>`` in ``z`` and ``w``."""
    z, w = (part.clone().requires_grad_() for part in costs[:2])
    x, y = layer(z, w)
    ((costs[2] * x).sum() + (costs[3] * y).sum()).backward()
    assert z.grad is not None
    assert w.grad is not None
    return z.grad, w.grad


def quietly(oracle: BilevelOracle, estimator: BilevelEstimator | Estimator) -> BilevelCombinatorial:
    """A layer that does not look into gradients of zero."""
    return BilevelCombinatorial(oracle, estimator, on_zero_gradient="ignore")
