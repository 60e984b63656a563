"""HPGD: the hyper-gradient as a mean over places, each with the change of its advantage and the leader's slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calculus import gradients_of
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP
from .paths import Paths, categorical
from .policy_value import policy_value
from .response import Branches, soft_response
from .sampling import Sampling, draw_rollouts, required
from .segments import Rollouts, Segments
from .soft_bellman import SoftSolution


@dataclass(frozen=True)
class HPGD(Algorithm):
    r"""Sample places s from :math:`\nu` and actions a from the policy, and roll out from each twice.

    .. math:: \nabla \phi = \nabla_x f + E_{s \sim \nu, a \sim \pi^*} \Big[ \frac{1}{\tau \nu(s)}
              \partial_x A^{\pi^*}(s, a) \, \frac{\partial f}{\partial \pi(a | s)} \Big]

    :math:`\partial_x A = \partial_x Q - \partial_x V` comes from two independent rollouts, and :math:`\nu` is uniform.
    The leader's slope is known. Exactly, it is SoBiRL's vector; ``sampling=None`` takes the mean over all places, and
    the change of the advantages through an evaluation of the fixed policy.

    Args:
        sampling: ``samples`` is the number of places; ``None`` is exact.

    Source: Contextual Bilevel Reinforcement Learning for Incentive Alignment (Thoma, Pasztor, Krause, Ramponi, Hu,
    2024).
    """

    sampling: Sampling | None = None

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """Exact, or the estimate from places drawn."""
        x = x.detach()
        solved, certificate = problem.follower(x)
        value, direct, slope = problem.partials(x, solved.policy)
        slope = slope - (solved.policy * slope).sum(-1, keepdim=True)  # moves nothing, and is less to average away
        sweeps = int(certificate.steps)
        if self.sampling is None:
            gradient = direct + _over_all_places(problem, x, solved, slope)
            return HyperGradient(value, gradient, certificate, Cost(0, 1, 2, sweeps))
        response, steps = _over_drawn_places(problem, x, solved, slope, self.sampling, required(generator))
        return HyperGradient(value, direct + response, certificate, Cost(steps, 1, 0, sweeps))


def _over_all_places(problem: BilevelMDP, x: Tensor, solved: SoftSolution, slope: Tensor) -> Tensor:
    transition = problem.transition_at(x).detach()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        incentive = problem.action_value(x, solved.value)
        value, q_value = policy_value(solved.policy, incentive, transition, problem.discount)
        total = (solved.policy * slope * (q_value - value[:, None])).sum() / problem.temperature
    return gradients_of(total, [x])[0] if total.requires_grad else torch.zeros_like(x)


def _over_drawn_places(
    problem: BilevelMDP, x: Tensor, solved: SoftSolution, slope: Tensor, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, int]:
    count = len(solved.policy)
    states = torch.randint(count, (sampling.samples, 1), generator=generator, device=x.device)
    actions = categorical(solved.policy.cumsum(-1)[states], generator)
    rollouts = draw_rollouts(problem, x, solved.policy, states, actions, sampling, generator)
    log_prob = solved.policy.log()[states, actions]
    places = Segments(states, actions, log_prob, *(_weighted(paths) for paths in rollouts))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        table = problem.action_value(x, solved.value)
        changed = soft_response(
            lambda state, action: table[state, action],
            places,
            temperature=problem.temperature,
            discount=problem.discount,
            estimator=Branches(),
        )
        total = count * (slope[states, actions] * changed).mean()
    gradient = gradients_of(total, [x])[0] if total.requires_grad else torch.zeros_like(x)
    return gradient, sum(paths.steps for paths in rollouts)


def _weighted(paths: Paths) -> Rollouts:
    return Rollouts(paths.states, paths.actions, paths.alive)
