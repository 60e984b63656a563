"""Stabilised biconjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .krylov import Krylov, Run


@dataclass(frozen=True)
class BiCGStab(Krylov):
    r"""Stabilised biconjugate gradients on :math:`(A + \text{damping}\, I)\, u = b` for any square ``A``.

    Needs the memory of a few vectors, where GMRES keeps a basis, and no transpose. A breakdown starts it anew from the
    residual at hand, and the best of the answers on the way is kept, as residuals rise and fall. Where a fresh start
    breaks down as well, as on skew-symmetric matrices, it ends as ``STALLED``.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most iterations, of two products each; ``None`` is ``10 n + 100``.
        damping: number added to the diagonal.
        preconditioner: a stand-in for ``A``, applied from the right: the residual stays that of the system.

    Source: Bi-CGSTAB: A Fast and Smoothly Converging Variant of Bi-CG for the Solution of Nonsymmetric Linear Systems
    (van der Vorst, 1992).

    Example:
        >>> import torch
        >>> from bigrad.linear import BiCGStab, Operator
        >>> A = torch.tensor([[4.0, 2.0], [1.0, 3.0]])
        >>> u, certificate = BiCGStab().solve(Operator(lambda u: A @ u), torch.tensor([6.0, 4.0]))
        >>> [round(x, 4) for x in u.tolist()]
        [1.0, 1.0]
    """

    def _sweep(self, run: Run) -> None:
        r = p = shadow = run.r
        u, norm = run.u, r.norm(dim=-1)
        rho, limit, least = norm.square(), norm / run.eps, norm
        fresh = torch.ones_like(run.live)
        while bool(run.live.any()):
            p_hat = run.preconditioned(p)
            v = run.apply(p_hat)
            sigma = (shadow * v).sum(-1)
            flat = sigma.abs() <= run.eps * shadow.norm(dim=-1) * v.norm(dim=-1)
            run.live = run.live & ~(flat & fresh)
            moves = run.live & ~flat
            alpha = torch.where(moves, rho / sigma, 0.0).unsqueeze(-1)
            s = r - alpha * v
            s_hat = run.preconditioned(s)
            t = run.apply(s_hat)
            moves, tt = moves & run.live, (t * t).sum(-1)
            omega = torch.where(moves & (tt > 0), (t * s).sum(-1) / tt, 0.0).unsqueeze(-1)
            u = torch.where(moves.unsqueeze(-1), u + alpha * p_hat + omega * s_hat, u)
            r = torch.where(moves.unsqueeze(-1), s - omega * t, r)
            norm = r.norm(dim=-1)
            rho_next = (shadow * r).sum(-1)
            fresh = flat | (omega.squeeze(-1) == 0) | (rho_next.abs() <= run.eps * shadow.norm(dim=-1) * norm)
            beta = torch.where(fresh, 0.0, rho_next / rho).unsqueeze(-1) * torch.where(omega == 0, 0.0, alpha / omega)
            p = torch.where(fresh.unsqueeze(-1), r, r + beta * (p - omega * v))
            shadow = torch.where(fresh.unsqueeze(-1), r, shadow)
            rho = torch.where(fresh, norm.square(), rho_next)
            run.steps = run.steps + run.live
            better = run.live & (norm < least)
            run.u, least = torch.where(better.unsqueeze(-1), u, run.u), torch.where(better, norm, least)
            run.live = run.live & (norm > run.wanted) & (norm < limit) & (run.steps < run.budget)
