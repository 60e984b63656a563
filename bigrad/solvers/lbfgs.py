"""Limited-memory BFGS, many problems in lockstep."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, Status
from ..equation import Objective, Problem
from ..errors import InputError, UnsupportedError
from .line_search import line_search
from .newton import Newton
from .solver import Solver, at_rounding_floor, check_stopping, outcome, tolerance

Pair = tuple[Tensor, Tensor, Tensor]

_PATIENCE = 500  # steps without a lower value or a clearly smaller gradient
_NEAR, _BRIEF = 1e-2, 50  # how far the gradient has to fall, or how many steps are taken, before Newton's method


@dataclass(frozen=True)
class LBFGS(Solver):
    """Limited-memory BFGS with a Wolfe line search; ``history=0`` is steepest descent.

    Close to the minimum, once the gradient has fallen to a hundredth or fifty steps are taken, Newton's method
    finishes: where the problem is ill-conditioned it takes far fewer steps, and it makes the error of ``y`` small and
    not only the gradient. Where it does not get there, L-BFGS goes on.

    Args:
        rtol, atol: stop a problem at gradient norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        history: how many past steps shape the direction.
        finish: what finishes; ``None`` is L-BFGS itself. With ``rtol`` of 1e-2 or more there is nothing to finish.

    Source: On the Limited Memory BFGS Method for Large Scale Optimization (Liu, Nocedal, 1989).
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000
    history: int = 20
    finish: Newton | None = Newton()

    def __post_init__(self) -> None:
        check_stopping("LBFGS", self.rtol, self.atol, self.max_steps)
        if self.history < 0:
            raise InputError(f"LBFGS: history is {self.history}; it must be >= 0")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Minimise from ``start``; the point with the smallest gradient norm is returned."""
        if not isinstance(problem, Objective):
            raise UnsupportedError("LBFGS needs an objective: a root or a fixed point has none")
        if self.finish is None or (self.rtol is not None and self.rtol >= _NEAR) or self.max_steps == 0:
            return self._descend(problem, start, inputs)

        def gradient(y: Tensor) -> Tensor:
            return calculus.value_and_gradient(problem.value, y, *inputs)[1]

        y, near = self._descend(problem, start, inputs, brief=True)
        wanted, norm = near.tolerance.to(y.device), near.stationarity.to(y.device)
        taken = int(near.steps.max()) if near.steps.numel() else 0
        if bool((near.status == int(Status.NON_FINITE)).all()) or not bool((norm > 0).any()) or taken >= self.max_steps:
            return y, near
        # A start at the minimum stays; a gradient that is small because the objective is small is no minimum yet.
        resting = (near.steps.to(y.device) == 0) & (norm <= wanted)
        if bool(resting.any()):
            resting = resting & at_rounding_floor(gradient, y, gradient(y), y.abs())
            if bool(resting.all()):
                return y, near
        newton = replace(self.finish, max_steps=min(self.finish.max_steps, self.max_steps - taken))
        end, certificate = newton.minimise(problem, y, inputs, wanted)
        end = torch.where(resting.unsqueeze(-1), y, end)
        certificate.steps = certificate.steps + near.steps
        open_ = certificate.failed & (near.status != int(Status.NON_FINITE))
        if not bool(open_.any()):
            return end, certificate
        y, slow = self._descend(problem, y, inputs, wanted=wanted, live=open_.to(y.device))
        slow.steps = slow.steps + near.steps
        keep = open_ & ~(slow.failed & (certificate.status == int(Status.INDEFINITE)))
        for name in ("status", "stationarity", "tolerance", "steps"):
            setattr(certificate, name, torch.where(keep, getattr(slow, name), getattr(certificate, name)))
        certificate.factor = None
        return torch.where(keep.to(y.device).unsqueeze(-1), y, end), certificate

    def _descend(
        self,
        problem: Objective,
        start: Tensor,
        inputs: tuple[Tensor, ...],
        *,
        brief: bool = False,
        wanted: Tensor | None = None,
        live: Tensor | None = None,
    ) -> tuple[Tensor, Certificate]:
        """L-BFGS to gradient norms ``wanted`` for the problems ``live``; a brief one ends near the minimum."""

        def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
            return calculus.value_and_gradient(problem.value, y, *inputs)

        y, eps = start, torch.finfo(start.dtype).eps
        f, g = evaluate(y)
        norm = g.norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, norm) if wanted is None else wanted
        target = torch.maximum(wanted, _NEAR * norm) if brief else wanted
        most = min(_BRIEF, self.max_steps) if brief else self.max_steps
        finite = f.isfinite() & norm.isfinite()
        live = finite & (norm > target) & (True if live is None else live)
        steps = torch.zeros(f.shape, dtype=torch.int64, device=f.device)
        floor = torch.zeros_like(live)
        best_y, best_g, best_norm, lowest = y, g, norm, f
        since_best = torch.zeros_like(steps)
        retried = torch.zeros_like(live)
        pairs: deque[Pair] = deque(maxlen=self.history)

        going = bool((live := live & (steps < most)).any())
        while going:
            direction = -_inverse_hessian_times(g, pairs)
            downhill = (direction * g).sum(-1) < 0
            direction = torch.where(downhill.unsqueeze(-1), direction, -g)
            fresh = ~downhill if pairs else torch.ones_like(live)
            first = torch.where(fresh, (1 / g.norm(dim=-1)).clamp(max=1.0), 1.0)
            y_next, f, g_next, found = line_search(evaluate, y, f, g, direction, first, live)
            pairs.append(_pair(y_next - y, g_next - g, found))
            y, g = y_next, g_next
            steps = steps + live

            norm = g.norm(dim=-1)
            finite = torch.where(live, f.isfinite() & norm.isfinite(), finite)
            better = live & ((norm < 0.9 * best_norm) | (f < lowest - 4 * eps * lowest.abs()))
            lowest = torch.where(live, torch.minimum(f, lowest), lowest)
            improved = live & (norm < best_norm)
            best_y = torch.where(improved.unsqueeze(-1), y, best_y)
            best_g = torch.where(improved.unsqueeze(-1), g, best_g)
            best_norm = torch.where(improved, norm, best_norm)
            since_best = torch.where(better, 0, since_best + live)

            stuck = live & ~found
            doubtful = stuck | (live & (since_best >= 100) & (since_best % 50 == 0))
            retried, again = stuck | (retried & ~found), retried
            live = live & finite & (norm > target) & (steps < most)
            some, going = torch.stack([doubtful.any(), live.any()]).tolist()  # one wait for the device
            if some:
                extent = torch.maximum((best_y - start).abs(), start.abs())
                resting = at_rounding_floor(lambda z: evaluate(z)[1], best_y, best_g, extent)
                floor = floor | (doubtful & resting)
                # One fresh start along the steepest descent before giving up.
                pairs = deque((_forget(pair, stuck) for pair in pairs), maxlen=self.history)
                live = live & ~floor & ~(stuck & again) & (since_best < _PATIENCE)
                going = bool(live.any())

        done = best_norm <= wanted
        exhausted = steps >= self.max_steps
        return best_y, outcome(done, finite, floor, exhausted, best_norm, wanted, steps)


def _pair(step: Tensor, change: Tensor, valid: Tensor) -> Pair:
    """A step, its change of gradient and 1 / <step, change>; all zero where the curvature is not safely positive."""
    inner = (step * change).sum(-1)
    eps = torch.finfo(step.dtype).eps
    valid = valid & (inner > eps * step.norm(dim=-1) * change.norm(dim=-1))
    return _forget((step, change, 1 / inner), ~valid)


def _forget(pair: Pair, where: Tensor) -> Pair:
    step, change, rho = pair
    gone = where.unsqueeze(-1)
    return torch.where(gone, 0.0, step), torch.where(gone, 0.0, change), torch.where(where, 0.0, rho)


def _inverse_hessian_times(g: Tensor, pairs: deque[Pair]) -> Tensor:
    """The two-loop recursion; forgotten pairs are zero and drop out of it."""
    q, coefficients = g, []
    scale = torch.ones_like(g[..., :1])
    for step, change, rho in reversed(pairs):
        alpha = rho * (step * q).sum(-1)
        coefficients.append(alpha)
        q = q - alpha.unsqueeze(-1) * change
    for _, change, rho in pairs:  # the newest valid pair sets the scale
        curvature = rho * (change * change).sum(-1)
        scale = torch.where((rho > 0).unsqueeze(-1), (1 / curvature).unsqueeze(-1), scale)
    q = scale * q
    for (step, change, rho), alpha in zip(pairs, reversed(coefficients), strict=True):
        beta = rho * (change * q).sum(-1)
        q = q + (alpha - beta).unsqueeze(-1) * step
    return q
