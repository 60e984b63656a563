"""Oracles that are short enough to be right, and what the tests of estimators share."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bigrad.combinatorial import Estimator, Oracle
from bigrad.layers import Combinatorial

D = torch.float64
# torch itself calls a deprecated function where forward mode is first used
FORWARD_MODE = "ignore:.*torch.jit.script.* is deprecated:DeprecationWarning"


class Points(Oracle):
    """The best of a list of points; remembers what it was asked."""

    def __init__(self, points: Tensor, *, maximise: bool = False, nonnegative: bool = False) -> None:
        self.points, self.maximise, self.nonnegative = points, maximise, nonnegative
        self.asked: list[Tensor] = []

    def solve(self, cost: Tensor) -> Tensor:
        self.asked.append(cost)
        assert not self.nonnegative or bool((cost >= 0).all())
        values = cost @ self.points.to(cost).mT
        return self.points.to(cost)[values.argmax(-1) if self.maximise else values.argmin(-1)]


class Same(Oracle):
    """The cost itself: a linear solver, whose smoothing and whose differences are the identity."""

    def __init__(self, maximise: bool = False) -> None:
        self.maximise = maximise

    def solve(self, cost: Tensor) -> Tensor:
        return cost if self.maximise else -cost


def vertices(n: int = 4, k: int = 2) -> Tensor:
    """All 0/1 vectors of length ``n`` with ``k`` ones."""
    rows = [[float(place in chosen) for place in range(n)] for chosen in itertools.combinations(range(n), k)]
    return torch.tensor(rows, dtype=D)


def options(n: int = 4, *, maximise: bool = True) -> Points:
    """One of ``n``."""
    return Points(torch.eye(n, dtype=D), maximise=maximise)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    """A new generator."""
    return torch.Generator().manual_seed(seed)


def gradient(oracle: Oracle, estimator: Estimator, cost: Tensor, cotangent: Tensor) -> Tensor:
    """The vector-Jacobian product that a layer hands back."""
    cost = cost.clone().requires_grad_()
    y = Combinatorial(oracle, estimator, on_zero_gradient="ignore")(cost)
    return torch.autograd.grad(y, cost, cotangent)[0]


def softmax_jacobian(score: Tensor) -> Tensor:
    """Of one vector."""
    chance = score.softmax(-1)
    return chance.diag() - chance.outer(chance)
