"""One-step differentiation: the derivative of one more step from the solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .. import calculus
from ..equation import Problem
from .detached import Tensors
from .once import Once, Point
from .rule import Record, Solve, Steps, steps_of


@dataclass(frozen=True)
class OneStep(Once):
    r"""The derivative of one more step :math:`\Phi` from the solution, :math:`dy^*/dx \approx \partial_x \Phi(y^*, x)`.

    Nothing is solved and the solver's path is not kept. The answer is the solution itself. The derivative leaves out
    :math:`\partial_y \Phi\, dy^*/dx`, so its relative error is the rate :math:`\rho` at which the solver converges. It
    is that of ``Unrolled(last=1)``: small for a fast solver and exact for a Newton step. Gradient descent with the step
    size :math:`\alpha` has :math:`-\alpha\, \partial_{yx} f` for :math:`-(\partial_{yy} f)^{-1} \partial_{yx} f`.

    Raises:
        UnsupportedError: the solver's steps are no differentiable operations, or a second derivative is asked for: that
            of the step is not that of the solution.

    Source: One-step differentiation of iterative algorithms (Bolte, Pauwels, Vaiter, 2023); JFB: Jacobian-Free
    Backpropagation for Implicit Networks (Wu Fung, Heaton, Li, McKenzie, Osher, Yin, 2022).

    Example:
        >>> import torch, bigrad
        >>> from bigrad.gradients import OneStep
        >>> from bigrad.solvers import GradientDescent
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> y = bigrad.argmin(
        ...     lambda y, x: y**2 - x * y, torch.zeros(()), x, solver=GradientDescent(0.25), gradient=OneStep()
        ... )
        >>> torch.autograd.grad(y, x)[0]  # the derivative of the solution is 0.5, and half of a step's error is left
        tensor(0.2500)
    """

    def check(self, problem: Problem, solve: Solve) -> None:
        """Any problem, if the solver shows its steps."""
        steps_of(solve, "OneStep")

    def pullback(
        self, point: Point, cotangent: Tensor, wanted: tuple[int, ...], solve: Solve, record: Record
    ) -> Tensors:
        """That of the step."""
        function = _step(point, wanted, steps_of(solve, "OneStep"))
        return calculus.vjp(function, *(point.inputs[place] for place in wanted))[1](cotangent)

    def pushforward(self, point: Point, tangents: Tensors, moved: tuple[int, ...], solve: Solve) -> Tensor:
        """That of the step."""
        function = _step(point, moved, steps_of(solve, "OneStep"))
        return calculus.jvp(function, [point.inputs[place] for place in moved], tangents).detach()


def _step(point: Point, places: tuple[int, ...], steps: Steps) -> Callable[..., Tensor]:
    """One step from the point, as a function of the inputs at ``places``."""

    def function(*chosen: Tensor) -> Tensor:
        inputs = point.with_inputs(places, chosen)
        state = steps.begin(point.problem, point.y, inputs)
        return steps.step(point.problem, point.y, state, inputs)[0]

    return function
