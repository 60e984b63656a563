"""A cone program at its solution: the last digits of the solution, and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from .cones import Cones

RANK = 1e-9  # singular values below this, of a balanced matrix, come from the solver's errors

ROUNDING = 1e-14  # a residual that cannot be made smaller


@dataclass(frozen=True)
class Solution:
    """A point and what is known there.

    Attributes:
        x: ``(n,)``.
        s: slacks ``(m,)``, in the cones.
        z: multipliers ``(m,)``, in the dual cones.
        residual: the largest residual of the optimality conditions, each relative to one plus its largest term.
        slope: derivative of the projection at ``s - z``, ``(m, m)``.
        margin: distance of ``s - z`` from the nearest kink of the projection.
    """

    x: Tensor
    s: Tensor
    z: Tensor
    residual: float
    slope: Tensor
    margin: float


@dataclass(frozen=True)
class Adjoint:
    """The solution of the adjoint system and what it leaves open.

    Attributes:
        u: ``(n,)``, against the stationarity of ``x``.
        w: ``(m,)``, against the constraints.
        residual: norm of what is left of the system.
        free: ``(k, n + m)``, directions that the system does not determine.
    """

    u: Tensor
    w: Tensor
    residual: Tensor
    free: Tensor


@dataclass(frozen=True)
class ConeProgram:
    r""":math:`\min x^\top P x / 2 + q^\top x` with :math:`A x + s = b`, :math:`s \in K`.

    With :math:`v = s - z` and the projection :math:`\Pi` onto :math:`K`, a solution is a root of
    :math:`(P x + A^\top (\Pi(v) - v) + q,\; A x + \Pi(v) - b)` in :math:`(x, v)`.

    Args:
        cones: their product is :math:`K`.
        P: ``(n, n)``, symmetric.
        A: ``(m, n)``.
        q: ``(n,)``.
        b: ``(m,)``.

    Source: Differentiating Through a Cone Program, Agrawal et al., 2019, where ``P = 0`` and the root is another.
    """

    cones: Cones
    P: Tensor
    A: Tensor
    q: Tensor
    b: Tensor

    def polished(self, x: Tensor, s: Tensor, z: Tensor, steps: int = 5) -> Solution:
        """Newton's method from an interior point method's answer, as long as it makes the residual smaller."""
        point, slope, margin = self.cones.project(v := s - z, s)
        best = Solution(x, s, z, self._residual(x, s, z), slope, float(margin))
        for _ in range(steps):
            found = Solution(x, point, point - v, self._residual(x, point, point - v), slope, float(margin))
            best = found if found.residual < best.residual else best
            if best.residual <= ROUNDING or not isfinite(found.residual):
                break
            move, turn = self._newton(found, v)
            x, v, near = x + move, v + turn, point
            point, slope, margin = self.cones.project(v, near)
        return best

    def _residual(self, x: Tensor, s: Tensor, z: Tensor) -> float:
        curved, pulled, mapped = self.P @ x, self.A.mT @ z, self.A @ x
        half = x.dot(curved) / 2
        pairs = [
            (curved + pulled + self.q, [curved, pulled, self.q]),
            (mapped + s - self.b, [mapped, s, self.b]),
            (s.dot(z)[None], [(half + self.q.dot(x))[None], (half + self.b.dot(z))[None]]),
        ]
        sizes = [left.norm() / (1 + torch.stack([term.norm() for term in terms]).amax()) for left, terms in pairs]
        return float(torch.stack(sizes).amax())

    def _newton(self, at: Solution, v: Tensor) -> tuple[Tensor, Tensor]:
        """The step in ``x`` and ``v``."""
        size = len(at.x)
        matrix, bound = self._linearised(at.slope)
        first = self.P @ at.x + self.A.mT @ at.z + self.q
        second = self.A @ at.x + at.s - self.b
        solve, _ = _inverse(matrix.mT)
        found = solve(-torch.cat([first, second[bound]]))
        move = found[:size]
        turn = -second - self.A @ move  # where the projection is the identity
        turn[bound] = found[size:]
        return move, turn

    def adjoint(self, at: Solution, cotangent: Tensor) -> Adjoint:
        """Solve the transposed linearisation for a cotangent of ``x``, ``(n,)``."""
        size = len(cotangent)
        matrix, bound = self._linearised(at.slope)
        target = torch.cat([cotangent, matrix.new_zeros(len(matrix) - size)])
        solve, free = _inverse(matrix)
        found = solve(target)
        found = found + solve(target - matrix @ found)
        full = matrix.new_zeros(1 + len(free), size + len(bound))
        full[:, torch.cat([torch.ones(size, dtype=torch.bool), bound])] = torch.cat([found[None], free])
        residual = (matrix @ found - target).norm()
        return Adjoint(full[0, :size], full[0, size:], residual, full[1:])

    def _linearised(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """The transposed Jacobian of the root, and which rows of ``A`` are in it.

        The others have the identity for a slope: they are inactive, and what they have in the adjoint vanishes.
        """
        bound = slope.diagonal() != 1
        A, slope = self.A[bound], slope[bound][:, bound]
        return torch.cat([torch.cat([self.P, A.mT], 1), torch.cat([slope @ A - A, slope], 1)]), bound


def _inverse(matrix: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A map from right-hand sides to solutions, and a basis ``(k, n)`` of the directions that are not determined."""
    rows, columns = _balance(matrix)
    balanced = rows[:, None] * matrix * columns
    inverse, failed = torch.linalg.inv_ex(balanced)
    condition = torch.linalg.matrix_norm(balanced, 1) * torch.linalg.matrix_norm(inverse, 1)
    free = matrix.new_zeros(0, len(matrix))
    if balanced.isfinite().all() and (failed or not condition * RANK < 1):
        left, values, right = torch.linalg.svd(balanced)
        kept = values > RANK * values[0]
        inverse = (right[kept].mT / values[kept]) @ left[:, kept].mT
        free = right[~kept] * columns
        free = free / free.norm(dim=-1, keepdim=True)

    def solve(right_hand_side: Tensor) -> Tensor:
        found: Tensor = columns * (inverse @ (rows * right_hand_side))
        return found

    return solve, free


def _balance(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Factors for rows and columns that bring the largest entry of each near one (Ruiz's iteration)."""
    rows, columns = matrix.new_ones(len(matrix)), matrix.new_ones(len(matrix))
    for _ in range(4):
        size = (rows[:, None] * matrix * columns).abs()
        across, down = size.amax(1), size.amax(0)
        rows = rows / torch.where(across > 0, across, 1).sqrt()
        columns = columns / torch.where(down > 0, down, 1).sqrt()
    return rows, columns
