"""The adjoint system of a policy that a soft Bellman equation has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
