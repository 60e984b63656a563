"""Combinatorial layers and losses on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    FenchelYoung,
    Gumbel,
    LogNormal,
    PerturbedOptimizer,
    RelativeStep,
    ShortestPath,
    SPOPlus,
)
from bigrad.layers import Combinatorial

D = torch.float64


def numbers(*shape: int) -> Tensor:
    """Fixed numbers without a pattern."""
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=D) ** 1.5).reshape(shape)


def paths(device: torch.device) -> tuple[Tensor, ...]:
    """Combinatorial with each rule, and the losses; they have no second derivative."""
    cost, truth = (
        (0.1 + part.abs()).to(device).requires_grad_() for part in (numbers(6, 4, 4), numbers(6, 4, 4).sin())
    )
    g, found = numbers(6, 4, 4).cos().to(device), []

    def seeded() -> torch.Generator:  # of the host: the same numbers everywhere
        return torch.Generator().manual_seed(0)

    for estimator in (
        None,
        Blackbox(RelativeStep(), two_sided=True),
        IMLE(2.0, 3, generator=seeded()),
        AdaptiveIMLE(samples=3, noise=Gumbel(), generator=seeded()),
        PerturbedOptimizer(3, LogNormal(0.5), generator=seeded()),
    ):
        layer = Combinatorial(ShortestPath(), estimator).to(device)
        y = layer(cost)
        found += [y.detach(), *torch.autograd.grad((g * y).sum(), cost), *layer.state_dict().values()]
    for loss in (SPOPlus(ShortestPath()), FenchelYoung(ShortestPath(), generator=seeded())):
        target = truth.detach() if isinstance(loss, SPOPlus) else ShortestPath()(truth)
        value = loss(cost, target)
        found += [value.detach(), *torch.autograd.grad(value, cost)]
    assert all(tensor.device.type == device.type for tensor in found)
    return tuple(tensor.cpu() for tensor in found)
