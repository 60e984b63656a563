"""Explicitly unrolled descents to compare with, and problems handed to a rule without a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optree
import torch
from torch import Tensor

from bigrad.certificate import Certificate
from bigrad.equation import Problem
from bigrad.gradients import GradientRule, Record
from bigrad.layers import ArgMin
from bigrad.solvers import GradientDescent, Solver

from ..layers.cases import Case, D

# torch itself calls a deprecated function where forward mode is first used
FORWARD_MODE = "ignore:.*torch.jit.script.* is deprecated:DeprecationWarning"


def anchor(y: Tensor, x: Tensor) -> Tensor:
    """Its minimiser is ``x / 2``, and descent with step 1/4 halves the distance to it."""
    return y**2 - x * y


def outer(y: Tensor, x: Tensor) -> Tensor:
    return 0.5 * (y - 1) ** 2 + x**2 / 8


def explicit(
    case: Case, steps: int, momentum: float = 0.0, nesterov: bool = False, last: int | None = None
) -> Callable[[Tensor], Any]:
    """Descent written out, as a function of x."""

    def descend(x: Tensor) -> Any:
        batch = case.objective(case.init, x).shape
        y = optree.tree_map(lambda leaf: leaf.expand((*batch, *leaf.shape)), case.init)
        speed = optree.tree_map(torch.zeros_like, y)
        for place in range(steps):
            if last is not None and place == steps - last:
                y, speed = (optree.tree_map(torch.Tensor.detach, tree) for tree in (y, speed))
            slope = torch.func.grad(lambda y: case.objective(y, x).sum())(y)
            speed = optree.tree_map(lambda v, g: momentum * v - case.step_size * g, speed, slope)
            if nesterov:
                y = optree.tree_map(lambda y, v, g: y + momentum * v - case.step_size * g, y, speed, slope)
            else:
                y = optree.tree_map(torch.add, y, speed)
        return y

    return descend


def descending(case: Case, rule: GradientRule, steps: int, momentum: float = 0.0, nesterov: bool = False) -> ArgMin:
    """The layer of a case that takes exactly so many steps."""
    solver = GradientDescent(case.step_size, rtol=0.0, atol=0.0, max_steps=steps, momentum=momentum, nesterov=nesterov)
    return ArgMin(case.objective, case.init, solver=solver, gradient=rule, on_failure="ignore")


@dataclass(frozen=True)
class Solving:
    """A solver as what a rule is handed."""

    steps: Solver

    def __call__(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        return self.steps.solve(problem, start, inputs)


def attached(
    rule: GradientRule, problem: Problem, solve: Any, start: Tensor, *inputs: Tensor, record: Record | None = None
) -> Tensor:
    solve = Solving(solve) if isinstance(solve, Solver) else solve
    return rule.attach(problem, solve, start, inputs, Record() if record is None else record)


DESCENT = GradientDescent(0.1, rtol=0.0, atol=1e-13)
EYE = torch.eye(3, dtype=D)
