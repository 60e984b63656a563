"""What a linear solver is: it solves ``A u = b`` knowing only ``u -> A u``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..certificate import Certificate

MatVec = Callable[[Tensor], Tensor]


class Factor(Protocol):
    """A factorisation of matrices ``J`` ``(*batch, n, n)``."""

    def solve(self, b: Tensor, *, transposed: bool) -> Tensor:
        """``J^-1 b`` or ``J^-T b`` for ``b`` ``(*more, *batch, n)``."""


@dataclass
class Kept:
    """What one solve leaves for the next with the same matrix: its factorisation, once there is one."""

    factor: Factor | None = None


@dataclass(frozen=True)
class Operator:
    """A batch of square matrices ``A`` ``(*batch, n, n)``, given by their action.

    Attributes:
        product: ``u -> A u`` on ``(*batch, n)``.
        symmetric: whether ``A`` is symmetric.
        definite: whether ``A`` has to be positive definite, as the Hessian at a strict minimum is.
        dense: the matrix itself ``(*batch, n, n)`` where it is known.
        written: writes the matrix down, where that is quicker than one product per column.
        transposed: whether ``A`` is the transpose of the matrix whose factor is kept.
        kept: where a factor of that matrix is found or left, for the systems of higher derivatives.
    """

    product: MatVec
    symmetric: bool = False
    definite: bool = False
    dense: Tensor | None = None
    written: Callable[[], Tensor] | None = None
    transposed: bool = False
    kept: Kept = field(default_factory=Kept)

    def matrix(self, like: Tensor) -> Tensor:
        """The matrix, one product per column where it is not known; ``like`` is any vector ``(*batch, n)``."""
        if self.dense is not None:
            return self.dense
        if self.written is not None:
            return self.written()
        size = like.shape[-1]
        if size == 0:
            return like.new_zeros((*like.shape, 0))
        columns = torch.eye(size, dtype=like.dtype, device=like.device)
        return torch.stack([self.product(column.expand_as(like)) for column in columns], -2).mT


class LinearSolver(ABC):
    """Solves ``A u = b`` for each problem of a batch."""

    @abstractmethod
    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """Solve for ``u`` ``(*batch, n)``; never raises on a failed solve: the certificate tells.

        Args:
            operator: the matrices.
            b: right-hand sides ``(*batch, n)``.
            start: where an iteration starts ``(*batch, n)``; ``None`` is zero.
        """


def linear_tolerance(rtol: float | None, dtype: torch.dtype) -> float:
    """``rtol``, or the default of the dtype: 1e-12 in float64, 1e-6 below."""
    if rtol is not None:
        return rtol
    return 1e-12 if dtype == torch.float64 else 1e-6


def with_damping(product: MatVec, damping: float) -> MatVec:
    """``u -> A u + damping u``."""
    return (lambda u: product(u) + damping * u) if damping else product


def scaled(b: Tensor) -> tuple[Tensor, Tensor]:
    """``b`` with a largest entry of one, whose square neither underflows nor overflows, and what it was divided by."""
    if b.shape[-1] == 0:
        return b, b.new_ones(b.shape[:-1])
    unit = torch.linalg.vector_norm(b, torch.inf, -1)
    unit = torch.where((unit > 0) & (unit < torch.inf), unit, 1.0)
    return b / unit.unsqueeze(-1), unit
