"""M-SoBiRL: one loop, in which value, adjoint and leader take their steps together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .adjoint import adjoint_system
from .algorithm import Algorithm, Cost, HyperGradient, tracking_certificate
from .bilevel_mdp import BilevelMDP


class Tracked(NamedTuple):
    """What the single loop carries on: soft values ``(S,)`` and the adjoint ``(S,)``."""

    value: Tensor
    adjoint: Tensor


@dataclass(frozen=True)
class MSoBiRL(Algorithm):
    r"""Sweeps of soft value iteration, one gradient step on :math:`\tfrac12 \|A w - b\|^2`, and the hyper-gradient.

    With :math:`A = (I - \gamma P^\pi)^\top` and :math:`b = U^\top diag(\pi) \nabla_\pi f` at the policy of the moment,

    .. math:: w \leftarrow w - \xi A^\top (A w - b), \qquad
              h = \nabla_x f + \tau^{-1} R^\top [\pi \odot \nabla_\pi f - \pi' \odot E w],

    where :math:`\pi'` is soft-greedy in the value of the moment. It solves nothing; its answers become exact as the
    leader's steps become small.

    Args:
        sweeps: of soft value iteration, at each point.
        adjoint_step: :math:`\xi`; ``None`` is :math:`1 / (\|A\|_1 \|A\|_\infty)`, which always contracts.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).
    """

    sweeps: int = 10
    adjoint_step: float | None = None

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"sweeps is {self.sweeps}; wanted at least 1")
        if self.adjoint_step is not None and not self.adjoint_step > 0:
            raise InputError(f"adjoint_step is {self.adjoint_step}; wanted a positive number, or None")

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """The tracked hyper-gradient; ``memory`` is :class:`Tracked`, zeros at the first point."""
        x, scale = x.detach(), problem.temperature
        with torch.no_grad():
            reward, transition = problem.reward(x), problem.transition_at(x)
            if memory is None:
                memory = Tracked(reward.new_zeros(len(reward)), reward.new_zeros(len(reward)))
            value = memory.value
            for _ in range(self.sweeps):
                q_value = reward + problem.discount * (transition @ value)
                before, value = value, scale * torch.logsumexp(q_value / scale, -1)
            policy = torch.softmax(q_value / scale, -1)
        number, direct, slope = problem.partials(x, policy)
        with torch.no_grad():
            matrix, right = adjoint_system(policy, transition, problem.discount, slope)
            step = self.adjoint_step
            if step is None:
                step = float(1 / (matrix.abs().sum(0).amax() * matrix.abs().sum(1).amax()))
            adjoint = memory.adjoint - step * (matrix @ (matrix.T @ memory.adjoint - right))
            greedy = torch.softmax((reward + problem.discount * (transition @ value)) / scale, -1)
            cotangent = (policy * slope - greedy * adjoint[:, None]) / scale
        gradient = direct + problem.pull_back(x, value, cotangent)
        certificate = tracking_certificate("soft value iteration", value - before, value, self.sweeps)
        certificate.adjoint = tracking_certificate("adjoint", matrix.T @ adjoint - right, right, 1)
        return HyperGradient(number, gradient, certificate, Cost(0, 1, 0, self.sweeps), Tracked(value, adjoint))
