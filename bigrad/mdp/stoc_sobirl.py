"""Stoc-SoBiRL: sampled hyper-gradients with recursive momentum, the old gradient weighted for the new samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP
from .paths import Paths
from .sampling import Batch, Sampling, Weights, draw_batch, required, segment_gradient
from .soft_bellman import SoftSolution


class Momentum(NamedTuple):
    """What Stoc-SoBiRL carries on: the point before, its follower, the direction there, and the number of points."""

    x: Tensor
    solved: SoftSolution
    direction: Tensor
    points: int


@dataclass(frozen=True)
class StocSoBiRL(Algorithm):
    r"""The direction :math:`h_k = \bar\nabla\phi_k + (1 - \mu_k) (h_{k-1} - \bar\nabla\phi^W_{k-1})`.

    Both gradients are of one batch, drawn at :math:`x_k`. The old one needs importance weights of the segments **and**
    of the rollouts, since the batch's law depends on x; without them, or with half of them, it is biased by as much as
    the change that it is there to measure.

    Args:
        sampling: how much a batch draws; its rollouts run to the horizon, since weights outlast a meeting.
        momentum: :math:`\mu_k = \min(1, \text{momentum} / k^{2/3})`; the optimizer's step should shrink as
            :math:`k^{-1/3}`.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025); Momentum-Based Variance Reduction in Non-Convex SGD (Cutkosky, Orabona, 2019).
    """

    sampling: Sampling = field(default_factory=Sampling)
    momentum: float = 1.0

    def __post_init__(self) -> None:
        if not self.momentum > 0:
            raise InputError(f"momentum is {self.momentum}; wanted a positive number")

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """One batch, and the direction; ``memory`` is :class:`Momentum`, ``None`` at the first point."""
        x = x.detach().clone()
        solved, certificate = problem.follower(x)
        whole = replace(self.sampling, meeting=False)
        batch = draw_batch(problem, x, solved.policy, whole, required(generator, x))
        value, direction = segment_gradient(problem, x, solved, batch, baseline=self.sampling.baseline)
        cost, count = Cost(batch.steps, 1, 0, int(certificate.steps)), 1
        if memory is not None:
            weights = importance_weights(problem, batch, (memory.x, memory.solved.policy), (x, solved.policy))
            _, before = segment_gradient(
                problem, memory.x, memory.solved, batch, weights=weights, baseline=self.sampling.baseline
            )
            count = memory.points + 1
            share = min(1.0, self.momentum / count ** (2 / 3))
            direction = direction + (1 - share) * (memory.direction - before)
            cost = cost + Cost(reward_gradients=1)
        return HyperGradient(value, direction, certificate, cost, Momentum(x, solved, direction, count))


def importance_weights(
    problem: BilevelMDP, batch: Batch, target: tuple[Tensor, Tensor], drawn: tuple[Tensor, Tensor]
) -> Weights:
    """The weights that turn a batch drawn at one ``(x, policy)`` into one of another, the target.

    A segment's weight is the product of all its ratios. A rollout's step ``t`` has the product of the actions' ratios
    up to ``t``, the given first action of a rollout after an action left out, and of the moves' ratios before ``t``.
    """
    if batch.after_action is None or batch.after_state is None:
        raise InputError("the batch has no rollouts: draw it with draw_batch")
    if batch.meeting:
        raise InputError(
            "the batch's rollouts end where two of them meet, and the weights of two pasts differ still: draw it with "
            "Sampling(meeting=False)"
        )
    policies = target[1] / drawn[1]
    moves = None
    if problem.moving:
        new, old = (problem.transition_at(point).detach() for point, _ in (target, drawn))
        moves = torch.where(old > 0, new / old, 0.0)
    chosen, moved = _ratios(batch.segments, policies, moves)
    segments = (chosen.prod(-1) * moved[..., :-1].prod(-1)).prod(-1)
    rollouts = []
    for paths, given in ((batch.after_action, True), (batch.after_state, False)):
        chosen, moved = _ratios(paths, policies, moves)
        if given:
            chosen = torch.cat([torch.ones_like(chosen[..., :1]), chosen[..., 1:]], -1)
        earlier = torch.cat([torch.ones_like(moved[..., :1]), moved[..., :-1]], -1)
        rollouts.append((chosen * earlier).cumprod(-1))
    return Weights(segments, *rollouts)


def _ratios(paths: Paths, policies: Tensor, moves: Tensor | None) -> tuple[Tensor, Tensor]:
    """The ratios of the actions and of the moves along paths, 1 where none was taken."""
    chosen = torch.where(paths.alive > 0, policies[paths.states, paths.actions], 1.0)
    if moves is None:
        return chosen, torch.ones_like(chosen)
    return chosen, torch.where(paths.moved > 0, moves[paths.states, paths.actions, paths.following], 1.0)
