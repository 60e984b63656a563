"""Conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..errors import InputError
from .solver import LinearSolver, Operator, linear_tolerance


@dataclass(frozen=True)
class CG(LinearSolver):
    r"""Conjugate gradients on :math:`(A + \text{damping}\, I)\, u = b` for symmetric positive definite ``A``.

    Each problem of a batch has its own step lengths and its own stopping test; converged ones are frozen. The
    residual that is reported is recomputed from ``b - A u`` and not the recursive one. Non-positive curvature
    ends a problem as ``INDEFINITE``, and a residual as small as rounding lets it be as ``ROUNDING_FLOOR``.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most iterations; ``None`` is ``10 n + 100``.
        damping: ridge added to the diagonal.

    Source: Methods of Conjugate Gradients for Solving Linear Systems (Hestenes, Stiefel, 1952).

    Example:
        >>> import torch
        >>> from bigrad.linear import CG, Operator
        >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
        >>> u, certificate = CG().solve(Operator(lambda u: u @ A, symmetric=True), torch.tensor([1.0, 2.0]))
        >>> u
        tensor([0.0909, 0.6364])
    """

    rtol: float | None = None
    max_steps: int | None = None
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.rtol is not None and not self.rtol >= 0:
            raise InputError(f"CG: rtol is {self.rtol}; it must be >= 0")
        if self.max_steps is not None and self.max_steps < 0:
            raise InputError(f"CG: max_steps is {self.max_steps}; it must be >= 0")
        if not self.damping >= 0:
            raise InputError(f"CG: damping is {self.damping}; it must be >= 0")

    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """Solve for ``u``, starting from zero."""
        product = (lambda u: operator.product(u) + self.damping * u) if self.damping else operator.product
        eps = torch.finfo(b.dtype).eps
        size = b.shape[-1]
        budget = 10 * size + 100 if self.max_steps is None else self.max_steps
        unit = b.abs().amax(-1)
        unit = torch.where((unit > 0) & unit.isfinite(), unit, 1.0)
        b = b / unit.unsqueeze(-1)  # squares neither underflow nor overflow
        b_norm = b.norm(dim=-1)
        wanted = linear_tolerance(self.rtol, b.dtype) * b_norm

        u, r = torch.zeros_like(b), b
        p, rr = r, (r * r).sum(-1)
        scale = torch.zeros_like(b_norm)  # lower bound of the norm of A
        status = torch.full(b_norm.shape, int(Status.MAX_STEPS), dtype=torch.int64, device=b.device)
        status = torch.where(rr.isfinite(), status, int(Status.NON_FINITE))
        steps = torch.zeros_like(status)
        live = (rr.sqrt() > wanted) & rr.isfinite() & (steps < budget)
        lanczos: list[tuple[Tensor, Tensor, Tensor]] = []
        restarted_at = torch.full_like(b_norm, torch.inf)

        while True:
            if not bool(live.any()):
                # The recursive residual claims success: measure the true one, and go on from it where it disagrees.
                r = b - product(u)
                rr = (r * r).sum(-1)
                norm = rr.sqrt()
                open_ = (status == int(Status.MAX_STEPS)) & (norm > wanted)
                improves = norm < 0.5 * restarted_at
                lost = 100 * eps * scale * u.norm(dim=-1)  # what rounding does to A u
                floor = torch.where(lost < b_norm, int(Status.ROUNDING_FLOOR), int(Status.SINGULAR))
                ended = torch.where(improves, int(Status.MAX_STEPS), int(Status.STALLED))
                ended = torch.where(norm <= lost + 100 * eps * b_norm, floor, ended)
                status = torch.where(open_ & ~(improves & (steps < budget)), ended, status)
                status = torch.where(
                    (status == int(Status.MAX_STEPS)) & (norm <= wanted), int(Status.CONVERGED), status
                )
                live = open_ & improves & (steps < budget)
                restarted_at = torch.where(live, norm, restarted_at)
                p = r
                if not bool(live.any()):
                    break
                alpha, beta, taken = lanczos[-1]
                lanczos[-1] = alpha, torch.where(live, 0.0, beta), taken  # a restart starts a new Lanczos block
            Ap = product(p)
            pp, curvature = (p * p).sum(-1), (p * Ap).sum(-1)
            Ap_norm = Ap.norm(dim=-1)
            scale = torch.maximum(scale, torch.where(live, Ap_norm / pp.sqrt(), 0.0))
            broken = live & ~curvature.isfinite()
            noise = 10 * eps * scale * pp
            flat = live & ~broken & (curvature <= noise)
            # A positive semidefinite A has |A p|^2 <= |A| <p, A p>: no curvature, then, and no product either.
            singular = flat & (curvature >= -noise) & (Ap_norm.square() <= 10 * scale * noise)
            status = torch.where(broken, int(Status.NON_FINITE), status)
            status = torch.where(flat, int(Status.INDEFINITE), status)
            status = torch.where(singular, int(Status.SINGULAR), status)
            live = live & ~broken & ~flat
            alpha = torch.where(live, rr / curvature, 0.0)
            u = u + alpha.unsqueeze(-1) * p
            r = torch.where(live.unsqueeze(-1), r - alpha.unsqueeze(-1) * Ap, r)
            rr_next = (r * r).sum(-1)
            beta = torch.where(live, rr_next / rr, 0.0)
            lanczos.append((alpha, beta, live))
            p = torch.where(live.unsqueeze(-1), r + beta.unsqueeze(-1) * p, p)
            rr = torch.where(live, rr_next, rr)
            steps = steps + live
            live = live & (rr.sqrt() > wanted) & (steps < budget)

        found, wanted, ritz = rr.sqrt() * unit, wanted * unit, _ritz(lanczos, b_norm)
        return u * unit.unsqueeze(-1), Certificate("linear solve", status, found, wanted, steps, ritz=ritz)


def _ritz(lanczos: list[tuple[Tensor, Tensor, Tensor]], like: Tensor) -> tuple[Tensor, Tensor]:
    """The Lanczos matrix's diagonals from the CG coefficients; steps a problem did not take repeat its first entry."""
    if not lanczos:
        empty = like.new_zeros((0, *like.shape)).cpu()
        return empty, empty
    alpha, beta, live = (torch.stack(parts).cpu() for parts in zip(*lanczos, strict=True))
    inverse = torch.where(live, 1 / alpha, 0.0)
    shifted = torch.cat([torch.zeros_like(beta[:1]), beta[:-1] * inverse[:-1]])
    diagonal = torch.where(live, inverse + shifted, inverse[:1])
    follows = torch.cat([live[1:], torch.zeros_like(live[:1])])
    off = torch.where(follows, beta.clamp_min(0).sqrt() * inverse, 0.0)
    return diagonal, off
