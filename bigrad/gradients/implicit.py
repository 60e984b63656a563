"""Implicit differentiation: the derivative of a root, without a look at how it was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import calculus
from ..certificate import Certificate
from ..equation import Adjoint, Problem, Pullback
from ..errors import InputError, UnsupportedError
from ..linear import CG, GMRES, MINRES, Direct, Kept, LinearSolver, Operator
from .detached import side_by_side
from .rule import GradientRule, Record, Solve


@dataclass(frozen=True)
class Implicit(GradientRule):
    r"""Implicit functions: :math:`(\partial_y F)^\top u = \bar y`, then :math:`\bar x = -u^\top \partial_x F`.

    The adjoint solve is itself a root, so second and higher derivatives are right as well. Memory does not depend
    on how many steps the solver took.

    Args:
        linear_solver: solves the adjoint system. By default it is the solver's own factorisation where it left one;
            else the structure of the problem chooses: for a minimum a factorisation up to 64 unknowns and conjugate
            gradients above; for an indefinite or unsymmetric system a factorisation up to 256 unknowns, and MINRES or
            GMRES above.

    Raises (in backward):
        SolveError: the adjoint system could not be solved to its tolerance, or is indefinite or singular.

    Example:
        >>> import torch, bigrad
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = bigrad.argmin(lambda y, x: (y - x**2) ** 2, torch.zeros(()), x)
        >>> torch.autograd.grad(y, x)[0]
        tensor(6.)
    """

    linear_solver: LinearSolver | None = None

    def __post_init__(self) -> None:
        if not (self.linear_solver is None or isinstance(self.linear_solver, LinearSolver)):
            raise InputError(f"Implicit needs a linear solver such as linear.CG(), found {self.linear_solver!r}")

    def attach(
        self, problem: Problem, solve: Solve, start: Tensor, inputs: tuple[Tensor, ...], record: Record
    ) -> Tensor:
        """Solve, and differentiate by the implicit function theorem."""
        task = _Task(problem, solve, self.linear_solver, record)
        result: Tensor = _root(task, start, *inputs)
        return result


@dataclass(frozen=True)
class _Task:
    """Everything about a root that is no tensor."""

    problem: Problem
    solve: Solve
    linear_solver: LinearSolver | None
    record: Record

    def linearised(self, transposed: bool) -> _Task:
        """The linear system whose solution is a derivative of this root."""
        return replace(self, problem=Adjoint(self.problem, transposed), solve=self._solve_linear)

    def solved(self, start: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """The root, outside any differentiation; its certificate and factor are recorded."""
        y, certificate = self.solve(self.problem, start, inputs)
        record = self.record
        if not isinstance(self.problem, Adjoint):
            record.certificate = certificate
            if certificate.factor is not None:
                record.at, record.kept, certificate.factor = y, Kept(certificate.factor), None
        elif record.certificate is not None and not isinstance(self.problem.base, Adjoint):
            record.certificate.adjoint = certificate
        certificate.enforce(record.on_failure)
        return y

    def _solve_linear(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        assert isinstance(problem, Adjoint)
        target, at, *rest = inputs
        root, transposed, y, fixed = problem.root(at, *rest)

        @cache
        def graph() -> Callable[[Tensor], Tensor]:
            return root.linearised(y, *fixed, transposed=transposed)

        def written() -> Tensor:
            matrix = root.matrix(y, *fixed)
            return matrix.mT if transposed else matrix

        operator = Operator(
            lambda u: graph()(u),
            symmetric=root.symmetric,
            definite=root.definite,
            written=written,
            transposed=transposed,
            kept=self.record.factors_at(y),
        )
        warm = self.record.warm if problem.transposed and not isinstance(problem.base, Adjoint) else None
        begin = None if warm is None or warm.adjoint is None or warm.adjoint.shape != start.shape else warm.adjoint
        solver = self.linear_solver or _suitable(operator, start.shape[-1])
        u, certificate = solver.solve(operator, target.expand_as(start), begin)
        if warm is not None:
            warm.adjoint = u
        certificate.what = "adjoint solve" if problem.transposed else "tangent solve"
        return u, certificate


def _suitable(operator: Operator, size: int) -> LinearSolver:
    """The linear solver for the structure of the matrix."""
    if operator.kept.factor is not None or size <= (64 if operator.definite else 256):
        return Direct()
    if operator.definite:
        return CG()
    return MINRES() if operator.symmetric else GMRES()


class _Root(torch.autograd.Function):
    """``y(inputs)`` with ``F(y, *inputs) = 0``; the only differentiated solve there is."""

    @staticmethod
    def forward(task: _Task, start: Tensor, *inputs: Tensor) -> Tensor:
        start, *fixed = (tensor.detach() for tensor in (start, *inputs))
        with calculus.precise(start.device):
            y = task.solved(start, tuple(fixed))
        # A solver that stops at once may hand back its start: autograd wants a tensor of its own.
        return y.detach().clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.task, ctx.pullback, ctx.retained = inputs[0], None, False
        # The saved output carries its own graph: differentiating backward again is right without solving again.
        ctx.save_for_backward(output, *inputs[2:])
        ctx.save_for_forward(output, *inputs[2:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        task: _Task = ctx.task
        adjoint, start = task.linearised(transposed=True), torch.zeros_like(y)
        with calculus.precise(y.device):
            if torch.is_grad_enabled() or calculus.transforming():
                u = _Root.apply(adjoint, start, cotangent, y, *inputs)
            else:  # nobody will differentiate it: the same solve, without what apply costs
                u = adjoint.solved(start, (cotangent, y.detach(), *(tensor.detach() for tensor in inputs)))
            return None, None, *_pullback(ctx, y, inputs)(-u)

    @staticmethod
    def jvp(ctx: Any, _task: None, _start: Tensor | None, *tangents: Tensor | None) -> Tensor:
        if calculus.nested_forward_mode():
            raise UnsupportedError(
                "forward mode over forward mode through a custom function is silently wrong in this torch: "
                "use reverse mode on one side, as torch.func.hessian does (jacfwd of jacrev)"
            )
        y, *inputs = ctx.saved_tensors
        task: _Task = ctx.task
        moved = [torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True)]
        with calculus.precise(y.device):
            rate = calculus.jvp(lambda *free: task.problem.residual(y, *free), inputs, moved)
            result: Tensor = _Root.apply(task.linearised(transposed=False), torch.zeros_like(y), -rate, y, *inputs)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], task: _Task, start: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, int]:
        # A vmapped root is a batch of independent problems, which is what the solvers solve anyway.
        problem, moved = side_by_side(task.problem, inputs, in_dims[2:], info.batch_size)
        batch = replace(task, problem=problem)
        return _Root.apply(batch, calculus.lead(start, in_dims[1], info.batch_size), *moved), 0


def _pullback(ctx: Any, y: Tensor, inputs: list[Tensor]) -> Pullback:
    """From the adjoint vector to the gradients; kept from the second pass on, as then the caller retains the graph."""
    problem, needed = ctx.task.problem, ctx.needs_input_grad[2:]
    if torch.is_grad_enabled() or calculus.transforming():
        return cast(Pullback, problem.pullback(y, inputs, needed))
    if ctx.pullback is not None:
        return cast(Pullback, ctx.pullback)
    pullback: Pullback = problem.pullback(y.detach(), inputs, needed)  # y itself would hold ctx, and ctx this
    if ctx.retained:
        ctx.pullback = pullback
    ctx.retained = True
    return pullback


_Root.forward.__signature__ = signature(_Root.forward)  # type: ignore[attr-defined]  # torch asks at every call


@wrap_torch_function(lambda task, start, *inputs: inputs)
def _root(task: _Task, start: Tensor, *inputs: Tensor) -> Tensor:
    """:class:`_Root` as an operation like any other: a function around this one finds and replaces its inputs."""
    result: Tensor = _Root.apply(task, start, *inputs)
    return result
