"""Two-level programs: descent on the leader's objective, then Newton on the stationary point of both levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, Status
from ..equation import Problem
from ..errors import UnsupportedError
from ..linear import LU
from .leader_descent import Descent
from .solver import Solver, at_rounding_floor, check_stopping, outcome, tolerance
from .two_level import Parts, TwoLevel

_LARGEST = 1500  # unknowns for which the Hessian of the Lagrangian is written down


@dataclass(frozen=True)
class Stackelberg(Solver):
    """A leader's program over a follower's, one program for each entry of the batch.

    Descent on the leader's objective as a function of its own variable, with the follower solved at each step and log
    barriers for inequalities, leads to a minimum and not only to a stationary point. Newton's method on the stationary
    point of both levels ends it and settles the active set. The number of negative eigenvalues of the Lagrangian's
    Hessian then proves that each level is at a strict minimum.

    Args:
        rtol, atol: stop a program at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most Newton steps, and most steps of each descent.

    Source: Numerical Optimization (Nocedal, Wright, 2006), chapters 16, 18 and 19.
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 200

    def __post_init__(self) -> None:
        check_stopping("Stackelberg", self.rtol, self.atol, self.max_steps)

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Solve from the ``x`` and ``y`` in ``start``; multipliers there are tried first."""
        if not isinstance(problem, TwoLevel):
            raise UnsupportedError("Stackelberg needs two levels: it belongs to bigrad.bilevel and layers.Bilevel")
        if start.shape[-1] > _LARGEST:
            raise UnsupportedError(
                f"the two levels and their multipliers have {start.shape[-1]} unknowns; the Hessian is written down up "
                f"to {_LARGEST}: make the leader's objective a layers.ArgMin around another one for the follower"
            )
        descent = Descent(problem, inputs, start, self.max_steps)
        first = _residual(problem, descent.multipliers(start, 0.0), inputs).norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, first)
        end = _End.open(start, wanted)
        warm = problem.split(start).adjoint
        if bool((warm != 0).any()):
            end = self._finish(problem, start, inputs, wanted, end)
        for barrier, rtol in descent.stages():
            if bool(end.good.all()) or self.max_steps == 0:
                break
            point = descent.run(barrier, rtol)
            end = self._finish(problem, descent.multipliers(point, barrier), inputs, wanted, end)
        return self._certify(problem, end, inputs, wanted, descent)

    def _finish(self, problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor, end: _End) -> _End:
        """Newton's method from ``s`` for the programs that have not ended yet; the best end of each is kept."""
        live = ~end.good
        r = _residual(problem, s, inputs)
        steps = end.steps
        for _ in range(self.max_steps):
            norm = r.norm(dim=-1)
            live = live & (norm > wanted) & norm.isfinite()
            if not bool(live.any()):
                break
            factor, pivots, _ = torch.linalg.lu_factor_ex(_hessian(problem, s, inputs))
            direction = -torch.linalg.lu_solve(factor, pivots, r.unsqueeze(-1)).squeeze(-1)
            live = live & direction.isfinite().all(-1)
            moved, searching, size = s, live, torch.ones_like(norm)
            for _ in range(12):
                trial = torch.where(searching.unsqueeze(-1), s + size.unsqueeze(-1) * direction, moved)
                r_trial = _residual(problem, trial, inputs)
                smaller = r_trial.norm(dim=-1) <= (1 - 1e-4 * size) * norm
                moved = torch.where((searching & smaller).unsqueeze(-1), trial, moved)
                r = torch.where((searching & smaller).unsqueeze(-1), r_trial, r)
                searching = searching & ~smaller
                if not bool(searching.any()):
                    break
                size = torch.where(searching, 0.5 * size, size)
            s, live, steps = moved, live & ~searching, steps + live
        return end.improved(problem, s, r.norm(dim=-1), inputs, wanted, steps)

    def _certify(
        self, problem: TwoLevel, end: _End, inputs: tuple[Tensor, ...], wanted: Tensor, descent: Descent
    ) -> tuple[Tensor, Certificate]:
        done = end.norm <= wanted
        floor = torch.zeros_like(done)
        if not bool(done.all()):
            r = _residual(problem, end.s, inputs)
            floor = ~done & at_rounding_floor(lambda s: _residual(problem, s, inputs), end.s, r, end.s.abs())
        exhausted = end.steps >= self.max_steps
        certificate = outcome(done, end.norm.isfinite(), floor, exhausted, end.norm, wanted, end.steps)
        solved = ~certificate.failed
        certificate.status[solved & ~end.minimum.cpu()] = int(Status.INDEFINITE)
        certificate.status[~solved & descent.infeasible.cpu()] = int(Status.INFEASIBLE)
        certificate.feasibility, certificate.margin = _slack(problem, end.s, inputs)
        if bool(solved.all()):
            certificate.factor = LU.of(_hessian(problem, end.s, inputs), exact=True)
        return end.s, certificate


class _End(NamedTuple):
    """The best point so far of each program, and what is known of it."""

    s: Tensor
    norm: Tensor
    minimum: Tensor
    good: Tensor
    steps: Tensor

    @classmethod
    def open(cls, s: Tensor, wanted: Tensor) -> _End:
        """Nothing has been found yet."""
        no = torch.zeros_like(wanted, dtype=torch.bool)
        steps = torch.zeros(wanted.shape, dtype=torch.int64, device=wanted.device)
        return cls(s, torch.full_like(wanted, torch.inf), no, no, steps)

    def improved(
        self, problem: TwoLevel, s: Tensor, norm: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor, steps: Tensor
    ) -> _End:
        """With ``s`` where it is better: a minimum before any other stationary point, then the smaller residual."""
        minimum = _is_minimum(problem, s, inputs)
        good = (norm <= wanted) & minimum
        better = ~self.good & (good | (norm.nan_to_num(torch.inf) < self.norm) | (steps == 0))
        norm = torch.where(better, norm, self.norm)
        minimum = torch.where(better, minimum, self.minimum)
        s = torch.where(better.unsqueeze(-1), s, self.s)
        return _End(s, norm, minimum, self.good | good, steps)


def _residual(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    return problem.residual(s, *inputs).detach()


def _hessian(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    return calculus.jacobian(lambda free: problem.residual(free, *inputs), s)


def _is_minimum(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """Whether there are as many negative curvatures as multipliers, and no more, on both levels, bool ``(*batch)``."""
    sizes = problem.sizes
    whole = _hessian(problem, s, inputs)
    x = problem.split(s).x
    w = torch.cat(problem.split(s)[1:4], -1)
    lower = calculus.jacobian(lambda free: calculus.gradient(lambda v: problem.follower(v, x, *inputs), free), w)
    enough = torch.ones(s.shape[:-1], dtype=torch.bool, device=s.device)
    for matrix, negative in (
        (whole, sizes.adjoint + sizes.leader_equal + sizes.leader_below),
        (lower, sizes.equal + sizes.below),
    ):
        finite = matrix.isfinite().all(-1).all(-1)
        values = torch.linalg.eigvalsh(torch.where(finite[..., None, None], matrix, 0.0))
        enough = enough & finite & ((values < 0).sum(-1) == negative)
    return enough


def _slack(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
    """The largest violation of a constraint and the least of max(multiplier, slack), ``None`` without constraints."""
    parts: Parts = problem.split(s)
    equal = [
        problem.level(part, parts.x, parts.y, *inputs)
        for part, size in (("follower_equal", problem.sizes.equal), ("leader_equal", problem.sizes.leader_equal))
        if size
    ]
    below = [
        (multiplier, problem.level(part, parts.x, parts.y, *inputs))
        for part, multiplier in (("follower_below", parts.below), ("leader_below", parts.leader_below))
        if multiplier.shape[-1]
    ]
    if not equal and not below:
        return None, None
    violation = torch.cat([*(part.abs() for part in equal), *(part.clamp_min(0) for _, part in below)], -1).amax(-1)
    if not below:
        return violation, None
    return violation, torch.cat([torch.maximum(m, -part) for m, part in below], -1).amin(-1)
