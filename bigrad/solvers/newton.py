"""Newton's method for minima and for roots, many problems in lockstep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, Status
from ..equation import Objective, Problem
from ..errors import InputError
from ..linear import CG, GMRES, LU, MINRES, Direct, LinearSolver, Operator
from .backtracking import backtrack
from .curvature import Curvature
from .line_search import line_search
from .solver import Solver, at_rounding_floor, check_stopping, outcome, residual_of, tolerance

_DENSE, _ENTRIES = 256, 2**24  # unknowns, and entries of a batch of matrices, up to which they are written down
_LOOK, _PATIENCE = 10, 100  # steps without progress before a look at the rounding floor, and before giving up


@dataclass(frozen=True)
class Newton(Solver):
    r"""Newton's method: :math:`y \leftarrow y - t\, (\partial_y F)^{-1} F(y)` with a step length ``t``.

    An objective is minimised: where the Hessian is not positive definite its eigenvalues count by their size, the step
    length meets the Wolfe conditions, and a saddle or a maximum is left along its most negative curvature, or reported
    as ``INDEFINITE``. Of any other problem a root is found, by steps that make the residual smaller.

    Args:
        rtol, atol: stop a problem at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        linear_solver: solves for the direction. ``None`` is ``linear.Direct()`` up to 256 unknowns; above, where the
            matrix is too large to write down, ``CG`` for an objective, ``MINRES`` for other symmetric problems and
            ``GMRES`` for the rest, each as accurately as the distance to the solution deserves. Without a matrix a
            saddle is left as soon as the iteration is not exactly on it, but not recognised.

    Source: Numerical Optimization, chapters 3, 7 and 11 (Nocedal, Wright, 2006); Identifying and attacking the saddle
    point problem in high-dimensional non-convex optimization (Dauphin et al., 2014).

    Example:
        >>> import torch
        >>> from bigrad.equation import Equation
        >>> y, certificate = Newton().solve(Equation(lambda y: y**2 - 2, 0), torch.ones(1, dtype=torch.float64), ())
        >>> y
        tensor([1.4142], dtype=torch.float64)
        >>> int(certificate.steps)
        4
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 1_000
    linear_solver: LinearSolver | None = None

    def __post_init__(self) -> None:
        check_stopping("Newton", self.rtol, self.atol, self.max_steps)
        if not (self.linear_solver is None or isinstance(self.linear_solver, LinearSolver)):
            raise InputError(
                f"Newton: linear_solver is {self.linear_solver!r}; wanted a linear solver such as linear.CG()"
            )

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Solve from ``start``; a factor of the last matrix is left in the certificate."""
        if isinstance(problem, Objective):
            return self.minimise(problem, start, inputs)
        return self._find_root(problem, start, inputs)

    def minimise(
        self, problem: Objective, start: Tensor, inputs: tuple[Tensor, ...], wanted: Tensor | None = None
    ) -> tuple[Tensor, Certificate]:
        """Minimise from ``start`` to gradient norms ``wanted`` ``(*batch)``, or to those that the tolerances give."""

        def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
            return calculus.value_and_gradient(problem.value, y, *inputs)

        solver = self.linear_solver or _suitable(problem, start)
        eps = torch.finfo(start.dtype).eps
        y, (f, g) = start, evaluate(start)
        norm = first_norm = g.norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, norm) if wanted is None else wanted
        finite = f.isfinite() & norm.isfinite()
        ended, floor, retried, saddle = (torch.zeros_like(finite) for _ in range(4))
        steps = torch.zeros(f.shape, dtype=torch.int64, device=f.device)
        since_better = torch.zeros_like(steps)
        best_y, best_f, best_g, best_norm = y, f, g, norm
        curvature: Curvature | None = None
        while True:
            running = finite & ~ended
            if isinstance(solver, Direct):
                curvature = Curvature.of(problem.matrix(y, *inputs), solver.damping)
                saddle = curvature.saddle & finite & (norm <= wanted)
            live = running & ((norm > wanted) | saddle) & (steps < self.max_steps)
            if not bool(live.any()):
                break
            if curvature is not None:
                direction = curvature.direction(g)
            else:
                direction, _ = _linear_solve(self.linear_solver, solver, problem, y, inputs, g, live, norm / first_norm)
            downhill = direction.isfinite().all(-1) & ((direction * g).sum(-1) < 0) & ~retried
            direction = torch.where(downhill.unsqueeze(-1), direction, -g)
            first = torch.where(downhill, 1.0, (1 / g.norm(dim=-1)).clamp(max=1.0))
            if curvature is not None:
                direction = torch.where(saddle.unsqueeze(-1), curvature.escape(g), direction)
                first = torch.where(saddle, 0.1 * y.abs().sum(-1).clamp_min(1.0), first)
            y, f, g, found = line_search(evaluate, y, f, g, direction, first, live)
            steps = steps + live

            norm = g.norm(dim=-1)
            finite = torch.where(live, f.isfinite() & norm.isfinite(), finite)
            better = live & ((norm < 0.9 * best_norm) | (f < best_f - 4 * eps * best_f.abs()) | (saddle & found))
            slack = eps**0.5 * best_f.abs()
            kept = live & ((f < best_f - slack) | ((norm < best_norm) & (f <= best_f + slack)) | (saddle & found))
            best_y, best_g = (torch.where(kept.unsqueeze(-1), new, old) for new, old in ((y, best_y), (g, best_g)))
            best_f, best_norm = torch.where(kept, f, best_f), torch.where(kept, norm, best_norm)
            since_better = torch.where(better, 0, since_better + live)

            stuck = live & ~found
            doubtful = stuck | (live & (since_better > 0) & (since_better % _LOOK == 0))
            if bool(doubtful.any()):
                extent = torch.maximum((best_y - start).abs(), start.abs())
                resting = at_rounding_floor(lambda z: evaluate(z)[1], best_y, best_g, extent)
                floor = floor | (doubtful & resting & (best_norm > wanted))
                ended = ended | floor | (stuck & (retried | saddle)) | (since_better >= _PATIENCE)
            retried = stuck | (retried & ~found)
        done = (best_norm <= wanted) & ~saddle
        sound = curvature is not None and not bool(curvature.factor.defective.any())
        last_y = best_y
        if self.max_steps and bool((done & (best_norm > 0)).any()):
            if curvature is None:
                step, _ = _linear_solve(
                    self.linear_solver, solver, problem, best_y, inputs, best_g, done, best_norm * 0
                )
            else:
                step = -curvature.factor.solve(best_g, transposed=False)
            last_y, best_norm = _corrected(lambda z: evaluate(z)[1], best_y, best_norm, step, done)
        certificate = outcome(done, finite, floor & ~saddle, steps >= self.max_steps, best_norm, wanted, steps)
        if curvature is not None:
            certificate.status[saddle.cpu()] = int(Status.INDEFINITE)
        if curvature is not None and sound:
            certificate.factor = replace(curvature.factor, exact=bool((last_y == y).all()))
        return last_y, certificate

    def _find_root(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        function = residual_of(problem, inputs)
        solver = self.linear_solver or _suitable(problem, start)
        y, F = start, function(start)
        norm = first_norm = F.norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, norm)
        finite = norm.isfinite()
        live = finite & (norm > wanted)
        steps = torch.zeros(norm.shape, dtype=torch.int64, device=norm.device)
        retried, floor = torch.zeros_like(live), torch.zeros_like(live)
        factor: LU | None = None
        while bool((live := live & (steps < self.max_steps)).any()):
            if isinstance(solver, Direct):
                matrix = problem.matrix(y, *inputs)
                if solver.damping:
                    matrix = matrix + solver.damping * torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
                factor = LU.of(matrix, damping=solver.damping)
                direction, good = -factor.solve(F, transposed=False), ~factor.defective
            else:
                direction, left = _linear_solve(
                    self.linear_solver, solver, problem, y, inputs, F, live, norm / first_norm
                )
                good = left < 0.9 * norm
            doubted = live & (retried | ~good | ~direction.isfinite().all(-1))
            if bool(doubted.any()):
                direction = torch.where(doubted.unsqueeze(-1), _steepest(problem, y, inputs, F), direction)
            y, F, found = backtrack(function, y, F, direction, live)
            steps = steps + live
            norm = F.norm(dim=-1)
            stuck = live & ~found
            if bool(stuck.any()):
                extent = torch.maximum((y - start).abs(), start.abs())
                floor = floor | (stuck & at_rounding_floor(function, y, F, extent))
                live = live & ~floor & ~(stuck & doubted)
            retried = stuck
            live = live & (norm > wanted)
        done = norm <= wanted
        if factor is not None and not bool(factor.defective.any()):
            y, norm = _corrected(function, y, norm, -factor.solve(F, transposed=False), done)
        else:
            factor = None
        certificate = outcome(done, finite, floor, steps >= self.max_steps, norm, wanted, steps)
        certificate.factor = factor
        return y, certificate


def _corrected(
    residual: Callable[[Tensor], Tensor], y: Tensor, norm: Tensor, step: Tensor, where: Tensor
) -> tuple[Tensor, Tensor]:
    """One more step of the converged problems, and the residual norms.

    A small residual of an ill-conditioned problem does not make a small error of ``y``; Newton's step does.
    """
    trial = torch.where((where & step.isfinite().all(-1)).unsqueeze(-1), y + step, y)
    trial_norm = residual(trial).norm(dim=-1)
    better = trial_norm < norm
    return torch.where(better.unsqueeze(-1), trial, y), torch.where(better, trial_norm, norm)


def _suitable(problem: Problem, y: Tensor) -> LinearSolver:
    if y.shape[-1] <= _DENSE and y.numel() * y.shape[-1] <= _ENTRIES:
        return Direct()
    return CG() if problem.definite else MINRES() if problem.symmetric else GMRES()


def _linear_solve(
    given: LinearSolver | None,
    solver: LinearSolver,
    problem: Problem,
    y: Tensor,
    inputs: tuple[Tensor, ...],
    F: Tensor,
    live: Tensor,
    progress: Tensor,
) -> tuple[Tensor, Tensor]:
    """The direction from products alone, and the norm that it leaves of the linear residual.

    A solver of our own choice is asked for no more accuracy than the problem that is nearest to its solution needs.
    """
    product, matrix = problem.linearised(y, *inputs, transposed=False), problem.jacobian(y, *inputs)
    operator = Operator(product, problem.symmetric, problem.definite, matrix)
    if given is None and isinstance(solver, (CG, MINRES, GMRES)):
        nearest = float(torch.where(live, progress, 1.0).amin())
        solver = replace(solver, rtol=min(0.1, max(nearest, torch.finfo(y.dtype).eps) ** 0.5))
    direction, certificate = solver.solve(operator, torch.where(live.unsqueeze(-1), -F, 0.0))
    return direction, certificate.stationarity.to(y.device)


def _steepest(problem: Problem, y: Tensor, inputs: tuple[Tensor, ...], F: Tensor) -> Tensor:
    """Down the gradient of ``|F|^2``, to the minimum of the linear model."""
    g = problem.linearised(y, *inputs, transposed=True)(F)
    Jg = problem.linearised(y, *inputs, transposed=False)(g)
    length = g.square().sum(-1, keepdim=True) / Jg.square().sum(-1, keepdim=True)
    return -torch.where(length.isfinite(), length, 1.0) * g
