"""What the iterative linear solvers share: scales, warm starts, stopping, and the verdict on the true residual."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..errors import InputError
from .preconditioner import Preconditioner
from .solver import LinearSolver, MatVec, Operator, linear_tolerance, scaled, with_damping


@dataclass
class Run:
    """A batch of systems on its way; every number of a problem is its own.

    Attributes:
        product: ``u -> (A + damping I) u``.
        precondition: ``r -> M^-1 r``, ``None`` where there is none.
        b: right-hand sides, scaled to a largest entry of one.
        wanted: the residual norm asked for.
        budget: most steps of a problem.
        u: the answers so far.
        r: their true residuals where the sweep begins.
        status: ``MAX_STEPS`` until a problem has ended otherwise.
        live: which problems still move.
        steps: steps taken.
        largest: largest ``|A p| / |p|`` seen, a lower bound of the norm of ``A``.
        least: smallest one seen, an upper bound of the smallest singular value.
        suspect: which problems have shown a direction that ``A`` takes to nearly nothing.
        history: what a method notes of its projected matrix.
    """

    product: MatVec
    precondition: MatVec | None
    b: Tensor
    wanted: Tensor
    budget: int
    u: Tensor
    r: Tensor
    status: Tensor
    live: Tensor
    steps: Tensor
    largest: Tensor
    least: Tensor
    suspect: Tensor
    history: list[tuple[Tensor, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.eps = torch.finfo(self.b.dtype).eps
        self.negligible = self.eps ** (2 / 3)  # singular values below this part of the norm count as zero
        self.b_norm = self.b.norm(dim=-1)
        self.norm = torch.full_like(self.b_norm, torch.inf)  # of the best true residual after a sweep
        self.best, self.best_r = self.u, self.r

    def preconditioned(self, r: Tensor) -> Tensor:
        """``M^-1 r``."""
        return r if self.precondition is None else self.precondition(r)

    def apply(self, p: Tensor) -> Tensor:
        """``A p``, noted for what it tells of the size of ``A``; an infinite product of a live problem ends it."""
        image = self.product(p)
        ratio = image.norm(dim=-1) / p.norm(dim=-1)
        self.largest = torch.where(self.live & ratio.isfinite(), torch.maximum(self.largest, ratio), self.largest)
        self.least = torch.where(self.live & ratio.isfinite(), torch.minimum(self.least, ratio), self.least)
        self.end(~image.sum(-1).isfinite(), Status.NON_FINITE)
        return image

    def end(self, where: Tensor, status: Status) -> None:
        """End the live problems among ``where``."""
        self.status = torch.where(self.live & where, int(status), self.status)
        self.live = self.live & ~where

    def verify(self, improvement: float) -> bool:
        """Judge the true residuals of a sweep; whether any problem goes on from there, which it does if it improved."""
        r = self.b - self.product(self.u)
        norm = r.norm(dim=-1)
        before = self.norm
        worse = (before.isfinite() & ~(norm <= before)).unsqueeze(-1)
        self.u, self.r = torch.where(worse, self.best, self.u), torch.where(worse, self.best_r, r)
        self.norm = norm = self.r.norm(dim=-1)
        self.best, self.best_r = self.u, self.r

        u_norm = self.u.norm(dim=-1)
        self.least = torch.where(
            u_norm > 0, torch.minimum(self.least, (self.b - self.r).norm(dim=-1) / u_norm), self.least
        )
        lost = 100 * self.eps * self.largest * u_norm  # what rounding does to A u
        rounding = norm <= lost + 100 * self.eps * self.b_norm
        improves = norm < torch.where(rounding, 0.5, improvement) * before
        undecided = self.status == int(Status.MAX_STEPS)
        open_ = undecided & (norm > self.wanted)
        # A residual that stands for a large part of ``u`` or of ``b`` is more than rounding in the last digits.
        sound = (norm <= 0.1 * self.least * u_norm) & (norm <= 0.01 * self.b_norm) & (lost < self.b_norm)
        floor = torch.where(sound, int(Status.ROUNDING_FLOOR), int(Status.SINGULAR))
        ended = torch.where(self.suspect, int(Status.SINGULAR), int(Status.STALLED))
        ended = torch.where(improves, int(Status.MAX_STEPS), ended)
        ended = torch.where(rounding, floor, ended)
        self.live = open_ & improves & (self.steps < self.budget)
        status = torch.where(open_ & ~self.live, ended, self.status)
        status = torch.where(undecided & (norm <= self.wanted), int(Status.CONVERGED), status)
        self.status = torch.where(undecided & ~norm.isfinite(), int(Status.NON_FINITE), status)
        stalled = self.status == int(Status.STALLED)
        going, stuck = torch.stack([self.live.any(), stalled.any()]).tolist()
        if stuck:
            # What rounding leaves has a part in every direction: its image tells how far ``A`` reaches.
            reach = self.product(self.r / norm.clamp_min(torch.finfo(norm.dtype).tiny).unsqueeze(-1)).norm(dim=-1)
            lost = lost * (reach / self.largest).clamp_min(1.0)
            status = torch.where(norm <= lost + 100 * self.eps * self.b_norm, floor, self.status)
            status = torch.where(reach <= self.negligible * self.largest, int(Status.SINGULAR), status)
            self.status = torch.where(stalled, status, self.status)
        return bool(going)


@dataclass(frozen=True)
class Krylov(LinearSolver):
    """An iteration that sweeps until its own residual claims success, and goes on from the true one if that disagrees.

    A start whose residual is no smaller than that of zero is not used: a warm start never costs more than a cold one
    by more than the product that judges it.
    """

    rtol: float | None = None
    max_steps: int | None = None
    damping: float = 0.0
    preconditioner: Preconditioner | None = None

    improvement: ClassVar[float] = 0.5  # a sweep that leaves more of the residual than this is the last

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.rtol is not None and not self.rtol >= 0:
            raise InputError(f"{name}: rtol is {self.rtol}; it must be >= 0")
        if self.max_steps is not None and self.max_steps < 0:
            raise InputError(f"{name}: max_steps is {self.max_steps}; it must be >= 0")
        if not self.damping >= 0:
            raise InputError(f"{name}: damping is {self.damping}; it must be >= 0")
        if not (self.preconditioner is None or isinstance(self.preconditioner, Preconditioner)):
            raise InputError(f"{name}: preconditioner is {self.preconditioner!r}; it must be one such as Diagonal()")

    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """Solve for ``u``, from ``start`` where that is closer than zero."""
        b, unit = scaled(b)
        run = self._begin(operator, b, None if start is None else start / unit.unsqueeze(-1))
        going = start is None or bool(run.live.any())
        while going:
            self._sweep(run)
            going = run.verify(self.improvement)
        found, wanted = run.r.norm(dim=-1) * unit, run.wanted * unit
        certificate = Certificate("linear solve", run.status, found, wanted, run.steps)
        self._note_spectrum(run, certificate)
        return run.u * unit.unsqueeze(-1), certificate

    def _begin(self, operator: Operator, b: Tensor, start: Tensor | None) -> Run:
        product = with_damping(operator.product, self.damping)
        norm = b.norm(dim=-1)
        wanted = linear_tolerance(self.rtol, b.dtype) * norm
        u, r = torch.zeros_like(b), b
        if start is not None:
            left = b - product(start)
            closer = left.norm(dim=-1) < norm
            u, r = (torch.where(closer.unsqueeze(-1), warm, cold) for warm, cold in ((start, u), (left, r)))
        budget = 10 * b.shape[-1] + 100 if self.max_steps is None else self.max_steps
        live = (r.norm(dim=-1) > wanted) & norm.isfinite()
        status = torch.where(live, int(Status.MAX_STEPS), int(Status.CONVERGED))
        status = torch.where(norm.isfinite(), status, int(Status.NON_FINITE))
        live = live & (budget > 0)
        nothing = torch.zeros_like(norm)
        precondition = None
        if self.preconditioner is not None:
            precondition = self.preconditioner.build(operator, b, self.damping)
        return Run(
            *(product, precondition, b, wanted, budget, u, r, status, live, torch.zeros_like(status)),
            *(nothing, torch.full_like(norm, torch.inf), torch.zeros_like(live)),
        )

    @abstractmethod
    def _sweep(self, run: Run) -> None:
        """Move ``run.u`` from the residuals ``run.r`` until no problem is live."""

    def _note_spectrum(self, run: Run, certificate: Certificate) -> None:
        """Write down what the run tells of the condition: by default the extreme ``|A p| / |p|``."""
        seen = run.least.isfinite() & (run.largest > 0)
        extremes = torch.stack([torch.where(seen, run.largest, 1.0), torch.where(seen, run.least, 1.0)]).cpu()
        certificate.ritz = extremes, torch.zeros_like(extremes)
