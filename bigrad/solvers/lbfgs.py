"""Limited-memory BFGS, many problems in lockstep."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate
from ..equation import Objective, Problem
from ..errors import InputError, UnsupportedError
from .line_search import line_search
from .solver import Solver, at_rounding_floor, check_stopping, outcome, tolerance

Pair = tuple[Tensor, Tensor, Tensor]

_PATIENCE = 500  # steps without a lower value or a clearly smaller gradient


@dataclass(frozen=True)
class LBFGS(Solver):
    """Limited-memory BFGS with a Wolfe line search; ``history=0`` is steepest descent.

    Args:
        rtol, atol: stop a problem at gradient norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        history: how many past steps shape the direction.

    Source: On the Limited Memory BFGS Method for Large Scale Optimization (Liu, Nocedal, 1989).
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000
    history: int = 20

    def __post_init__(self) -> None:
        check_stopping("LBFGS", self.rtol, self.atol, self.max_steps)
        if self.history < 0:
            raise InputError(f"LBFGS: history is {self.history}; it must be >= 0")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Minimise from ``start``; the point with the smallest gradient norm is returned."""
        if not isinstance(problem, Objective):
            raise UnsupportedError("LBFGS needs an objective: a root or a fixed point has none")

        def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
            return calculus.value_and_gradient(problem.value, y, *inputs)

        y, eps = start, torch.finfo(start.dtype).eps
        f, g = evaluate(y)
        norm = g.norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, norm)
        finite = f.isfinite() & norm.isfinite()
        live = finite & (norm > wanted)
        steps = torch.zeros(f.shape, dtype=torch.int64, device=f.device)
        floor = torch.zeros_like(live)
        best_y, best_g, best_norm, lowest = y, g, norm, f
        since_best = torch.zeros_like(steps)
        retried = torch.zeros_like(live)
        pairs: deque[Pair] = deque(maxlen=self.history)

        while bool((live := live & (steps < self.max_steps)).any()):
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
            if bool(doubtful.any()):
                extent = torch.maximum((best_y - start).abs(), start.abs())
                resting = at_rounding_floor(lambda z: evaluate(z)[1], best_y, best_g, extent)
                floor = floor | (doubtful & resting)
                # One fresh start along the steepest descent before giving up.
                pairs = deque((_forget(pair, stuck) for pair in pairs), maxlen=self.history)
                live = live & ~floor & ~(stuck & retried) & (since_best < _PATIENCE)
            retried = stuck | (retried & ~found)
            live = live & finite & (norm > wanted)

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
