"""Small Markov decision processes whose every quantity can be written down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TabularMDP:
    """A finite Markov decision process with a reward that depends on parameters.

    Attributes:
        transition: ``(S, A, S)``; each row sums to one or is all zero where the episode ends.
        start: distribution of the first state ``(S,)``.
        discount: below 1.
        temperature: weight of the entropy.
        design: the reward is ``tanh(design @ x)``, ``(S, A, parameters)``.
    """

    transition: Tensor
    start: Tensor
    discount: float
    temperature: float
    design: Tensor

    def reward(self, x: Tensor) -> Tensor:
        """The reward ``(S, A)`` at parameters ``x``."""
        return torch.tanh(self.design @ x)


def random_mdp(
    generator: torch.Generator,
    states: int = 4,
    actions: int = 2,
    parameters: int = 4,
    discount: float = 0.9,
    temperature: float = 0.5,
    terminal: bool = False,
    dtype: torch.dtype = torch.float64,
) -> TabularMDP:
    """Dirichlet transitions and starts, normal design.

    Args:
        generator: draws everything.
        terminal: whether the last action of the last state ends the episode.

    Example:
        >>> import torch
        >>> mdp = random_mdp(torch.Generator().manual_seed(0))
        >>> mdp.transition.sum(-1).allclose(torch.ones(4, 2, dtype=torch.float64))
        True
    """
    weights = -torch.log(torch.rand(states, actions, states, generator=generator, dtype=dtype))
    transition = weights / weights.sum(-1, keepdim=True)
    if terminal:
        transition[-1, -1] = 0
    first = -torch.log(torch.rand(states, generator=generator, dtype=dtype))
    design = torch.randn(states, actions, parameters, generator=generator, dtype=dtype)
    return TabularMDP(transition, first / first.sum(), discount, temperature, design)


def chain_mdp(
    generator: torch.Generator,
    states: int = 5,
    slip: float = 0.1,
    parameters: int = 4,
    discount: float = 0.9,
    temperature: float = 0.5,
    dtype: torch.dtype = torch.float64,
) -> TabularMDP:
    """A corridor with steps to the left and to the right that go the other way with probability ``slip``."""
    transition = torch.zeros(states, 2, states, dtype=dtype)
    for state in range(states):
        left, right = max(state - 1, 0), min(state + 1, states - 1)
        for action, (ahead, behind) in enumerate(((left, right), (right, left))):
            transition[state, action, ahead] += 1 - slip
            transition[state, action, behind] += slip
    start = torch.full((states,), 1 / states, dtype=dtype)
    design = torch.randn(states, 2, parameters, generator=generator, dtype=dtype)
    return TabularMDP(transition, start, discount, temperature, design)
