"""Whether a quadratic program has a solution at all."""

from __future__ import annotations

import torch
from torch import Tensor

from ..certificate import Status
from .active_set import Curvature, negligible
from .scaled_program import Program, largest, times, triangular

_PENALTIES = (1.0, 1e3, 1e6)


def penalty_of(program: Program, alone: Curvature) -> tuple[Tensor, Tensor]:
    """The weight ``rho`` with which ``Q + rho A'A`` has no negative curvature, and whether the problem is convex.

    Args:
        program: in equilibrated units.
        alone: the curvature of ``Q``.

    Returns:
        weights ``(B, 1)``, zero where ``Q`` is positive definite, and bool ``(B,)``.
    """
    Q, A = program.Q, program.C[:, : program.equalities]
    convex = alone.pivot > torch.finfo(Q.dtype).eps ** 0.5
    weight = torch.zeros_like(alone.pivot)
    if not bool(convex.all()):
        gram = A.mT @ A
        ridge = negligible(Q.dtype) * torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
        for penalty in _PENALTIES:
            sound = torch.linalg.cholesky_ex(Q + penalty * gram + ridge)[1] == 0
            weight = torch.where(sound & ~convex, penalty, weight)
            convex = convex | sound
        if not bool(convex.all()):
            across = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device) - torch.linalg.pinv(A) @ A
            least = torch.linalg.eigvalsh(across @ Q @ across).amin(-1)
            late = ~convex & (least >= -negligible(Q.dtype))
            weight, convex = torch.where(late, _PENALTIES[-1], weight), convex | late
    size = program.q.shape[0]
    return weight.expand(size).unsqueeze(-1), convex.expand(size)


def verdict(program: Program) -> Tensor:
    """``INFEASIBLE``, ``UNBOUNDED`` or ``CONVERGED`` for "neither is proved", int64 ``(B,)``.

    Infeasible is a problem with a violation ``r`` that cannot be made smaller: ``A'r + G'r = 0`` and ``b'r + h'r < 0``,
    which no point satisfies (Farkas). Unbounded is one with a direction of descent that no constraint and no curvature
    ends.
    """
    tiny = torch.finfo(program.q.dtype).eps ** 0.45
    extent = largest(program.d)
    y, violation = _least_violation(program.C, program.d / torch.where(extent > 0, extent, 1.0), program.equalities)
    size = violation.norm(dim=-1, keepdim=True)
    pull = largest(times(program.C.mT, violation / torch.where(size > 0, size, 1.0)))
    infeasible = ((size > tiny * (1 + largest(y))) & (pull <= tiny)).squeeze(-1)
    feasible = (size <= tiny * (1 + largest(y))).squeeze(-1)
    # A direction along which Q, A and what G permits do not change, and the objective falls at unit rate.
    extent = largest(program.q)
    slope = (program.q / torch.where(extent > 0, extent, 1.0)).unsqueeze(-2)
    batch, p = slope.shape[0], program.equalities
    wide = [part.expand(batch, -1, -1) for part in (program.Q, program.C[:, :p], program.C[:, p:])]
    rows = torch.cat([slope, *wide], -2)
    level = torch.zeros_like(rows[..., 0])
    level[:, 0] = -1.0
    direction, violation = _least_violation(rows, level, 1 + program.Q.shape[-1] + p)
    falls = (violation.norm(dim=-1, keepdim=True) <= tiny * (1 + largest(direction))).squeeze(-1)
    status = torch.where(feasible & falls, int(Status.UNBOUNDED), int(Status.CONVERGED))
    return torch.where(infeasible, int(Status.INFEASIBLE), status)


def _least_violation(C: Tensor, d: Tensor, equalities: int, steps: int = 40) -> tuple[Tensor, Tensor]:
    """The ``y`` that violates ``C y = d`` and ``C y <= d`` least in the sum of squares, and the violation ``(B, k)``.

    By Newton's method, whose steps are halved until they are best.
    """

    def violation(level: Tensor) -> Tensor:
        return torch.cat([level[..., :equalities], level[..., equalities:].clamp_min(0)], -1)

    lengths = torch.exp2(-torch.arange(12, dtype=d.dtype, device=d.device))[:, None, None]
    y = d.new_zeros((d.shape[0], C.shape[-1]))
    level = -d
    frame = Program(C.new_zeros((1, C.shape[-1], C.shape[-1])), y, C, d, equalities)
    for _ in range(steps):
        current = violation(level)
        weights = torch.cat([torch.ones_like(level[:, :equalities]), (level[:, equalities:] > 0).to(d.dtype)], -1)
        factor = torch.linalg.cholesky_ex(frame.hessian(weights, negligible(d.dtype)))[0]
        pull = times(C.mT, current)
        move = -triangular(factor, triangular(factor, pull), transposed=True)
        along = times(C, move)
        best = violation(level + lengths * along).square().sum(-1).argmin(0)
        y = y + lengths[best, :, 0] * move
        level = times(C, y) - d
    return y, violation(level)
