"""Two-level programs: descent on the leader's objective, then Newton on the stationary point of both levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..equation import Problem
from ..errors import UnsupportedError
from ..linear import LU
from .leader_descent import Descent
from .solver import Solver, at_rounding_floor, check_stopping, outcome, tolerance
from .stationary_point import curvatures, hessian, newton, residual
from .two_level import Parts, TwoLevel

_LARGEST = 1500  # unknowns for which the Hessian of the Lagrangian is written down
_SOFTEST = 1e-2  # from a softer program Newton's method may end in a minimum that descent does not lead to


@dataclass(frozen=True)
class Stackelberg(Solver):
    """A leader's program over a follower's, one program for each entry of the batch.

    Descent on the leader's objective as a function of its own variable, with the follower solved at each step and soft
    constraints, leads to a minimum and not only to a stationary point. Newton's method on the stationary point of both
    levels ends it and settles which constraints are active. The number of negative eigenvalues of the Lagrangian's
    Hessian then proves that each level is at a strict minimum. Objectives count in their own units throughout, also in
    the certificate.

    Args:
        rtol, atol: stop a program at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most steps, those of the descents and of Newton's method together.

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
        descent = Descent(problem, inputs, start)
        fitted = descent.multipliers()
        scaled, ratio = problem.in_units(fitted, *inputs)
        wanted = tolerance(self.rtol, self.atol, residual(scaled, fitted / ratio, inputs).norm(dim=-1))
        end = _End.open(fitted, wanted).improved(scaled, ratio, fitted / ratio, inputs, wanted)
        if bool((start[..., problem.sizes.x + problem.sizes.y :] != 0).any()):
            end = self._finish(problem, start, inputs, wanted, end)
        for softness, rtol in descent.stages():
            waiting = ~end.good & wanted.isfinite() & (end.steps < self.max_steps)
            if not bool(waiting.any()):
                break
            left = self.max_steps - int(end.steps[waiting].amin())
            s, taken = descent.run(softness, rtol, left)
            end = end._replace(steps=torch.where(end.good, end.steps, end.steps + taken))
            if softness <= _SOFTEST:
                end = self._finish(problem, s, inputs, wanted, end)
        certificate = self._certify(problem, end, inputs, wanted, descent)
        certificate.feasibility, certificate.margin = _slack(problem, end.s, inputs)
        if not bool(certificate.failed.any()):
            certificate.factor = LU.of(hessian(problem, end.s, inputs), exact=True)
        return end.s, certificate

    def _finish(self, problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor, end: _End) -> _End:
        """Newton's method from ``s`` for the programs that have not ended yet; the best end of each is kept."""
        problem, ratio = problem.in_units(s, *inputs)
        s, steps = newton(problem, s / ratio, inputs, wanted, ~end.good, self.max_steps - end.steps)
        return end._replace(steps=end.steps + steps).improved(problem, ratio, s, inputs, wanted)

    def _certify(
        self, problem: TwoLevel, end: _End, inputs: tuple[Tensor, ...], wanted: Tensor, descent: Descent
    ) -> Certificate:
        problem, ratio = problem.in_units(end.s, *inputs)
        s, done = end.s / ratio, end.norm <= wanted
        floor = torch.zeros_like(done)
        if not bool(done.all()):
            r = residual(problem, s, inputs)
            floor = ~done & at_rounding_floor(lambda free: residual(problem, free, inputs), s, r, s.abs())
        exhausted = end.steps >= self.max_steps
        certificate = outcome(done, end.norm.isfinite(), floor, exhausted, end.norm, wanted, end.steps)
        status, curvature = certificate.status, end.curvature.cpu()
        own = curvatures(problem, s, inputs)[1].cpu()
        unproven = ~certificate.failed & (curvature != Status.CONVERGED)
        certificate.status = torch.where(unproven, curvature, status)
        lost = certificate.failed & (status != Status.NON_FINITE)
        for where, code in (
            (own != Status.CONVERGED, own),
            (descent.infeasible.cpu(), torch.tensor(int(Status.INFEASIBLE))),
        ):
            certificate.status = torch.where(lost & where, code, certificate.status)
        return certificate


class _End(NamedTuple):
    """The best point so far of each program, and what is known of it."""

    s: Tensor
    norm: Tensor
    curvature: Tensor
    good: Tensor
    steps: Tensor

    @classmethod
    def open(cls, s: Tensor, wanted: Tensor) -> _End:
        """Nothing has been found yet."""
        zero = torch.zeros(wanted.shape, dtype=torch.int64, device=wanted.device)
        return cls(s, torch.full_like(wanted, torch.inf), zero, zero > 0, zero)

    def improved(self, problem: TwoLevel, ratio: Tensor, s: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor) -> _End:
        """With ``ratio * s`` where it is better: a minimum before other points, then the smaller residual."""
        norm = residual(problem, s, inputs).norm(dim=-1)
        curvature, _ = curvatures(problem, s, inputs)
        good = (norm <= wanted) & (curvature == Status.CONVERGED)
        better = ~self.good & (good | (norm.nan_to_num(torch.inf) < self.norm) | ~self.norm.isfinite())
        norm = torch.where(better, norm, self.norm)
        curvature = torch.where(better, curvature, self.curvature)
        s = torch.where(better.unsqueeze(-1), ratio * s, self.s)
        return _End(s, norm, curvature, self.good | good, self.steps)


def _slack(problem: TwoLevel, s: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
    """The largest violation of a constraint and the least of max(multiplier, slack), ``None`` without constraints."""
    parts: Parts = problem.split(s)
    margins: list[Tensor] = []
    broken = [
        problem.level(part, parts.x, parts.y, *inputs).abs()
        for part, size in (("follower_equal", problem.sizes.equal), ("leader_equal", problem.sizes.leader_equal))
        if size
    ]
    if problem.sizes.below:
        _, pinned = problem.states(s, *inputs)
        pull, slack = problem.prices(s, *inputs)
        push = parts.adjoint[..., -problem.sizes.below :]
        margins.append(torch.where(pinned, torch.minimum(pull, push), torch.maximum(parts.below, slack)))
        broken.append(-slack)
    if problem.sizes.leader_below:
        constraint = problem.level("leader_below", parts.x, parts.y, *inputs)
        margins.append(torch.maximum(parts.leader_below, -constraint))
        broken.append(constraint)
    if not broken:
        return None, None
    return torch.cat(broken, -1).clamp_min(0).amax(-1), torch.cat(margins, -1).amin(-1) if margins else None
