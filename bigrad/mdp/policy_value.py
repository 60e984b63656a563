"""What a given policy is worth, entropy included."""

from __future__ import annotations

import torch
from torch import Tensor


def policy_value(
    policy: Tensor, reward: Tensor, transition: Tensor, discount: float, temperature: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Values ``(S,)`` and action values ``(S, A)`` of a fixed policy, differentiable in every tensor.

    :math:`V = (I - \gamma P^\pi)^{-1} \sum_a \pi_{sa} (r_{sa} - \tau \log \pi_{sa})` and :math:`Q = r + \gamma P V`. A
    leader's return is :math:`\langle \rho, V \rangle` with its own reward and temperature 0.

    Args:
        policy: ``(S, A)``.
        reward: ``(S, A)``, minus infinity where there is no action.
        transition: ``(S, A, S)``.
        discount: ``0 <= discount < 1``.
        temperature: weight of the entropy.

    Example:
        >>> import torch
        >>> stay = torch.ones(1, 2, 1)
        >>> policy_value(torch.tensor([[0.25, 0.75]]), torch.tensor([[0.0, 4.0]]), stay, 0.5)
        (tensor([6.]), tensor([[3., 7.]]))
    """
    missing = reward == -torch.inf
    gain = (policy * reward.masked_fill(missing, 0.0)).sum(-1)
    if temperature:
        present = policy.masked_fill(missing, 1.0)
        gain = gain - temperature * torch.xlogy(present, present).sum(-1)
    value = torch.linalg.solve(evaluation_matrix(policy, transition, discount), gain)
    return value, reward + discount * (transition @ value)


def evaluation_matrix(policy: Tensor, transition: Tensor, discount: float) -> Tensor:
    """``I - discount * P^pi``, ``(S, S)``."""
    identity = torch.eye(policy.shape[0], dtype=policy.dtype, device=policy.device)
    return identity - discount * torch.einsum("sa,sat->st", policy, transition)
