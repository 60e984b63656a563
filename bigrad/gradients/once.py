"""Solutions that can be differentiated once: the form of the rules whose derivative is an estimate."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import calculus
from ..equation import Problem
from ..errors import UnsupportedError
from .detached import Tensors, detached, side_by_side
from .rule import GradientRule, Record, Solve


class Once(GradientRule):
    """A rule that knows the first derivative only; a second one raises :class:`UnsupportedError`."""

    def attach(self, problem: Problem, solve: Solve, start: Tensor, inputs: Tensors, record: Record) -> Tensor:
        """Solve, and let the rule say what the derivative is when it is asked for."""
        self.check(problem, solve)
        result: Tensor = _once(_Task(problem, solve, self, record), start, *inputs)
        return result

    @property
    def refusal(self) -> str:
        """What the error of a second derivative says."""
        return (
            f"{type(self).__name__} estimates first derivatives only, and a derivative of the estimate is not the "
            "second derivative of the solution: use Implicit()"
        )

    @abstractmethod
    def check(self, problem: Problem, solve: Solve) -> None:
        """Raise where the rule does not apply."""

    @abstractmethod
    def pullback(
        self, point: Point, cotangent: Tensor, wanted: tuple[int, ...], solve: Solve, record: Record
    ) -> Tensors:
        """The vector-Jacobian products of the inputs at the places ``wanted``, from plain tensors."""

    def pushforward(self, point: Point, tangents: Tensors, moved: tuple[int, ...], solve: Solve) -> Tensor:
        """The Jacobian-vector product along ``tangents`` of the inputs at the places ``moved``."""
        raise UnsupportedError(
            f"{type(self).__name__} has no forward mode: use reverse mode (torch.func.jacrev, grad), or Implicit()"
        )


@dataclass(frozen=True)
class Point:
    """A solution ``y`` ``(*batch, n)`` of a problem at its inputs, all of them plain tensors."""

    problem: Problem
    y: Tensor
    inputs: Tensors

    def with_inputs(self, places: tuple[int, ...], chosen: Tensors) -> Tensors:
        """The inputs with other tensors at some places."""
        full = list(self.inputs)
        for place, tensor in zip(places, chosen, strict=True):
            full[place] = tensor
        return tuple(full)


@dataclass(frozen=True)
class _Task:
    """Everything about a solve that is no tensor."""

    problem: Problem
    solve: Solve
    rule: Once
    record: Record


@wrap_torch_function(lambda task, start, *inputs: inputs)
def _once(task: _Task, start: Tensor, *inputs: Tensor) -> Tensor:
    """:class:`_Solution` as an operation like any other: a function around this one finds and replaces its inputs."""
    result: Tensor = _Solution.apply(task, start, *inputs)
    return result


class _Solution(torch.autograd.Function):
    """``y(inputs)``, with the first derivative that the rule gives it."""

    @staticmethod
    def forward(task: _Task, start: Tensor, *inputs: Tensor) -> Tensor:
        start, *fixed = (tensor.detach() for tensor in (start, *inputs))
        y, certificate = task.solve(task.problem, start, tuple(fixed))
        certificate.factor = None
        task.record.certificate = certificate
        certificate.enforce(task.record.on_failure)
        # A solver that stops at once may hand back its start: autograd wants a tensor of its own.
        return y.detach().clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.task = inputs[0]
        ctx.save_for_backward(output, *inputs[2:])
        ctx.save_for_forward(output, *inputs[2:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        task: _Task = ctx.task
        wanted = tuple(place for place, need in enumerate(ctx.needs_input_grad[2:]) if need)

        def compute(problem: Problem, own: Tensors, fixed: Tensors) -> Tensors:
            return task.rule.pullback(Point(problem, own[0], fixed), own[1], wanted, task.solve, task.record)

        with calculus.precise(y.device):
            found, _ = detached(
                compute, task.problem, (y, cotangent), tuple(inputs), apart=wanted, refusal=task.rule.refusal
            )
        grads = dict(zip(wanted, found, strict=True))
        return None, None, *(grads.get(place) for place in range(len(inputs)))

    @staticmethod
    def jvp(ctx: Any, _task: None, _start: Tensor | None, *tangents: Tensor | None) -> Tensor:
        task: _Task = ctx.task
        if calculus.nested_forward_mode():
            raise UnsupportedError(task.rule.refusal)
        y, *inputs = ctx.saved_tensors
        given = {place: t for place, t in enumerate(tangents) if t is not None and inputs[place].is_floating_point()}
        moved = tuple(given)

        def compute(problem: Problem, own: Tensors, fixed: Tensors) -> Tensors:
            return (task.rule.pushforward(Point(problem, own[0], fixed), own[1:], moved, task.solve),)

        with calculus.precise(y.device):
            (result,), _ = detached(
                compute, task.problem, (y, *given.values()), tuple(inputs), apart=moved, refusal=task.rule.refusal
            )
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], task: _Task, start: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, int]:
        problem, moved = side_by_side(task.problem, inputs, in_dims[2:], info.batch_size)
        batch = replace(task, problem=problem)
        return _Solution.apply(batch, calculus.lead(start, in_dims[1], info.batch_size), *moved), 0
