"""Gradient descent with a fixed step, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..equation import Problem
from ..errors import InputError
from .solver import check_stopping
from .stepping import State, Stepping


@dataclass(frozen=True)
class GradientDescent(Stepping):
    r"""Gradient descent :math:`v \leftarrow \mu v - \alpha F(y),\; y \leftarrow y + v`.

    Each problem of a batch goes on until its own gradient norm is small enough.

    Args:
        step_size: step length :math:`\alpha`; on a quadratic convergence needs less than :math:`2 (1 + \mu)` over the
            largest curvature.
        rtol, atol: stop a problem at gradient norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        momentum: :math:`\mu` of the heavy ball, at least 0 and below 1.
        nesterov: measure the gradient where the momentum leads, as :class:`torch.optim.SGD` does.

    Source: Some methods of speeding up the convergence of iteration methods (Polyak, 1964).

    Example:
        >>> import torch
        >>> from bigrad.equation import Objective
        >>> bowl = Objective(lambda y: (y**2).sum(-1) / 2 - y.sum(-1), batch_dims=0)
        >>> GradientDescent(0.5, momentum=0.1).solve(bowl, torch.zeros(2), ())[0]
        tensor([1.0000, 1.0000])
    """

    step_size: float
    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_stopping("GradientDescent", self.rtol, self.atol, self.max_steps)
        if not 0 < self.step_size < float("inf"):
            raise InputError(f"GradientDescent: step_size is {self.step_size}; it must be positive and finite")
        if not 0 <= self.momentum < 1:
            raise InputError(f"GradientDescent: momentum is {self.momentum}; it must be at least 0 and below 1")

    @property
    def stopping(self) -> tuple[float | None, float | None, int]:
        """``(rtol, atol, max_steps)``."""
        return self.rtol, self.atol, self.max_steps

    def begin(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> State:
        """A ball at rest."""
        return (torch.zeros_like(start),) if self.momentum else ()

    def advance(self, y: Tensor, residual: Tensor, state: State) -> tuple[Tensor, State]:
        """One step down the residual."""
        if not state:
            return y - self.step_size * residual, ()
        velocity = self.momentum * state[0] - self.step_size * residual
        if self.nesterov:
            return y + self.momentum * velocity - self.step_size * residual, (velocity,)
        return y + velocity, (velocity,)
