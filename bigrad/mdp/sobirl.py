"""SoBiRL: the hyper-gradient of the soft-optimal answer, exact or from sampled segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calculus import gradients_of
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP
from .sampling import Sampling, draw_batch, required, segment_gradient
from .soft_bellman import solve_soft_bellman


@dataclass(frozen=True)
class SoBiRL(Algorithm):
    r"""Solve the lower level, then :math:`\nabla \phi = \nabla_x f + \tau^{-1} R^\top [\pi \odot (g - E w)]`.

    Here :math:`g = \nabla_\pi f`, :math:`R = \partial r / \partial x` and :math:`w` solves the adjoint system
    :math:`(I - \gamma P^\pi)^\top w = U^\top diag(\pi) g`. With a ``sampling`` the same vector is estimated from
    segments of the follower's behaviour, their loss, and rollouts; see :func:`~bigrad.mdp.segment_gradient`.

    Args:
        sampling: ``None`` is exact.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).

    Example:
        >>> import torch
        >>> from bigrad.problems import random_mdp, preference_problem
        >>> generator = torch.Generator().manual_seed(0)
        >>> problem = preference_problem(random_mdp(generator), steps=2)
        >>> SoBiRL()(problem, torch.zeros(4, dtype=torch.float64)).cost.linear_solves
        1
    """

    sampling: Sampling | None = None

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """Exact, or the estimate from one batch."""
        x = x.detach()
        if self.sampling is not None:
            solved, certificate = problem.follower(x)
            batch = draw_batch(problem, x, solved.policy, self.sampling, required(generator, x))
            value, gradient = segment_gradient(problem, x, solved, batch, baseline=self.sampling.baseline)
            return HyperGradient(value, gradient, certificate, Cost(batch.steps, 1, 0, int(certificate.steps)))
        with torch.enable_grad():
            reward = problem.reward(x).detach().requires_grad_()
            answer, found = solve_soft_bellman(reward, problem.given_at(x), problem.discount, problem.temperature)
        assert found is not None  # only torch.func has none
        policy = answer.policy.detach()
        value, direct, slope = problem.partials(x, policy)
        # What is one for all actions of a state moves nothing, and would only cost digits.
        slope = slope - (policy * slope).sum(-1, keepdim=True)
        (cotangent,) = gradients_of((answer.policy * slope).sum(), [reward])
        gradient = direct + problem.pull_back(x, answer.value.detach(), cotangent)
        return HyperGradient(value, gradient, found, Cost(0, 1, 1, int(found.steps)))
