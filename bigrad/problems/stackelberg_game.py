"""A Markov game with a leader who commits to a mixed policy, and a follower who answers it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import LeaderReturn
from .planning import best_return
from .reference import ReferenceProblem


def stackelberg_game(
    generator: torch.Generator,
    states: int = 5,
    actions: int = 3,
    leader_actions: int = 2,
    discount: float = 0.9,
    temperature: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> ReferenceProblem:
    r"""The leader plays b with chance :math:`softmax(x_s)_b`; reward and transition of the follower are means over it.

    So both depend on ``x``, and the response goes through both. The leader minimises less its own discounted return.
    Its rewards and the follower's are drawn apart. No commitment does better than ``bound``, the return of a leader who
    plays for both.

    Source of the setting: Principled Penalty-based Methods for Bilevel Reinforcement Learning and RLHF (Shen, Yang,
    Chen, 2024).

    Example:
        >>> import torch
        >>> problem = stackelberg_game(torch.Generator().manual_seed(0))
        >>> problem.bound < float(problem.objective(problem.init))
        True
    """
    weights = -torch.log(torch.rand(states, actions, leader_actions, states, generator=generator, dtype=dtype))
    joint = weights / weights.sum(-1, keepdim=True)
    own, other = torch.randn(2, states, actions, leader_actions, generator=generator, dtype=dtype)
    start = torch.full((states,), 1 / states, dtype=dtype)

    def averaged(x: Tensor, table: Tensor) -> Tensor:
        return torch.einsum("sb,sab...->sa...", torch.softmax(x, -1), table)

    returns = LeaderReturn(lambda x: -averaged(x, other), discount)
    return ReferenceProblem(
        reward=lambda x: averaged(x, own),
        transition=lambda x: averaged(x, joint),
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: returns.expected(x, policy, averaged(x, joint), start),
        returns=returns,
        name="Stackelberg Markov game",
        bound=-best_return(other.flatten(1), joint.flatten(1, 2), start, discount),
        init=torch.zeros(states, leader_actions, dtype=dtype),
    )
