"""The minimal residual method."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..certificate import Certificate, Status
from .krylov import Krylov, Run


@dataclass(frozen=True)
class MINRES(Krylov):
    r"""Minimal residuals on :math:`(A + \text{damping}\, I)\, u = b` for symmetric ``A``, definite or not.

    Each step minimises :math:`|b - A u|` over the Krylov space, by the Lanczos process and Givens rotations. Where no
    ``u`` solves the system it ends as ``SINGULAR``, near a least-squares solution.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most iterations; ``None`` is ``10 n + 100``.
        damping: number added to the diagonal.
        preconditioner: a positive definite stand-in for ``A``.

    Source: Solution of Sparse Indefinite Systems of Linear Equations (Paige, Saunders, 1975).

    Example:
        >>> import torch
        >>> from bigrad.linear import MINRES, Operator
        >>> A = torch.tensor([[0.0, 2.0], [2.0, 3.0]])
        >>> u, certificate = MINRES().solve(Operator(lambda u: u @ A, symmetric=True), torch.tensor([2.0, 5.0]))
        >>> [round(x, 4) for x in u.tolist()]
        [1.0, 1.0]
    """

    def _sweep(self, run: Run) -> None:
        v_old = torch.zeros_like(run.r)
        v, z = run.r, run.preconditioned(run.r)
        square = (v * z).sum(-1)
        run.end(square <= 0, Status.INDEFINITE)  # of the preconditioner
        beta = torch.where(run.live, square.clamp_min(0).sqrt(), 1.0)
        left, v, z = beta, v / beta.unsqueeze(-1), z / beta.unsqueeze(-1)
        w, w_old = torch.zeros_like(v), torch.zeros_like(v)
        nothing = torch.zeros_like(beta)
        beta, c, s = nothing, -torch.ones_like(beta), nothing
        across, above = nothing, nothing  # entries of the next column that a rotation has touched
        r, norm, reach = run.r, run.r.norm(dim=-1), nothing
        while bool(run.live.any()):
            image = run.apply(z)
            alpha = (image * z).sum(-1)
            v_next = image - beta.unsqueeze(-1) * v_old - alpha.unsqueeze(-1) * v
            z_next = run.preconditioned(v_next)
            square = (v_next * z_next).sum(-1)
            beta_old, beta = beta, square.clamp_min(0).sqrt()
            reach = torch.maximum(reach, torch.stack([beta_old, alpha.abs(), beta]).amax(0))
            # The new column (beta_old, alpha, beta) of the tridiagonal, turned by the last two rotations.
            top, delta, turned = across, c * above + s * alpha, s * above - c * alpha
            across, above = s * beta, -c * beta
            null = run.live & (torch.hypot(turned, above) <= run.negligible * reach)  # A takes the residual to nothing
            run.suspect, run.live = run.suspect | null, run.live & ~null
            gamma = torch.hypot(turned, beta)
            safe = torch.where(gamma > 0, gamma, 1.0)
            c, s = turned / safe, beta / safe
            moved, left = c * left, s * left
            w, w_old = (z - top.unsqueeze(-1) * w_old - delta.unsqueeze(-1) * w) / safe.unsqueeze(-1), w
            u = run.u + moved.unsqueeze(-1) * w
            # A step so long that the rounding of ``A u`` hides the residual is not taken.
            drowned = run.live & ~(run.eps * run.largest * u.norm(dim=-1) <= norm)
            run.suspect, run.live = run.suspect | drowned, run.live & ~drowned
            run.u = torch.where(run.live.unsqueeze(-1), u, run.u)
            run.steps = run.steps + run.live
            run.history.append((gamma, delta, top, run.live))
            inverse = torch.where(beta > 0, 1 / beta, 0.0).unsqueeze(-1)
            v_old, v, z = v, v_next * inverse, z_next * inverse
            norm = left
            if run.precondition is not None:  # then ``left`` is the residual in another norm
                r = s.square().unsqueeze(-1) * r - (c * left).unsqueeze(-1) * v
                norm = r.norm(dim=-1)
            run.end(square < -run.negligible * reach.square(), Status.INDEFINITE)
            run.live = run.live & (norm > run.wanted) & (beta > run.eps * reach) & (run.steps < run.budget)

    def _note_spectrum(self, run: Run, certificate: Certificate) -> None:
        """The triangular factor of the Lanczos matrix: its singular values lie among those of ``A``."""
        if not run.history:
            return
        gamma, delta, top, live = (torch.stack(parts).cpu() for parts in zip(*run.history, strict=True))
        # Steps that a problem did not take repeat its first entry, and are coupled to nothing.
        gamma = torch.where(live, gamma, torch.where(live[:1], gamma[:1], 1.0))
        certificate.triangle = gamma, torch.where(live, delta, 0.0)[1:], torch.where(live, top, 0.0)[2:]
