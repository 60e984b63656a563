"""Layers of two combinatorial levels on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from bigrad.combinatorial import (
    BilevelBlackbox,
    Blackbox,
    Interdiction,
    Knapsack,
    ShortestPath,
    StraightThrough,
    TollSetting,
    Tour,
)
from bigrad.layers import BilevelCombinatorial

from .solutions import numbers


def games(device: torch.device) -> tuple[Tensor, ...]:
    """BilevelCombinatorial over each follower, in both orders and with each form; it has no second derivative."""
    found = []
    graph = ShortestPath.graph([(0, 1), (1, 2), (0, 2)], source=0, target=2)
    oracles = [
        *(Interdiction(ShortestPath(), 2, order) for order in ("max_min", "min_max")),
        *(Interdiction(Knapsack([3, 5, 2, 4], 7), 1, order) for order in ("max_min", "min_max")),
        Interdiction(Knapsack([3, 5, 2, 4], 7), 3, "min_max", prices=[1, 2, 3, 1]),
        Interdiction(Tour(), 1, "max_min"),
        TollSetting(graph),
    ]
    for oracle, event in zip(oracles, [(3, 4), (3, 4), (4,), (4,), (4,), (4, 4), (3,)], strict=True):
        z, w = ((1 + part.abs()).to(device).requires_grad_() for part in (numbers(2, *event), numbers(2, *event).sin()))
        forms = [Blackbox(2.0), StraightThrough(), BilevelBlackbox(1.0), BilevelBlackbox(1.0, exact=True)]
        for form in forms if oracle.bilinear else forms[:2]:
            layer = BilevelCombinatorial(oracle, form, on_zero_gradient="ignore").to(device)
            x, y = layer(z, -w if oracle.follower_maximises else w)
            g = numbers(*z.shape).cos().to(device)
            found += [x.detach(), y.detach(), *torch.autograd.grad((g * (x + y)).sum(), (z, w), allow_unused=True)]
    found = [tensor for tensor in found if tensor is not None]
    assert all(tensor.device.type == device.type for tensor in found)
    return tuple(tensor.cpu() for tensor in found)
