"""Estimators with and without noise, and a backward pass through a layer: what its tests share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    Difference,
    Estimator,
    Gumbel,
    Identity,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    StraightThrough,
)
from bigrad.layers import Combinatorial

from ..combinatorial.points import Points, numbers, seeded, vertices

COST, COTANGENT = numbers(6, 4, seed=1), numbers(6, 4, seed=2)
QUIET: dict[str, Estimator] = {
    "Blackbox": Blackbox(2.0),
    "Blackbox, relative": Blackbox(RelativeStep(), two_sided=True),
    "Identity": Identity(),
    "StraightThrough": StraightThrough(),
    "AdaptiveIMLE": AdaptiveIMLE(noise=None, ratio_step=0.0),
}
NOISY: dict[str, Callable[[], Estimator]] = {
    "IMLE": lambda: IMLE(2.0, 4, generator=seeded()),
    "PerturbedOptimizer": lambda: PerturbedOptimizer(4, generator=seeded()),
    "PerturbedOptimizer, difference": lambda: PerturbedOptimizer(4, Normal(), Difference(2.0), seeded()),
    "StraightThrough": lambda: StraightThrough(Gumbel(), 4, seeded()),
}


def points(**options: bool) -> Points:
    return Points(vertices(), **options)


def backward(layer: Combinatorial, cost: Tensor = COST, cotangent: Tensor = COTANGENT) -> Tensor:
    cost = cost.clone().requires_grad_()
    return torch.autograd.grad(layer(cost), cost, cotangent)[0]
