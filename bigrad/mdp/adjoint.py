"""The exact response of a soft-optimal policy: one adjoint solve and one product through the reward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..certificate import Certificate
from ..linear import Direct, Operator
from .policy_value import evaluation_matrix


class AdjointSystem(NamedTuple):
    r"""The system :math:`(I - \gamma P^\pi)^\top w = U^\top D g` with :math:`U = E - \gamma P`, :math:`D = diag(\pi)`.

    Attributes:
        matrix: its transposed matrix, ``I - discount * P^pi``, ``(S, S)``.
        right: its right-hand side ``(S,)``.
    """

    matrix: Tensor
    right: Tensor


def adjoint_system(policy: Tensor, transition: Tensor, discount: float, slope: Tensor) -> AdjointSystem:
    """The adjoint of a policy ``(S, A)`` for a slope ``g`` ``(S, A)`` of the leader in it."""
    weighted = policy * slope
    matrix = evaluation_matrix(policy, transition, discount)
    return AdjointSystem(matrix, weighted.sum(-1) - discount * torch.einsum("sa,sat->t", weighted, transition))


def response_cotangent(
    policy: Tensor, transition: Tensor, discount: float, temperature: float, slope: Tensor
) -> tuple[Tensor, Certificate]:
    r""":math:`c_{sa} = \pi_{sa} (g_{sa} - w_s) / \tau`: what the leader gains by a little more reward at each place.

    A part of the slope that is one for all actions of a state moves nothing; it is taken out first, as it would only
    cost digits.
    """
    slope = slope - (policy * slope).sum(-1, keepdim=True)
    system = adjoint_system(policy, transition, discount, slope)
    adjoint, certificate = Direct().solve(Operator(lambda u: u @ system.matrix, dense=system.matrix.T), system.right)
    certificate.what = "adjoint"
    certificate.enforce("raise")
    return policy * (slope - adjoint[:, None]) / temperature, certificate
