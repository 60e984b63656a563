"""Apprenticeship: find a reward whose soft-optimal policy is an expert's, on a grid that a robot navigates."""

from __future__ import annotations

import torch

from .gridworld import MOVES, grid_world
from .reference import ReferenceProblem


def apprenticeship(
    size: int = 5, temperature: float = 0.3, discount: float = 0.95, dtype: torch.dtype = torch.float64
) -> ReferenceProblem:
    r"""Minimise :math:`\frac{1}{|S|} \sum_s KL(\bar\pi_s \| \pi^*_s(x))`, which is 0 at the expert's own reward.

    A robot crosses a square with puddles to the far corner, where the episode ends; a move fails one time in ten. The
    expert's reward is one for each cell and so is the learner's: ``minimiser`` is the expert's.

    Source: Maximum Entropy Inverse Reinforcement Learning (Ziebart, Maas, Bagnell, Dey, 2008).

    Example:
        >>> problem = apprenticeship()
        >>> abs(float(problem.objective(problem.minimiser))) < 1e-12
        True
    """
    grid = grid_world((" " * size,) * size, 0.1, dtype)
    states = size * size
    transition = grid.transition.clone()
    transition[-1] = 0
    truth = torch.full((states,), -0.1, dtype=dtype)
    truth[size + 1 : 2 * size - 1] = -1.0
    truth[-1] = 2.0
    start = torch.zeros(states, dtype=dtype)
    start[0] = 1
    problem = ReferenceProblem(
        reward=lambda x: x[:, None].expand(-1, 4),
        transition=transition,
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: (expert * (expert / policy).log()).sum(-1).mean(),
        name="apprenticeship",
        init=torch.zeros(states, dtype=dtype),
        optimum=0.0,
        minimiser=truth,
        layout=grid.layout,
        moves=MOVES,
    )
    expert = problem.follower(truth)[0].policy
    return problem
