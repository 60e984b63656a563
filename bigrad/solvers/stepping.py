"""Solvers made of one differentiable step."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate
from ..equation import Objective, Problem
from .progress import Progress
from .solver import Solver, residual_of

State = tuple[Tensor, ...]


class Stepping(Solver):
    """A solver whose iteration is one differentiable step, taken again and again.

    ``begin`` and ``step`` are differentiable in ``y``, the state and the inputs, and work under ``torch.func``: whoever
    takes ``certificate.steps`` of them from the same start, each problem its own number, arrives where ``solve`` does.
    """

    @property
    @abstractmethod
    def stopping(self) -> tuple[float | None, float | None, int]:
        """The solver's ``(rtol, atol, max_steps)``."""

    @abstractmethod
    def begin(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> State:
        """What the first step needs besides ``start``: tensors ``(*batch, n)``, perhaps none."""

    @abstractmethod
    def advance(self, y: Tensor, residual: Tensor, state: State) -> tuple[Tensor, State]:
        """The next ``y`` and state, from the residual at ``y``; all of them ``(*batch, n)``."""

    def step(self, problem: Problem, y: Tensor, state: State, inputs: tuple[Tensor, ...]) -> tuple[Tensor, State]:
        """One step from ``y`` ``(*batch, n)``: the next ``y`` and state."""
        return self.advance(y, problem.residual(y, *inputs), state)

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Step from ``start`` until each problem's residual is small enough.

        Returned is the last point, or where a problem stalls or leaves the finite numbers its best one.
        """
        function = residual_of(problem, inputs)

        def measure(y: Tensor) -> tuple[Tensor | None, Tensor]:
            if isinstance(problem, Objective):
                return calculus.value_and_gradient(problem.value, y, *inputs)
            return None, function(y)

        with torch.no_grad():
            y, state = start, self.begin(problem, start, inputs)
            value, residual = measure(y)
            progress = Progress(function, start, residual, self.stopping, value)
            while progress.going():
                moved, next_state = self.advance(y, residual, state)
                if not progress.whole:
                    moved = torch.where(progress.live.unsqueeze(-1), moved, progress.y)
                value, residual = measure(moved)
                progress.note(moved, residual, value)
                if not progress.smooth:  # a step lost in rounding cannot be followed by another
                    lost = (moved == y).all(-1)
                    for old, new in zip(state, next_state, strict=True):
                        lost = lost & (old == new).all(-1)
                    progress.give_up(lost)
                y, state = moved, next_state
            return progress.finish(y, residual)
