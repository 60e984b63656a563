"""A user's own solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..certificate import Certificate
from ..equation import Problem
from ..errors import UnsupportedError
from .solver import Solver, check_stopping, outcome, tolerance


@dataclass(frozen=True)
class Custom(Solver):
    """A function of yours that solves the problem; its answer is checked before it is differentiated.

    Args:
        function: ``function(init, *inputs) -> y`` in your own shapes; it may use anything, NumPy or another program.
            Under ``torch.func.vmap`` it is called once for each problem.
        rtol, atol: the residual norm its answer must have, ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in
            float64 and 1e-5 in float32.

    Example:
        >>> import torch, bigrad
        >>> from bigrad.solvers import Custom
        >>> t = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> nearest = Custom(lambda init, t: t.clone())
        >>> y = bigrad.argmin(lambda y, t: ((y - t) ** 2).sum(), torch.zeros(2), t, solver=nearest)
        >>> torch.autograd.grad(y.sum(), t)[0]
        tensor([1., 1.])
    """

    function: Callable[..., Any]
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        check_stopping("Custom", self.rtol, self.atol, 1)

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """The function speaks in the user's shapes, so it is called through a layer or a function door only."""
        raise UnsupportedError("Custom solves a user's problem: hand it to a layer, or to bigrad.argmin")

    def judge(self, problem: Problem, start: Tensor, y: Tensor, inputs: tuple[Tensor, ...]) -> Certificate:
        """The certificate of an answer ``y``."""
        norm = problem.residual(y, *inputs).detach().norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, problem.residual(start, *inputs).detach().norm(dim=-1))
        nowhere = torch.zeros_like(norm, dtype=torch.bool)
        finite = norm.isfinite() & wanted.isfinite()
        steps = torch.ones(norm.shape, dtype=torch.int64, device=norm.device)
        return outcome(norm <= wanted, finite, nowhere, nowhere, norm, wanted, steps)
