"""Factorisation of the materialised operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..errors import InputError
from .solver import LinearSolver, Operator, linear_tolerance


@dataclass(frozen=True)
class Direct(LinearSolver):
    """LU factorisation with one step of iterative refinement; for small or explicitly known matrices.

    Args:
        damping: ridge added to the diagonal.

    Example:
        >>> import torch
        >>> from bigrad.linear import Direct, Operator
        >>> A = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        >>> Direct().solve(Operator(lambda u: A @ u), torch.tensor([2.0, 3.0]))[0]
        tensor([3., 1.])
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        if not self.damping >= 0:
            raise InputError(f"Direct: damping is {self.damping}; it must be >= 0")

    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """Solve for ``u`` by one factorisation of ``(*batch, n, n)``."""
        matrix = operator.matrix(b)
        size = b.shape[-1]
        if self.damping:
            matrix = matrix + self.damping * torch.eye(size, dtype=b.dtype, device=b.device)
        factor, pivots, info = torch.linalg.lu_factor_ex(matrix)

        def apply(x: Tensor) -> Tensor:
            product: Tensor = matrix @ x.unsqueeze(-1)
            return product.squeeze(-1)

        def invert(x: Tensor) -> Tensor:
            # One matrix with many right-hand sides takes them as its columns.
            columns = x.reshape(-1, size).mT if matrix.ndim == 2 else x.unsqueeze(-1)
            solved: Tensor = torch.linalg.lu_solve(factor, pivots, columns)
            return solved.mT.reshape(x.shape)

        u = invert(b)
        u = u + invert(b - apply(u))
        residual, b_norm = (b - apply(u)).norm(dim=-1), b.norm(dim=-1)
        eps = torch.finfo(b.dtype).eps
        wanted = linear_tolerance(None, b.dtype) * b_norm
        lost = 100 * eps * torch.linalg.matrix_norm(matrix) * u.norm(dim=-1)  # what rounding does to A u
        floor = torch.where(lost < b_norm, int(Status.ROUNDING_FLOOR), int(Status.SINGULAR))
        # Rounding alone makes the last pivot of a singular matrix non-zero: compare the pivots with each other.
        pivot = factor.diagonal(dim1=-2, dim2=-1).abs()
        rank_lost = (info > 0) | (pivot.amin(-1) <= eps * pivot.amax(-1)) if size else info > 0
        status = torch.where(residual <= size * (lost + 100 * eps * b_norm), floor, int(Status.STALLED))
        status = torch.where(residual <= wanted, int(Status.CONVERGED), status)
        status = torch.where(rank_lost, int(Status.SINGULAR), status)
        status = torch.where(residual.isfinite() | rank_lost, status, int(Status.NON_FINITE))
        return u, Certificate("linear solve", status, residual, wanted, torch.ones_like(status))
