"""How far a cost is moved along a gradient, problem by problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class RelativeStep:
    r"""The step :math:`\alpha \|w\| / \|g\|` of each problem of a batch: the cost moves by the share ``ratio`` of its
    own size, whatever the loss is divided by.

    Attributes:
        ratio: :math:`\alpha`.

    Source: Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models (Minervini, Franceschi,
    Niepert, 2023), where the norms are those of the whole batch.
    """

    ratio: float = 1.0


Step = float | RelativeStep


def check_step(step: Step, owner: str) -> None:
    """Raise :class:`InputError` where the step is not positive."""
    size = step.ratio if isinstance(step, RelativeStep) else step
    if not 0 < size < math.inf:
        raise InputError(f"{owner}: step is {step}; it must be positive and finite")


def step_sizes(step: Step, cost: Tensor, cotangent: Tensor, event_dims: int) -> Tensor:
    """The steps ``(*batch)`` for costs and gradients ``(*batch, *event)``."""
    if isinstance(step, RelativeStep):
        return relative_sizes(step.ratio, cost, cotangent, event_dims)
    return cost.new_full(cost.shape[: cost.ndim - event_dims], step)


def relative_sizes(ratio: float | Tensor, cost: Tensor, cotangent: Tensor, event_dims: int) -> Tensor:
    """``ratio * |w| / |g|`` ``(*batch)``; a norm of zero counts as one."""
    norms = (part.unsqueeze(-1).flatten(-1 - event_dims).norm(dim=-1) for part in (cost, cotangent))
    of_cost, of_cotangent = (torch.where(norm > 0, norm, 1.0) for norm in norms)
    return ratio * (of_cost / of_cotangent)
