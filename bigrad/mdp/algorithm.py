"""What every algorithm for a bilevel MDP answers: the leader's number, its hyper-gradient, and a certificate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from .bilevel_mdp import BilevelMDP


@dataclass(frozen=True)
class Cost:
    """What an answer has cost.

    Attributes:
        samples: steps taken in the environment.
        reward_gradients: vector-Jacobian products through the reward (and the transition, where it depends on x).
        linear_solves: solves with an S x S (for PARL: SA x SA) matrix for the derivative.
        sweeps: Bellman sweeps or Newton steps of the lower level.
    """

    samples: int = 0
    reward_gradients: int = 0
    linear_solves: int = 0
    sweeps: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.samples + other.samples,
            self.reward_gradients + other.reward_gradients,
            self.linear_solves + other.linear_solves,
            self.sweeps + other.sweeps,
        )


class HyperGradient(NamedTuple):
    """An algorithm's answer at one point.

    Attributes:
        value: the leader's number, exact or estimated.
        gradient: its total derivative, of the shape of ``x``, exact or estimated.
        certificate: how well the lower level is solved, and the adjoint where there is one.
        cost: what this answer took.
        memory: what the algorithm wants back at its next point; ``None`` where it starts afresh.
    """

    value: Tensor
    gradient: Tensor
    certificate: Certificate
    cost: Cost
    memory: Any = None


class Algorithm(ABC):
    """Computes or estimates hyper-gradients; it has settings and no state, what it remembers is in its answers."""

    @abstractmethod
    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """The hyper-gradient at ``x``; ``memory`` is that of the answer before, ``generator`` draws the samples."""


def tracking_certificate(what: str, residual: Tensor, scale: Tensor, steps: int) -> Certificate:
    """The certificate of an equation that is followed and not solved: its residual in the largest norm.

    Its status is ``MAX_STEPS`` until the residual is small, as it is for a single loop on its way.
    """
    wanted = (1e-10 if residual.dtype == torch.float64 else 1e-5) * (1 + scale.detach().abs().amax())
    norm = residual.detach().abs().amax()
    status = torch.where(norm <= wanted, int(Status.CONVERGED), int(Status.MAX_STEPS))
    status = torch.where(norm.isfinite(), status, int(Status.NON_FINITE))
    return Certificate(what, status, norm, wanted, torch.full_like(status, steps))
