"""A random bilevel MDP whose global optimum is known: no incentive at all."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import Paths, SegmentLoss
from .reference import ReferenceProblem


def synthetic_problem(
    generator: torch.Generator,
    states: int = 10,
    actions: int = 5,
    parameters: int = 100,
    discount: float = 0.5,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> ReferenceProblem:
    r"""Minimise :math:`\tfrac12 \|x\|^2 + \tfrac12 \|\pi^*(x)\|_F^2` ; :math:`r_{sa} = u_{sa} u'_{sa} x^\top M x`.

    At x = 0 all rewards vanish and the policy is uniform, which has the least norm: the optimum is ``|S| / (2 |A|)``.
    As an expectation over segments: with two single steps from uniform states, the policy's squared norm is ``|S|^2``
    times the chance that both are alike.

    Args:
        generator: draws everything, the starting point included.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).

    Example:
        >>> import torch
        >>> problem = synthetic_problem(torch.Generator().manual_seed(0))
        >>> problem.optimum, round(float(problem.objective(problem.minimiser)), 10)
        (1.0, 1.0)
    """
    scale = torch.rand(2, states, actions, generator=generator, dtype=dtype).prod(0)
    matrix = torch.randn(parameters, parameters, generator=generator, dtype=dtype)
    transition = torch.zeros(states, actions, states, dtype=dtype)
    for state in range(states):
        for action in range(actions):
            size = int(torch.randint(1, states, (), generator=generator))
            support = torch.randperm(states, generator=generator)[:size]
            weight = torch.rand(size, generator=generator, dtype=dtype)
            transition[state, action, support] = weight / weight.sum()

    def alike(x: Tensor, segments: Paths) -> Tensor:
        places = segments.states[..., 0] * actions + segments.actions[..., 0]
        same = (places[:, 0] == places[:, 1]).to(x.dtype)
        return 0.5 * x.square().sum() + 0.5 * states**2 * same

    return ReferenceProblem(
        reward=lambda x: scale * (x @ matrix @ x),
        transition=transition,
        start=torch.full((states,), 1 / states, dtype=dtype),
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: 0.5 * x.square().sum() + 0.5 * policy.square().sum(),
        loss=SegmentLoss(alike, steps=1, segments=2),
        name="synthetic problem",
        init=torch.randn(parameters, generator=generator, dtype=dtype),
        optimum=states / (2 * actions),
        minimiser=torch.zeros(parameters, dtype=dtype),
    )
