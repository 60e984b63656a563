"""Conjugate gradients."""

from __future__ import annotations

import math
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
        if run.history:
            alpha, beta, taken = run.history[-1]
            last = torch.where(run.live, 0.0, beta[-1:])  # a restart starts a new Lanczos block
            run.history[-1] = alpha, torch.cat([beta[:-1], last]), taken
        if run.live.numel() == 1:
            if bool(run.live):
                self._alone(run)
        else:
            self._together(run)

    def _alone(self, run: Run) -> None:
        """One problem, whose scalars are the host's own numbers: that saves most of the operations."""
        u, r = run.u.clone(), run.r.clone()
        p = run.preconditioned(r).clone()
        rz, wanted = float((r * p).sum()), float(run.wanted) ** 2
        largest, least, steps, taken = float(run.largest), float(run.least), int(run.steps), []
        going = rz > 0
        if not going:
            run.end(run.live, Status.INDEFINITE)  # of the preconditioner
        while going:
            Ap = run.product(p)
            along, image = p.flatten(), Ap.flatten()
            products = torch.stack([along.dot(along), along.dot(image), image.dot(image)])
            pp, curvature, ApAp = products.tolist()  # one wait for the device
            ratio = math.sqrt(ApAp / pp) if pp > 0 else math.nan
            largest, least = max(largest, ratio), min(least, ratio)  # a NaN is passed over
            noise = 10 * run.eps * largest * pp
            if not curvature > noise:
                run.largest = torch.full_like(run.largest, largest)
                self._classify(run, run.live, *products.new_tensor([curvature, noise, ApAp]))
                break
            alpha = rz / curvature
            u.add_(p, alpha=alpha)
            r.add_(Ap, alpha=-alpha)
            z = run.preconditioned(r)
            rr = float((flat := r.flatten()) @ flat)
            before, rz = rz, rr if run.precondition is None else float(flat @ z.flatten())
            taken.append((alpha, rz / before))
            steps += 1
            going = rr > wanted and steps < run.budget
            if going and not rz > 0:
                run.end(run.live, Status.INDEFINITE)
                break
            p = torch.add(z, p, alpha=rz / before)
        if taken:
            alphas, betas = run.b_norm.new_tensor(taken).reshape(len(taken), 2, *run.live.shape).unbind(1)
            run.history.append((alphas, betas, torch.ones_like(alphas, dtype=torch.bool)))
        run.largest, run.least = torch.full_like(run.largest, largest), torch.full_like(run.least, least)
        run.u, run.steps, run.live = u, torch.full_like(run.steps, steps), torch.zeros_like(run.live)

    def _together(self, run: Run) -> None:
        r = run.r
        p = z = run.preconditioned(r)
        rz = (r * z).sum(-1)
        run.end(rz <= 0, Status.INDEFINITE)  # of the preconditioner
        wanted = run.wanted.square()
        going = bool(run.live.any())
        # Few operations a step: a problem at rest has the step length zero, and what rarely happens is looked at last.
        while going:
            Ap = run.product(p)
            pp, curvature, ApAp = (torch.stack([p, p, Ap]) * torch.stack([p, Ap, Ap])).sum(-1)
            ratio = (ApAp / pp).sqrt()
            run.largest, run.least = torch.fmax(run.largest, ratio), torch.fmin(run.least, ratio)
            noise = 10 * run.eps * run.largest * pp
            before, moving = run.live, run.live & (curvature > noise)
            alpha = torch.where(moving, rz / curvature, 0.0)
            u, r_next = torch.addcmul(run.u, alpha.unsqueeze(-1), p), torch.addcmul(r, -alpha.unsqueeze(-1), Ap)
            z = run.preconditioned(r_next)
            rr = (r_next * r_next).sum(-1)
            rz_next = rr if run.precondition is None else (r_next * z).sum(-1)
            beta = torch.where(moving, rz_next / rz, 0.0)
            run.history.append((alpha[None], beta[None], moving[None]))
            p = torch.addcmul(z, beta.unsqueeze(-1), p)
            run.steps = run.steps + moving
            run.live = moving & (rr > wanted) & (run.steps < run.budget)
            lost = before & ~moving if run.precondition is None else before & ~(moving & (rz_next > 0))
            going, ended = torch.stack([run.live.any(), lost.any()]).tolist()  # one wait for the device
            if ended:
                still = (~moving).unsqueeze(-1)  # an infinite product times zero would be no rest
                u, r_next = torch.where(still, run.u, u), torch.where(still, r, r_next)
                self._classify(run, before & ~moving, curvature, noise, ApAp)
                run.live = run.live & moving
                run.end(rz_next <= 0, Status.INDEFINITE)
                going = bool(run.live.any())
                p = torch.where(still, 0.0, p)
                rz_next = torch.where(moving, rz_next, 1.0)
            run.u, r, rz = u, r_next, rz_next

    @staticmethod
    def _classify(run: Run, where: Tensor, curvature: Tensor, noise: Tensor, ApAp: Tensor) -> None:
        """End the problems that met a direction without positive curvature, or an infinite product."""
        # A positive semidefinite A has |A p|^2 <= |A| <p, A p>: no curvature, then, and no product either.
        singular = (curvature >= -noise) & (ApAp <= 10 * run.largest * noise)
        status = torch.where(singular, int(Status.SINGULAR), int(Status.INDEFINITE))
        status = torch.where(ApAp.isfinite(), status, int(Status.NON_FINITE))
        run.status = torch.where(where, status, run.status)

    def _note_spectrum(self, run: Run, certificate: Certificate) -> None:
        """The Lanczos matrix, of the preconditioned system if there is a preconditioner."""
        certificate.ritz = _ritz(run.history, run.b_norm)


def _ritz(lanczos: list[tuple[Tensor, ...]], like: Tensor) -> tuple[Tensor, Tensor]:
    """The Lanczos matrix's diagonals from the CG coefficients ``(steps, *batch)``, part after part.

    Steps that a problem did not take repeat its first entry.
    """
    if not lanczos:
        empty = like.new_zeros((0, *like.shape)).cpu()
        return empty, empty
    alpha, beta, live = (torch.cat(parts).cpu() for parts in zip(*lanczos, strict=True))
    inverse = torch.where(live, 1 / alpha, 0.0)
    shifted = torch.cat([torch.zeros_like(beta[:1]), beta[:-1] * inverse[:-1]])
    diagonal = torch.where(live, inverse + shifted, inverse[:1])
    follows = torch.cat([live[1:], torch.zeros_like(live[:1])])
    off = torch.where(follows, beta.clamp_min(0).sqrt() * inverse, 0.0)
    return diagonal, off
