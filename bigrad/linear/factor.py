"""Factorisations of matrices that are written down."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .solver import Factor


@dataclass(frozen=True)
class Dense(Factor):
    """A factored matrix ``(*batch, n, n)`` that is kept beside its factor.

    Attributes:
        matrix: what was factored.
        damping: the ridge that ``matrix`` contains.
        exact: whether ``matrix`` is that of the operator at hand, so that it may stand in for the product.
    """

    matrix: Tensor
    damping: float
    exact: bool

    def solve(self, b: Tensor, *, transposed: bool) -> Tensor:
        """``J^-1 b`` or ``J^-T b`` for ``b`` ``(*more, *batch, n)``; one matrix takes its many vectors as columns."""
        return _by_columns(lambda columns: self._columns(columns, transposed), b, self.matrix.ndim - 2)

    def apply(self, u: Tensor, *, transposed: bool) -> Tensor:
        """``J u`` or ``J^T u`` for ``u`` ``(*more, *batch, n)``."""
        return multiply(self.matrix.mT if transposed else self.matrix, u)

    @cached_property
    def norm(self) -> Tensor:
        """Frobenius norms ``(*batch)``."""
        norm: Tensor = torch.linalg.matrix_norm(self.matrix)
        return norm

    @cached_property
    def extremes(self) -> Tensor:
        """Estimates ``(2, *batch)``: the largest singular value from below, the smallest from above."""
        size = self.matrix.shape[-1]
        index = torch.arange(size, dtype=self.matrix.dtype, device=self.matrix.device)
        start = _unit(torch.cos(1 + index.square()).expand(self.matrix.shape[:-1]))
        # One step of the power method each: more would cost as much as the factor does.
        v = _unit(self.apply(self.apply(start, transposed=False), transposed=True))
        w = _unit(self.solve(self.solve(start, transposed=True), transposed=False))
        largest = self.apply(v, transposed=False).norm(dim=-1)
        smallest = self.apply(w, transposed=False).norm(dim=-1)
        extremes = torch.stack([torch.maximum(largest, smallest), torch.minimum(largest, smallest)])
        return extremes.nan_to_num(1.0, 1.0).cpu()

    def ritz(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The extremes as a certificate of batch shape ``shape`` takes them."""
        extremes = self.extremes
        if extremes.shape[1:] != shape:
            extremes = torch.stack([part.expand(shape) for part in extremes])
        return extremes, torch.zeros_like(extremes)

    @property
    @abstractmethod
    def defective(self) -> Tensor:
        """Which of the matrices ``(*batch)`` have no such factor, or one that rounding alone has made invertible."""

    @abstractmethod
    def _columns(self, b: Tensor, transposed: bool) -> Tensor:
        """Solve for the columns of ``b`` ``(*batch, n, k)``."""


@dataclass(frozen=True)
class LU(Dense):
    """``P L U = J``."""

    packed: Tensor
    pivots: Tensor
    info: Tensor

    @classmethod
    def of(cls, matrix: Tensor, *, damping: float = 0.0, exact: bool = False) -> LU:
        """Factor ``matrix``."""
        return cls(matrix, damping, exact, *torch.linalg.lu_factor_ex(matrix))

    @property
    def defective(self) -> Tensor:
        """Where a pivot is zero to rounding next to the others."""
        pivot = self.packed.diagonal(dim1=-2, dim2=-1).abs()
        if not pivot.shape[-1]:
            return self.info > 0
        return (self.info > 0) | (pivot.amin(-1) <= torch.finfo(pivot.dtype).eps * pivot.amax(-1))

    def _columns(self, b: Tensor, transposed: bool) -> Tensor:
        solved: Tensor = torch.linalg.lu_solve(self.packed, self.pivots, b, adjoint=transposed)
        return solved


@dataclass(frozen=True)
class Cholesky(Dense):
    """``L L^T = J`` for symmetric positive definite ``J``."""

    lower: Tensor
    info: Tensor

    @classmethod
    def of(cls, matrix: Tensor, *, damping: float = 0.0, exact: bool = False) -> Cholesky:
        """Factor ``matrix``."""
        return cls(matrix, damping, exact, *torch.linalg.cholesky_ex(matrix))

    @property
    def defective(self) -> Tensor:
        """Where a pivot is negative, or zero to rounding next to the others."""
        pivot = self.lower.diagonal(dim1=-2, dim2=-1).square()
        size = pivot.shape[-1]
        if not size:
            return self.info > 0
        return (self.info > 0) | (pivot.amin(-1) <= size * torch.finfo(pivot.dtype).eps * pivot.amax(-1))

    def _columns(self, b: Tensor, transposed: bool) -> Tensor:
        # Two triangular solves: cholesky_solve takes several times as long for a few columns.
        half = torch.linalg.solve_triangular(self.lower, b, upper=False)
        solved: Tensor = torch.linalg.solve_triangular(self.lower.mT, half, upper=True)
        return solved


def multiply(matrix: Tensor, u: Tensor) -> Tensor:
    """``matrix @ u`` for ``u`` ``(*more, *batch, n)``; one matrix takes its many vectors as columns."""
    if matrix.ndim == 2 and u.ndim == 1:
        return matrix @ u
    return _by_columns(lambda columns: matrix @ columns, u, matrix.ndim - 2)


def _by_columns(function: Callable[[Tensor], Tensor], b: Tensor, batch_dims: int) -> Tensor:
    """Apply ``function`` of ``(*batch, n, k)`` to ``b`` ``(*more, *batch, n)``."""
    more = b.ndim - 1 - batch_dims
    if more == 0:
        return function(b.unsqueeze(-1)).squeeze(-1)
    columns = b.reshape(-1, *b.shape[more:]).movedim(0, -1)
    return function(columns).movedim(-1, 0).reshape(b.shape)


def _unit(v: Tensor) -> Tensor:
    norm = v.norm(dim=-1, keepdim=True)
    return v / torch.where(norm > 0, norm, 1.0)
