"""DRLHF: the reward is fitted to preferences as if the policy that shows the segments did not answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP
from .sampling import Sampling, draw_segments, required, segment_gradient


@dataclass(frozen=True)
class DRLHF(Algorithm):
    r"""The direct term alone, :math:`\nabla_x f(x, \pi^*(x))`: biased by the whole response of the policy.

    Args:
        sampling: ``None`` is exact.

    Source: Deep Reinforcement Learning from Human Preferences (Christiano, Leike, Brown, Martic, Legg, Amodei, 2017).
    """

    sampling: Sampling | None = None

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """Exact, or the estimate from one batch, for which no rollouts are drawn."""
        x = x.detach()
        solved, certificate = problem.follower(x)
        sweeps = int(certificate.steps)
        if self.sampling is None:
            value, direct, _ = problem.partials(x, solved.policy)
            return HyperGradient(value, direct, certificate, Cost(0, 1, 0, sweeps))
        batch = draw_segments(problem, x, solved.policy, self.sampling, required(generator, x))
        value, gradient = segment_gradient(problem, x, solved, batch, respond=False)
        return HyperGradient(value, gradient, certificate, Cost(batch.steps, 1, 0, sweeps))
