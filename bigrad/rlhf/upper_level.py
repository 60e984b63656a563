"""The upper level: preferences, and the policy's answer to the reward, move the reward model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..calculus import gradients_of
from .preferences import Pairs
from .reward_model import RewardEnsemble


def preference_logits(reward: RewardEnsemble, pairs: Pairs) -> Tensor:
    """How much more reward the right segment has, by each member: ``(members, pairs)``."""
    totals = reward.raw(pairs.observation, pairs.action).sum(-1)
    return totals[..., 1] - totals[..., 0]


def preference_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of labels in [0, 1], from logits; elementwise."""
    return torch.nn.functional.softplus(logits) - label * logits


def upper_step(
    reward: RewardEnsemble,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    label: Tensor,
    response: Callable[[], Tensor] | None,
) -> tuple[float, float]:
    """One step on the mean preference loss, plus the response term where there is one.

    Args:
        reward: the model to move.
        optimizer: over its parameters.
        pairs: all labelled pairs.
        label: their labels.
        response: a scalar whose gradient is the response term.

    Returns:
        the loss, and the norm of the response term over that of the direct one (0 without a response).
    """
    parameters = list(reward.parameters())
    loss = preference_loss(preference_logits(reward, pairs), label).mean()
    direct = gradients_of(loss, parameters)
    ratio = 0.0
    gradient = direct
    if response is not None:
        indirect = gradients_of(response(), parameters)
        ratio = float(_norm(indirect) / _norm(direct).clamp_min(1e-12))
        gradient = [a + b for a, b in zip(direct, indirect, strict=True)]
    for parameter, part in zip(parameters, gradient, strict=True):
        parameter.grad = part
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss), ratio


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.norm() for tensor in tensors]).norm()
