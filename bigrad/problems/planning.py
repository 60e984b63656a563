"""The most that any policy earns: what certifies bounds on a leader's number."""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import InputError


def best_return(reward: Tensor, transition: Tensor, start: Tensor, discount: float) -> float:
    r"""The largest discounted return over all policies, by value iteration, rounded up by what is left of it.

    Args:
        reward: ``(S, A)``.
        transition: ``(S, A, S)``.
        start: ``(S,)``.
        discount: ``0 <= discount < 1``.

    Example:
        >>> import torch
        >>> round(best_return(torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, 1), torch.ones(1), 0.5), 5)
        2.0
    """
    if not 0 <= discount < 1:
        raise InputError(f"discount is {discount}; wanted 0 <= discount < 1")
    value = reward.new_zeros(len(reward))
    sweeps = 1 if discount == 0 else math.ceil(math.log(1e-14) / math.log(discount))
    for _ in range(sweeps):
        before, value = value, (reward + discount * (transition @ value)).amax(-1)
    rest = discount / (1 - discount) * float((value - before).abs().amax())
    return float(start @ value) + rest
