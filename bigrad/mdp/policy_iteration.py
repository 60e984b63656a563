"""Soft policy iteration: Newton's method on the soft Bellman equation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate
from ..equation import Problem
from ..errors import InputError
from ..linear import GMRES, LU, LinearSolver, Operator
from ..solvers import Solver
from .soft_bellman_equation import SoftBellmanEquation
from .value_iteration import Goal, check_settings, soft_bellman_of

_DENSE = 512  # states up to which a step is solved by a factorisation
_AGAIN = 0.05  # what a step may leave of the residual for its factor to serve the next one as well


@dataclass(frozen=True)
class PolicyIteration(Solver):
    r"""Soft policy iteration :math:`V \leftarrow V - (I - \gamma P^\pi)^{-1} (V - T V)`, which is Newton's method.

    Each step evaluates the policy that is soft-greedy in ``V``. The values rise from the first step on, never above the
    optimum: it converges from anywhere, at last with twice the digits in each step. A few sweeps of value iteration
    come before, which cost little.

    Args:
        rtol, atol: stop a problem where the largest entry of ``V - T V`` is at most ``atol + rtol * (that at zero)``;
            ``None`` is 1e-10 in float64 and 1e-5 in float32. It goes on to rounding error where that takes a step.
        max_steps: most steps.
        linear_solver: evaluates the policies. ``None`` is a factorisation up to 512 states, which serves for several
            steps and for the backward pass, and ``GMRES`` above, as accurately as the distance to the end deserves.
        sweeps: how many sweeps of value iteration come first.

    Source: On the Convergence of Policy Iteration in Stationary Dynamic Programming (Puterman, Brumelle, 1979);
    Inexact Newton Methods (Dembo, Eisenstat, Steihaug, 1982).

    Example:
        >>> import torch
        >>> from bigrad.mdp import PolicyIteration, soft_bellman
        >>> stay = torch.ones(1, 1, 1)
        >>> soft_bellman(torch.ones(1, 1), stay, 0.5, 1.0, solver=PolicyIteration(sweeps=0)).value
        tensor([2.])
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 200
    linear_solver: LinearSolver | None = None
    sweeps: int = 3

    def __post_init__(self) -> None:
        check_settings(self, self.rtol, self.atol, self.max_steps)
        if not (self.linear_solver is None or isinstance(self.linear_solver, LinearSolver)):
            raise InputError(f"PolicyIteration: linear_solver is {self.linear_solver!r}; wanted one such as GMRES()")
        if self.sweeps < 0:
            raise InputError(f"PolicyIteration: sweeps is {self.sweeps}; it must be >= 0")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Solve from ``start``; the last factor is left in the certificate."""
        equation = soft_bellman_of(problem, self)
        with torch.no_grad():
            goal = Goal.of(equation, start, inputs, self.rtol, self.atol)
            return _Search(self, equation, inputs, goal, start).run()


class _Search:
    """One solve on its way; every number of a problem of the batch is its own."""

    def __init__(
        self,
        method: PolicyIteration,
        equation: SoftBellmanEquation,
        inputs: tuple[Tensor, ...],
        goal: Goal,
        start: Tensor,
    ) -> None:
        self.method, self.equation, self.inputs, self.goal = method, equation, inputs, goal
        self.factor: LU | None = None
        self.value = self.best = start
        self.residual = equation.residual(start, *inputs)
        self.norm = self.best_norm = self.residual.abs().amax(-1)
        self.steps = torch.zeros_like(self.norm, dtype=torch.int64)
        self.live = self.norm.isfinite() & (self.norm > 0) & (method.max_steps > 0)
        self.slow = True  # whether the last step left so much that the next one needs a matrix of its own
        self.forcing = 1e-2

    def run(self) -> tuple[Tensor, Certificate]:
        """Sweep, then step until no problem gains from it."""
        for _ in range(self.method.sweeps):
            if not bool((self.live & (self.norm > self.goal.wanted)).any()):
                break
            self._take(self.residual)
        while bool(self.live.any()):
            before = self.norm
            self._take(self._direction())
            self._force(before)
        certificate = self.goal.certificate(self.best, self.best_norm, self.steps)
        certificate.factor = self.factor
        return self.best, certificate

    def _direction(self) -> Tensor:
        """``(I - discount * P^pi)^-1 (V - T V)``."""
        solver = self.method.linear_solver
        if solver is None and self.value.shape[-1] <= _DENSE:
            if self.factor is None or self.slow:
                self.factor = LU.of(self.equation.jacobian(self.value, *self.inputs).expand(*self.value.shape, -1))
            return self.factor.solve(self.residual, transposed=False)
        operator = Operator(
            self.equation.linearised(self.value, *self.inputs, transposed=False),
            written=lambda: self.equation.matrix(self.value, *self.inputs),
        )
        if solver is None:
            solver = GMRES(rtol=self.forcing)
        return solver.solve(operator, self.residual)[0]

    def _take(self, direction: Tensor) -> None:
        """Take the step, and see which problems go on."""
        goal, before = self.goal, self.norm
        self.value = torch.where(self.live.unsqueeze(-1), self.value - direction, self.value)
        self.residual = self.equation.residual(self.value, *self.inputs)
        self.norm = self.residual.abs().amax(-1)
        self.steps = self.steps + self.live
        better = self.norm < self.best_norm
        gained = self.norm < 0.5 * self.best_norm
        self.best = torch.where(better.unsqueeze(-1), self.value, self.best)
        self.best_norm = torch.where(better, self.norm, self.best_norm)
        floor = goal.floor(self.best)
        # One step beyond the tolerance costs little and reaches rounding error.
        done = (self.best_norm <= goal.wanted) & ~gained
        done = done | ((self.best_norm <= floor) & ~better) | (self.best_norm <= floor / 10)
        self.live = self.live & self.norm.isfinite() & ~done & (self.steps < self.method.max_steps)
        self.slow = bool((self.live & (self.norm > _AGAIN * before)).any())

    def _force(self, before: Tensor) -> None:
        """How accurate the next direction has to be: as the last step was, or far more where it led nowhere."""
        ratio = float((self.norm / before)[self.live].max()) if bool(self.live.any()) else 1.0
        stuck = not ratio < 0.5
        self.forcing = max(1e-2 * self.forcing if stuck else min(1e-2, ratio**2, self.forcing), 1e-10)
