"""The optimizers of ``torch.optim`` as solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate
from ..equation import Objective, Problem
from ..errors import InputError, UnsupportedError
from .progress import Progress
from .solver import Solver, check_stopping

_IDLE = 10  # steps without a change of y after which none is expected


class TorchOptimizer(Solver):
    """Any ``torch.optim`` optimizer, run on each problem until its gradient norm is small enough.

    A solved problem is put back after every step and sends no gradient. An optimizer that treats its parameters as one
    vector, as ``torch.optim.LBFGS`` does, treats a whole batch as one problem.

    Args:
        factory: ``factory(parameters, **options)`` returns the optimizer: a class of ``torch.optim``, or a function.
        rtol, atol: stop a problem at gradient norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most calls of the optimizer's ``step``.
        options: what ``factory`` is given, such as ``lr``.

    Example:
        >>> import torch
        >>> from bigrad.equation import Objective
        >>> bowl = Objective(lambda y: ((y - 1) ** 2).sum(-1), batch_dims=0)
        >>> solver = TorchOptimizer(torch.optim.Adam, lr=0.1)
        >>> solver
        TorchOptimizer(Adam, lr=0.1)
        >>> solver.solve(bowl, torch.zeros(2), ())[0]
        tensor([1.0000, 1.0000])
    """

    def __init__(
        self,
        factory: Callable[..., torch.optim.Optimizer],
        *,
        rtol: float | None = None,
        atol: float | None = None,
        max_steps: int = 10_000,
        **options: Any,
    ) -> None:
        check_stopping("TorchOptimizer", rtol, atol, max_steps)
        if not callable(factory):
            raise InputError(f"TorchOptimizer: factory is {factory!r}; wanted a class such as torch.optim.Adam")
        self.factory, self.options = factory, options
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps

    def __repr__(self) -> str:
        stopping = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}
        unusual = {word: value for word, value in stopping.items() if value not in (None, 10_000)}
        words = [f"{word}={value!r}" for word, value in {**unusual, **self.options}.items()]
        return f"TorchOptimizer({', '.join([getattr(self.factory, '__name__', repr(self.factory)), *words])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TorchOptimizer) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # the options need not have one

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Minimise from ``start``; the last point is returned, or the best one where a problem stalls."""
        if not isinstance(problem, Objective):
            raise UnsupportedError(
                "TorchOptimizer minimises, and a root or a fixed point has no objective: solve it with Newton or "
                "Anderson, or minimise the squared norm of its residual"
            )

        def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
            return calculus.value_and_gradient(problem.value, y, *inputs)

        leaf = torch.nn.Parameter(start.detach().clone())
        optimizer = self.factory([leaf], **self.options)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"TorchOptimizer: factory returned {optimizer!r}; wanted a torch.optim.Optimizer")
        y = start
        value, gradient = evaluate(y)
        known: tuple[Tensor, Tensor] | None = None
        progress = Progress(lambda z: evaluate(z)[1], start, gradient, (self.rtol, self.atol, self.max_steps), value)

        def closure() -> Tensor:
            """The values of the live problems and their gradients; the first call knows them already."""
            nonlocal known
            value, gradient = evaluate(leaf.detach()) if known is None else known
            known = None
            leaf.grad = torch.where(progress.live.unsqueeze(-1), gradient, 0.0)
            return torch.where(progress.live, value, 0.0).sum()

        idle = torch.zeros_like(progress.steps)  # steps in a row that led nowhere
        while progress.going():
            known = value, gradient
            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, and its own optimizers take a tensor
            moved = torch.where(progress.live.unsqueeze(-1), leaf.detach(), y)
            with torch.no_grad():
                leaf.copy_(moved)
            idle = torch.where((moved == y).all(-1), idle + 1, 0)
            y = moved
            value, gradient = evaluate(y)
            progress.note(y, gradient, value)
            progress.give_up(idle >= _IDLE)
        return progress.finish(y, gradient)
