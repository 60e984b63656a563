"""The stationary point of two levels: Newton's method for it, and what its curvature proves."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Status
from ..linear import LU
from .backtracking import backtrack
from .two_level import TwoLevel

_PATIENCE = 5  # steps in which the residual has to halve: from too far away Newton's method only wanders


def residual(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The gradient of the Lagrangian ``(*batch, n)``."""
    return problem.residual(s, *inputs).detach()


def hessian(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """Its Hessian ``(*batch, n, n)``."""
    return calculus.jacobian(lambda free: problem.residual(free, *inputs), s)


def newton(
    problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor, live: Tensor, most: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton's method from ``s`` for the ``live`` programs, at most ``most`` steps of each.

    Returns:
        the last point, and the steps taken ``(*batch)``.
    """
    r = residual(problem, s, inputs)
    polished, steps = torch.zeros_like(live), torch.zeros_like(most)
    mark = torch.full_like(wanted, torch.inf)
    for taken in range(int(most.amax()) if most.numel() else 0):
        norm = r.norm(dim=-1)
        if taken % _PATIENCE == 0:
            live = live & (norm < 0.5 * mark)
            mark = norm
        # One step more than the tolerance asks for: the parts of the residual may be of very different size.
        live = live & ~polished & norm.isfinite() & (steps < most)
        polished = norm <= wanted
        if not bool(live.any()):
            break
        direction = -LU.of(hessian(problem, s, inputs)).solve(r, transposed=False)
        s, r, found = backtrack(lambda free: residual(problem, free, inputs), s, r, direction, live)
        live = live & found
        steps = steps + (live & ~polished)
    return s, steps


def curvatures(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What the curvature of both levels, and of the follower's alone, says of a stationary point ``(*batch)``.

    At a strict minimum there are as many negative eigenvalues as multipliers, and none is zero.
    """
    sizes, parts = problem.sizes, problem.split(s)
    active, _ = problem.states(s, *inputs)

    def slope(w: Tensor) -> Tensor:
        return calculus.gradient(lambda free: problem.follower(free, parts.x, active, ~active, *inputs), w)

    lower = calculus.jacobian(slope, torch.cat([parts.y, parts.equal, parts.below], -1))
    own = _curvature(lower, sizes.equal + sizes.below)
    both = _curvature(hessian(problem, s, inputs), sizes.adjoint + sizes.leader_equal + sizes.leader_below)
    return torch.where(own == Status.CONVERGED, both, own), own


def _curvature(matrix: Tensor, negative: int) -> Tensor:
    finite = matrix.isfinite().all(-1).all(-1)
    values = torch.linalg.eigvalsh(torch.where(finite[..., None, None], matrix, 0.0))
    size = values.abs()
    zero = size <= size.shape[-1] * torch.finfo(size.dtype).eps * size.amax(-1, keepdim=True)
    status = torch.where((values < 0).sum(-1) == negative, int(Status.CONVERGED), int(Status.INDEFINITE))
    status = torch.where(zero.any(-1), int(Status.SINGULAR), status)
    return torch.where(finite, status, int(Status.NON_FINITE))
