"""Generalised minimal residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..certificate import Certificate
from ..errors import InputError
from .krylov import Krylov, Run


@dataclass(frozen=True)
class GMRES(Krylov):
    r"""Restarted generalised minimal residuals on :math:`(A + \text{damping}\, I)\, u = b` for any square ``A``.

    Each step minimises :math:`|b - A u|` over the Krylov space of the cycle, whose basis takes ``restart`` vectors of
    memory. Orthogonalisation is done twice, which keeps the basis orthogonal to rounding.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most products; ``None`` is ``10 n + 100``.
        damping: number added to the diagonal.
        preconditioner: a stand-in for ``A``, applied from the right: the residual stays that of the system.
        restart: steps of a cycle.

    Source: GMRES: A Generalized Minimal Residual Algorithm for Solving Nonsymmetric Linear Systems (Saad, Schultz,
    1986); Twice Is Enough for the Gram-Schmidt step (Giraud, Langou, Rozloznik, 2005).

    Example:
        >>> import torch
        >>> from bigrad.linear import GMRES, Operator
        >>> A = torch.tensor([[0.0, 2.0], [1.0, 3.0]])
        >>> u, certificate = GMRES().solve(Operator(lambda u: A @ u), torch.tensor([2.0, 4.0]))
        >>> [round(x, 4) for x in u.tolist()]
        [1.0, 1.0]
    """

    restart: int = 50

    improvement: ClassVar[float] = 0.99  # a cycle may gain little

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart < 1:
            raise InputError(f"GMRES: restart is {self.restart}; it must be >= 1")

    def _sweep(self, run: Run) -> None:
        r, live = run.r, run.live
        width = max(1, min(self.restart, r.shape[-1], run.budget))
        norm = r.norm(dim=-1)
        basis = r.new_zeros((*norm.shape, width + 1, r.shape[-1]))
        basis[..., 0, :] = r / torch.where(norm > 0, norm, 1.0).unsqueeze(-1)
        # ``turn`` holds the rotations so far, ``triangle`` the Hessenberg matrix they have made triangular.
        turn = torch.eye(width + 1, dtype=r.dtype, device=r.device).expand(*norm.shape, -1, -1).clone()
        triangle = turn[..., :width, :width].clone()
        right = r.new_zeros((*norm.shape, width))
        left, reach = norm, torch.zeros_like(norm)
        for step in range(width):
            if not bool(run.live.any()):
                break
            w = run.apply(run.preconditioned(basis[..., step, :]))
            before = w.norm(dim=-1)
            reach = torch.maximum(reach, before)
            known = basis[..., : step + 1, :]
            first = _coefficients(known, w)
            w = w - _combination(known, first)
            second = _coefficients(known, w)
            w = w - _combination(known, second)
            after = w.norm(dim=-1)
            exhausted = after <= 10 * run.eps * before
            after = torch.where(exhausted, 0.0, after)
            column = _coefficients(turn[..., : step + 1, : step + 1], first + second)
            pivot = column[..., step]
            length = torch.hypot(pivot, after)
            null = run.live & (length <= run.negligible * reach)
            run.suspect, run.live = run.suspect | null, run.live & ~null
            safe = torch.where(run.live, length, 1.0)
            c, s = torch.where(run.live, pivot / safe, 1.0), torch.where(run.live, after / safe, 0.0)
            moved = torch.where(run.live, c * left, 0.0)
            column = torch.cat([column[..., :step], length.unsqueeze(-1)], -1)
            kept = torch.where(run.live.unsqueeze(-1), column, triangle[..., : step + 1, step])
            triangle[..., : step + 1, step] = kept
            right[..., step] = moved
            row, new = turn[..., step, :].clone(), turn[..., step + 1, :].clone()
            c, s = c.unsqueeze(-1), s.unsqueeze(-1)
            turn[..., step, :], turn[..., step + 1, :] = c * row + s * new, c * new - s * row
            left = torch.where(run.live, -s.squeeze(-1) * left, left)
            basis[..., step + 1, :] = torch.where((run.live & ~exhausted).unsqueeze(-1), w / after.unsqueeze(-1), 0.0)
            run.steps = run.steps + run.live
            run.live = run.live & (left.abs() > run.wanted) & ~exhausted & (run.steps < run.budget)
        weights = torch.linalg.solve_triangular(triangle, right.unsqueeze(-1), upper=True).squeeze(-1)
        move = run.preconditioned(_combination(basis[..., :width, :], weights))
        run.u = torch.where(live.unsqueeze(-1), run.u + move, run.u)
        run.live = torch.zeros_like(live)
        if not run.history:
            run.history.append((triangle,))

    def _note_spectrum(self, run: Run, certificate: Certificate) -> None:
        """The triangular factor of the first cycle's Hessenberg matrix: its singular values lie among those of A."""
        if not run.history:
            return
        ((triangle,), *_) = run.history
        triangle = triangle.cpu()
        diagonals = [triangle.diagonal(k, -2, -1).movedim(-1, 0) for k in range(triangle.shape[-1])]
        certificate.triangle = tuple(diagonals)


def _coefficients(rows: Tensor, w: Tensor) -> Tensor:
    """The inner products of ``w`` ``(*batch, n)`` with each of ``rows`` ``(*batch, k, n)``."""
    return (rows @ w.unsqueeze(-1)).squeeze(-1)


def _combination(rows: Tensor, weights: Tensor) -> Tensor:
    """The sum of ``rows`` ``(*batch, k, n)`` with ``weights`` ``(*batch, k)``."""
    return (weights.unsqueeze(-2) @ rows).squeeze(-2)
