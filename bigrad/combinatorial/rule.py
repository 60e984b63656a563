"""What a backward rule is: it turns solved perturbed costs into the derivative of what they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import calculus
from .noise import Noise
from .oracle import Oracle
from .oracle_certificate import OracleCertificate


@dataclass(frozen=True)
class Sample:
    """One forward pass, in plain tensors.

    Attributes:
        oracle: the solver.
        cost: ``(*batch, *event)``.
        noise: how the cost was perturbed, ``None`` where it was not.
        drawn: the random numbers ``(K, *batch, *event)``, ``None`` without noise.
        points: the solutions ``(K, *batch, *event)``; ``K`` is 1 without noise.
        certificate: where solves are counted.
        target: the solution wanted ``(*batch, *event)``, ``None`` where the rule asks for none.
    """

    oracle: Oracle
    cost: Tensor
    noise: Noise | None
    drawn: Tensor | None
    points: Tensor
    certificate: OracleCertificate
    target: Tensor | None = None

    @property
    def sign(self) -> float:
        """1 where the oracle maximises, -1 where it minimises: the direction in which a cost attracts solutions."""
        return 1.0 if self.oracle.maximise else -1.0

    @property
    def perturbed(self) -> Tensor:
        """The costs ``(K, *batch, *event)`` that were solved."""
        return perturb(self.noise, self.cost, self.drawn, self.sign)

    @property
    def slope(self) -> Tensor | float:
        """The derivative of the perturbed costs in the cost, entry by entry."""
        return 1.0 if self.noise is None or self.drawn is None else self.noise.slope(self.drawn)

    def inner(self, one: Tensor, other: Tensor) -> Tensor:
        """The inner products of each problem."""
        return (one * other).unsqueeze(-1).flatten(-1 - self.oracle.event_dims).sum(-1)

    def spread(self, numbers: Tensor) -> Tensor:
        """One number a problem, shaped to multiply costs."""
        return numbers.reshape(numbers.shape + (1,) * self.oracle.event_dims)

    def solve(self, costs: Tensor) -> Tensor:
        """The solutions of costs ``(..., *batch, *event)``, projected onto the oracle's domain, in one call."""
        return solve_projected(self.oracle, costs, self.certificate)


class Rule(ABC):
    """What comes out of the solutions, and its derivative."""

    @property
    def remedy(self) -> str:
        """What to do about gradients of zero."""
        return "use another estimator"

    def output(self, sample: Sample) -> Tensor:
        """What the user sees: the mean solution ``(*batch, *event)``."""
        return sample.points.mean(0)

    @abstractmethod
    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The vector-Jacobian product ``(*batch, *event)`` for a cotangent of the output."""


def perturb(noise: Noise | None, cost: Tensor, drawn: Tensor | None, sign: float) -> Tensor:
    """The costs ``(K, *batch, *event)``; the cost itself as the only one where there is no noise."""
    return cost.unsqueeze(0) if noise is None or drawn is None else noise.perturb(cost, drawn, sign)


def solve_projected(oracle: Oracle, costs: Tensor, certificate: OracleCertificate) -> Tensor:
    """The solutions of costs ``(..., *event)`` that an estimator has made, and the count of it."""
    event = costs.shape[costs.ndim - oracle.event_dims :]
    batch = costs.shape[: costs.ndim - oracle.event_dims]
    inside = oracle.project(costs)
    outside = 0 if inside is costs else int((inside != costs).sum())
    certificate.count(batch.numel(), costs.numel(), outside)
    if batch.numel() == 0:
        return torch.zeros_like(costs)
    oracle.check_finite(inside)
    with calculus.precise(costs.device):
        return oracle.solve(inside.reshape(batch.numel(), *event)).reshape(costs.shape)
