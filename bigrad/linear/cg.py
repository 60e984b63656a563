"""Conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from .krylov import Krylov, Run


@dataclass(frozen=True)
class CG(Krylov):
    r"""Conjugate gradients on :math:`(A + \text{damping}\, I)\, u = b` for symmetric positive definite ``A``.

    Each problem of a batch has its own step lengths and its own stopping test; converged ones are frozen. The
    residual that is reported is recomputed from ``b - A u`` and not the recursive one. Non-positive curvature
    ends a problem as ``INDEFINITE``, and a residual as small as rounding lets it be as ``ROUNDING_FLOOR``.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most iterations; ``None`` is ``10 n + 100``.
        damping: ridge added to the diagonal.
        preconditioner: a positive definite stand-in for ``A`` that is cheap to invert.

    Source: Methods of Conjugate Gradients for Solving Linear Systems (Hestenes, Stiefel, 1952).

    Example:
        >>> import torch
        >>> from bigrad.linear import CG, Operator
        >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
        >>> u, certificate = CG().solve(Operator(lambda u: u @ A, symmetric=True), torch.tensor([1.0, 2.0]))
        >>> u
        tensor([0.0909, 0.6364])
    """

    def _sweep(self, run: Run) -> None:
        r = run.r
        p = z = run.preconditioned(r)
        rz = (r * z).sum(-1)
        run.end(rz <= 0, Status.INDEFINITE)  # of the preconditioner
        if run.history:
            alpha, beta, taken = run.history[-1]
            run.history[-1] = alpha, torch.where(run.live, 0.0, beta), taken  # a restart starts a new Lanczos block
        while bool(run.live.any()):
            Ap = run.apply(p)
            pp, curvature = (p * p).sum(-1), (p * Ap).sum(-1)
            noise = 10 * run.eps * run.largest * pp
            flat = curvature <= noise
            # A positive semidefinite A has |A p|^2 <= |A| <p, A p>: no curvature, then, and no product either.
            singular = flat & (curvature >= -noise) & ((Ap * Ap).sum(-1) <= 10 * run.largest * noise)
            run.end(singular, Status.SINGULAR)
            run.end(flat, Status.INDEFINITE)
            live = run.live.unsqueeze(-1)
            alpha = torch.where(run.live, rz / curvature, 0.0)
            run.u = torch.where(live, run.u + alpha.unsqueeze(-1) * p, run.u)
            r = torch.where(live, r - alpha.unsqueeze(-1) * Ap, r)
            z = run.preconditioned(r)
            rz_next = (r * z).sum(-1)
            beta = torch.where(run.live, rz_next / rz, 0.0)
            run.history.append((alpha, beta, run.live))
            p = torch.where(live, z + beta.unsqueeze(-1) * p, p)
            rz = torch.where(run.live, rz_next, rz)
            run.steps = run.steps + run.live
            norm = rz.sqrt() if run.precondition is None else r.norm(dim=-1)
            run.live = run.live & (norm > run.wanted) & (run.steps < run.budget)
            if run.precondition is not None:
                run.end(rz <= 0, Status.INDEFINITE)

    def _note_spectrum(self, run: Run, certificate: Certificate) -> None:
        """The Lanczos matrix, of the preconditioned system if there is a preconditioner."""
        certificate.ritz = _ritz(run.history, run.b_norm)


def _ritz(lanczos: list[tuple[Tensor, ...]], like: Tensor) -> tuple[Tensor, Tensor]:
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
