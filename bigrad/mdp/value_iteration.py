"""Soft value iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..equation import Problem
from ..errors import InputError
from ..solvers import Solver
from .soft_bellman_equation import SoftBellmanEquation


@dataclass(frozen=True)
class ValueIteration(Solver):
    r"""Soft value iteration :math:`V \leftarrow T V`, a contraction by the discount in the largest entry.

    Args:
        rtol, atol: stop a problem where the largest entry of ``V - T V`` is at most ``atol + rtol * (that at zero)``;
            ``None`` is 1e-10 in float64 and 1e-5 in float32.
        max_steps: most sweeps.

    Source: Reinforcement Learning with Deep Energy-Based Policies (Haarnoja, Tang, Abbeel, Levine, 2017).

    Example:
        >>> import torch
        >>> from bigrad.mdp import ValueIteration, soft_bellman
        >>> stay = torch.ones(1, 1, 1)
        >>> soft_bellman(torch.ones(1, 1), stay, 0.5, 1.0, solver=ValueIteration()).value.round(decimals=3)
        tensor([2.])
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        check_settings(self, self.rtol, self.atol, self.max_steps)

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Sweep from ``start``."""
        equation = soft_bellman_of(problem, self)
        with torch.no_grad():
            goal = Goal.of(equation, start, inputs, self.rtol, self.atol)
            value, steps = start, torch.zeros_like(goal.wanted, dtype=torch.int64)
            fresh = equation.backup(value, *inputs)
            norm = (fresh - value).abs().amax(-1)
            live = (norm > goal.wanted) & (steps < self.max_steps)
            while bool(live.any()):
                value = torch.where(live.unsqueeze(-1), fresh, value)
                steps = steps + live
                fresh = equation.backup(value, *inputs)
                norm = (fresh - value).abs().amax(-1)
                live = live & (norm > goal.wanted) & (steps < self.max_steps) & norm.isfinite()
                live = live & (norm > goal.floor(value) / 25)
        return value, goal.certificate(value, norm, steps)


@dataclass(frozen=True)
class Goal:
    """The residual norm to reach, and what rounding leaves of it.

    Attributes:
        equation: the equation that is solved.
        inputs: what it is an equation of.
        wanted: residual norms to reach ``(*batch)``.
    """

    equation: SoftBellmanEquation
    inputs: tuple[Tensor, ...]
    wanted: Tensor

    @classmethod
    def of(
        cls,
        equation: SoftBellmanEquation,
        start: Tensor,
        inputs: tuple[Tensor, ...],
        rtol: float | None,
        atol: float | None,
    ) -> Goal:
        """The tolerance is measured at zero, wherever the search starts."""
        default = 1e-10 if start.dtype == torch.float64 else 1e-5
        absolute, relative = (default if given is None else given for given in (atol, rtol))
        first = equation.residual(torch.zeros_like(start), *inputs).abs().amax(-1)
        return cls(equation, inputs, absolute + relative * first)

    def floor(self, value: Tensor) -> Tensor:
        """A residual norm below which all may be rounding."""
        eps = torch.finfo(value.dtype).eps
        return 100 * eps * self.equation.magnitude(value, *self.inputs)

    def certificate(self, value: Tensor, norm: Tensor, steps: Tensor) -> Certificate:
        """How it ended."""
        status = torch.where(norm <= self.floor(value), int(Status.ROUNDING_FLOOR), int(Status.MAX_STEPS))
        status = torch.where(norm <= self.wanted, int(Status.CONVERGED), status)
        status = torch.where(norm.isfinite(), status, int(Status.NON_FINITE))  # any norm meets an infinite tolerance
        return Certificate("soft Bellman", status, norm, self.wanted, steps)


def check_settings(method: Solver, rtol: float | None, atol: float | None, max_steps: int) -> None:
    """Raise :class:`InputError` where a stopping rule makes no sense."""
    name = type(method).__name__
    for word, number in (("rtol", rtol), ("atol", atol)):
        if number is not None and not number >= 0:
            raise InputError(f"{name}: {word} is {number}; it must be >= 0")
    if max_steps < 0:
        raise InputError(f"{name}: max_steps is {max_steps}; it must be >= 0")


def soft_bellman_of(problem: Problem, method: Solver) -> SoftBellmanEquation:
    """``problem``, if the method solves it.

    Raises:
        InputError: it is no soft Bellman equation.
    """
    if not isinstance(problem, SoftBellmanEquation):
        raise InputError(f"{type(method).__name__} solves soft Bellman equations; this is {type(problem).__name__}")
    return problem
