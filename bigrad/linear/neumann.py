"""The Neumann series."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..certificate import Status
from ..errors import InputError
from .krylov import Krylov, Run


@dataclass(frozen=True)
class Neumann(Krylov):
    r"""The series :math:`u = \eta \sum_{k < \text{max\_steps}} (I - \eta A)^k\, b` with ``step_size`` :math:`\eta`.

    It ends where the residual is small enough. A series cut off before is an approximation, and reported as
    ``MAX_STEPS``: whoever cuts it on purpose says ``on_failure="ignore"``. A series that diverges ends as ``STALLED``
    or ``NON_FINITE``.

    Args:
        rtol: wanted residual norm over the norm of ``b``; ``None`` is 1e-12 in float64 and 1e-6 in float32.
        max_steps: most terms; ``None`` is ``10 n + 100``.
        damping: number added to the diagonal of ``A``.
        preconditioner: a positive definite ``M``; the series is then that of ``M^-1 A`` and ``M^-1 b``.
        step_size: :math:`\eta`; a symmetric positive definite ``A`` needs it below two over its largest eigenvalue,
            and for ``A = I - J`` with a contraction ``J``, as at a fixed point, it is 1.

    Source: Optimizing Millions of Hyperparameters by Implicit Differentiation (Lorraine, Vicol, Duvenaud, 2020).

    Example:
        >>> import torch
        >>> from bigrad.linear import Neumann, Operator
        >>> A = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
        >>> u, certificate = Neumann().solve(Operator(lambda u: A @ u), torch.tensor([2.0, 1.0]))
        >>> u
        tensor([1.5000, 1.0000])
    """

    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0:
            raise InputError(f"Neumann: step_size is {self.step_size}; it must be > 0")

    def _sweep(self, run: Run) -> None:
        r, begun = run.r, run.live
        norm = first = r.norm(dim=-1)
        while bool(run.live.any()):
            move = self.step_size * run.preconditioned(r)
            image = run.apply(move)
            live = run.live.unsqueeze(-1)
            run.u, r = torch.where(live, run.u + move, run.u), torch.where(live, r - image, r)
            norm = r.norm(dim=-1)
            run.steps = run.steps + run.live
            run.end(~(norm < first / run.eps), Status.NON_FINITE)
            run.live = run.live & (norm > run.wanted) & (run.steps < run.budget)
        diverges = begun & (norm > first) & (run.status == int(Status.MAX_STEPS))
        run.status = torch.where(diverges, int(Status.STALLED), run.status)
