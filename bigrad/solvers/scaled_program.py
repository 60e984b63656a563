"""A batch of quadratic programs in units that suit floating point, and the products that a solution needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def times(matrix: Tensor, v: Tensor) -> Tensor:
    """``matrix @ v`` for ``(B, r, c)`` or one shared matrix ``(1, r, c)``, and ``(*more, B, c)``."""
    if matrix.shape[0] == 1:
        return v @ matrix[0].mT
    if v.ndim == 2:
        return torch.bmm(matrix, v.unsqueeze(-1)).squeeze(-1)
    return torch.bmm(matrix, v.movedim(0, -1)).movedim(-1, 0)


def triangular(factor: Tensor, v: Tensor, *, transposed: bool = False) -> Tensor:
    """``L^-1 v`` or ``L^-T v`` for lower triangular ``(B, n, n)`` or ``(1, n, n)``, and ``(*more, B, n)``."""
    matrix = factor.mT if transposed else factor
    if factor.shape[0] == 1:
        columns = v.reshape(v.shape[:-1].numel(), v.shape[-1]).mT
        solved: Tensor = torch.linalg.solve_triangular(matrix[0], columns, upper=transposed)
        return solved.mT.reshape(v.shape)
    columns = v.unsqueeze(-1) if v.ndim == 2 else v.movedim(0, -1)
    solved = torch.linalg.solve_triangular(matrix, columns, upper=transposed)
    return solved.squeeze(-1) if v.ndim == 2 else solved.movedim(-1, 0)


def largest(v: Tensor) -> Tensor:
    """The largest absolute value of each row, ``(*batch, 1)``; zero for a row without entries."""
    return v.abs().amax(-1, keepdim=True) if v.shape[-1] else v.new_zeros((*v.shape[:-1], 1))


@dataclass(frozen=True)
class Program:
    """``min 1/2 y'Qy + q'y`` where the first constraints are ``C y = d`` and the others ``C y <= d``.

    Attributes:
        Q: symmetric ``(B, n, n)``, or ``(1, n, n)`` where all problems share both matrices.
        q: ``(B, n)``.
        C: ``(B, k, n)`` or ``(1, k, n)``.
        d: ``(B, k)``.
        equalities: how many of the constraints are equations.
    """

    Q: Tensor
    q: Tensor
    C: Tensor
    d: Tensor
    equalities: int

    def take(self, index: Tensor) -> Program:
        """Some of the problems."""
        if self.Q.shape[0] == 1:
            return replace(self, q=self.q[index], d=self.d[index])
        return Program(self.Q[index], self.q[index], self.C[index], self.d[index], self.equalities)

    def gradient(self, y: Tensor, mu: Tensor) -> Tensor:
        """``Q y + q + C' mu`` ``(B, n)``."""
        return times(self.Q, y) + self.q + times(self.C.mT, mu)

    def hessian(self, weights: Tensor, ridge: float) -> Tensor:
        """``Q + C' diag(weights) C + ridge I`` ``(B, n, n)`` for weights ``(B, k)``."""
        size = weights.shape[0]
        heavy = (weights.unsqueeze(-1) * self.C).expand(size, -1, -1)
        full = torch.baddbmm(self.Q.expand(size, -1, -1), self.C.mT.expand(size, -1, -1), heavy)
        full.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return full

    def without(self, mask: Tensor) -> Program:
        """The same, with ``min |y|^2 / 2`` without constraints in place of the problems of ``mask`` ``(B,)``."""
        if not bool(mask.any()):
            return self
        identity = torch.eye(self.Q.shape[-1], dtype=self.Q.dtype, device=self.Q.device)
        wide = mask[:, None, None]
        return Program(
            torch.where(wide, identity, self.Q),
            torch.where(mask[:, None], 0.0, self.q),
            torch.where(wide, 0.0, self.C),
            torch.where(mask[:, None], 0.0, self.d),
            self.equalities,
        )


@dataclass(frozen=True)
class Scaling:
    """Units in which a program's numbers are near one: ``y = y_unit y'``, ``mu = row_unit mu' / cost``.

    All are powers of two, which lose no digit.

    Attributes:
        y_unit: ``(B, n)`` or ``(1, n)``.
        row_unit: ``(B, k)`` or ``(1, k)``.
        cost: ``(B, 1)`` or ``(1, 1)``.
    """

    y_unit: Tensor
    row_unit: Tensor
    cost: Tensor


def equilibrate(program: Program, sweeps: int = 3) -> tuple[Program, Scaling]:
    """The same programs with rows and columns of the KKT matrix near unit norm, and the units.

    Source: A scaling algorithm to equilibrate both rows and columns norms in matrices (Ruiz, 2001).
    """
    curvature = program.Q.diagonal(dim1=-2, dim2=-1).abs()
    cost = 1 / _or_one(curvature.amax(-1, keepdim=True))
    curvature = curvature * cost
    squares = program.C.square()
    columns = torch.ones_like(curvature)  # squares of the units, as are the rows
    rows = squares.new_ones(squares.shape[:-1])
    for _ in range(sweeps):
        column = (curvature * columns).square() + columns * _sums(squares.mT, rows)
        rows = rows / _or_one(rows * _sums(squares, columns)).sqrt()
        columns = columns / _or_one(column).sqrt()
    rows = 1 / _or_one(_sums(squares, columns))
    cost = cost / _or_one((curvature * columns).amax(-1, keepdim=True))
    y_unit, row_unit, cost = _exact(columns.sqrt()), _exact(rows.sqrt()), _exact(cost)
    scaled = Program(
        (program.Q * (cost * y_unit).unsqueeze(-1)).mul_(y_unit.unsqueeze(-2)),
        program.q * cost * y_unit,
        (program.C * row_unit.unsqueeze(-1)).mul_(y_unit.unsqueeze(-2)),
        program.d * row_unit,
        program.equalities,
    )
    return scaled, Scaling(y_unit, row_unit, cost)


def _sums(matrix: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(matrix, v.unsqueeze(-1)).squeeze(-1)


def _or_one(number: Tensor) -> Tensor:
    return torch.where(number > 0, number, 1.0)


def _exact(number: Tensor) -> Tensor:
    return torch.exp2(torch.round(torch.log2(number)))
