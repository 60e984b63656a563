"""Differentiation through the solver's own steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import calculus
from ..certificate import Certificate
from ..equation import Problem
from ..errors import InputError, SolveError, SolveWarning
from .detached import Tensors, detached
from .rule import GradientRule, Record, Solve, Steps, steps_of


@dataclass(frozen=True)
class Unrolled(GradientRule):
    r"""Back-propagation through the solver's steps :math:`y_{t+1} = \Phi(y_t, x)`.

    .. math:: \frac{dy_{t+1}}{dx} = \partial_y \Phi\, \frac{dy_t}{dx} + \partial_x \Phi,
        \qquad \frac{dy_{T-k}}{dx} = 0

    This is the derivative of the algorithm, for each problem of a batch over the steps that it took. It is that of the
    solution only as far as the steps have converged: the certificate tells for ``y``, and the derivative lags behind.
    With ``last=k`` the steps before the last ``k`` are constants, and the error falls as :math:`\rho^k` at the rate
    :math:`\rho` of the solver. A problem that is solved in fewer than ``k`` steps takes the missing ones from its
    answer. Derivatives of any order are those of the recorded steps. The start is a constant.

    In eager mode the memory for ``T`` recorded steps grows as :math:`\sqrt T`: the steps are taken once to be counted,
    once more for the answer and a third time in the backward pass. Under ``torch.func`` all of them are kept.
    Where a solve fails, the answer is the last point and not the solver's best one.

    Args:
        last: how many steps are differentiated; ``None`` is all of them.

    Raises:
        UnsupportedError: the solver's steps are no differentiable operations.
        SolveError: with ``last=None``, a problem was solved where it started, so that there is no step to
            differentiate.

    Source: Truncated Back-propagation for Bilevel Optimization (Shaban, Cheng, Hatch, Boots, 2019); Training Deep Nets
    with Sublinear Memory Cost (Chen, Xu, Zhang, Guestrin, 2016).

    Example:
        >>> import torch, bigrad
        >>> from bigrad.gradients import Unrolled
        >>> from bigrad.solvers import GradientDescent
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> two_steps = GradientDescent(0.25, max_steps=2)
        >>> objective = lambda y, x: y**2 - x * y
        >>> y = bigrad.argmin(objective, torch.zeros(()), x, solver=two_steps, gradient=Unrolled(), on_failure="ignore")
        >>> y.detach(), torch.autograd.grad(y, x)[0]
        (tensor(0.7500), tensor(0.3750))
    """

    last: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None and (type(self.last) is not int or self.last < 1):
            raise InputError(f"Unrolled: last is {self.last!r}; it must be an integer >= 1, or None for all steps")

    def attach(self, problem: Problem, solve: Solve, start: Tensor, inputs: Tensors, record: Record) -> Tensor:
        """Solve, and take the steps to be differentiated once more."""
        task = _Task(problem, solve, steps_of(solve, "Unrolled"), self.last, record)
        result: Tensor = _unrolled(task, start, *inputs)
        return result


@dataclass
class _Task:
    """Everything about an unrolled solve that is no tensor.

    Attributes:
        recorded: the most steps that a problem differentiates.
        idle: what to say about a problem without a step.
    """

    problem: Problem
    solve: Solve
    steps: Steps
    last: int | None
    record: Record
    recorded: int = 0
    idle: str | None = None

    def count(self, problem: Problem, own: Tensors, inputs: Tensors) -> Tensors:
        """The answer, the start, and for each problem how many steps come before the recorded ones and are recorded."""
        (start,) = own
        y, certificate = self.solve(problem, start, inputs)
        self.record.certificate = certificate
        certificate.factor = None
        certificate.enforce(self.record.on_failure)
        taken = certificate.steps
        if self.last is None:
            recorded = taken
            self.idle = _idle(certificate)
        else:
            recorded = torch.where(certificate.failed, taken.clamp(max=self.last), self.last)
        before = (taken - recorded).clamp_min(0)
        self.recorded = int(recorded.max()) if recorded.numel() else 0
        return y.clone(), start.clone(), before.to(y.device), recorded.to(y.device)

    def warm_up(self, problem: Problem, own: Tensors, inputs: Tensors) -> Tensors:
        """Where the recorded steps begin: ``y`` and the state."""
        y, before = own
        with torch.no_grad():
            state = self.steps.begin(problem, y, inputs)
            most = int(before.max()) if before.numel() else 0
            y, *rest = _Span(problem, self.steps, before, 0, most)(y, state, inputs)
        return y.clone(), *(part.clone() for part in rest)

    def without_a_step(self) -> None:
        """Act on a problem whose derivative would be zero because nothing was done.

        Raises:
            SolveError: under ``on_failure="raise"``.
        """
        if self.idle is None or self.record.on_failure == "ignore":
            return
        if self.record.on_failure == "warn":
            warnings.warn(self.idle, SolveWarning, stacklevel=4)
            return
        raise SolveError(self.idle, self.record.certificate)


def _idle(certificate: Certificate) -> str | None:
    idle = (certificate.steps == 0) & ~certificate.failed
    if not bool(idle.any()):
        return None
    return (
        f"{int(idle.sum())} of {idle.numel()} problems were solved where they started: Unrolled() has no step of "
        "theirs to differentiate, and the derivative would be zero. Remedy: Unrolled(last=k), which takes k steps from "
        "the answer, another start, or Implicit()."
    )


@dataclass(frozen=True)
class _Span:
    """The steps from ``first`` to before ``end``; problem ``i`` stands still after its ``counts[i]``-th."""

    problem: Problem
    steps: Steps
    counts: Tensor
    first: int
    end: int

    def __call__(self, y: Tensor, state: Tensors, inputs: Tensors) -> Tensors:
        """``y`` and the state at the end."""
        parts = (y, *state)
        for place in range(self.first, self.end):
            y_next, state_next = self.steps.step(self.problem, parts[0], parts[1:], inputs)
            live = place < self.counts
            parts = tuple(
                torch.where(live.reshape(live.shape + (1,) * (new.ndim - live.ndim)), new, old)
                for new, old in zip((y_next, *state_next), parts, strict=True)
            )
        return parts


@wrap_torch_function(lambda task, start, *inputs: inputs)
def _unrolled(task: _Task, start: Tensor, *inputs: Tensor) -> Tensor:
    """The unrolled solve as one operation: a function around this one finds and replaces its inputs."""
    (answer, start, before, counts), interest = detached(task.count, task.problem, (start,), inputs)
    if not (interest.forward or (interest.reverse and torch.is_grad_enabled())):
        return answer
    task.without_a_step()
    if task.last is None:
        parts = (start, *task.steps.begin(task.problem, start, inputs))
    else:
        parts, _ = detached(task.warm_up, task.problem, (start, before), inputs)
    # torch.func cannot work with what is computed again in backward, and can nest plain operations only.
    most = max(task.recorded, 1)  # a span without a step for an empty batch, so that there is a graph
    length = most if calculus.transforming() else math.isqrt(most - 1) + 1
    for first in range(0, most, length):
        span = _Span(task.problem, task.steps, counts, first, min(first + length, task.recorded))
        parts = span(parts[0], parts[1:], inputs) if calculus.transforming() else _again(span, parts, inputs)
    return parts[0]


def _again(span: _Span, parts: Tensors, inputs: Tensors) -> Tensors:
    """The parts at the end of a span whose steps are not kept but computed again in the backward pass."""
    shapes = [part.shape for part in parts]
    function = _packed(span, len(parts))
    packed: Tensor = _Segment.apply(function, *parts, *inputs)
    pieces = packed.split([shape.numel() for shape in shapes])
    return tuple(piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))


def _packed(span: _Span, count: int) -> Callable[..., Tensor]:
    """The span as a function of ``count`` parts and of the inputs, all of its results in one vector."""

    def function(*tensors: Tensor) -> Tensor:
        parts = span(tensors[0], tensors[1:count], tensors[count:])
        return torch.cat([part.reshape(-1) for part in parts])

    return function


class _Segment(torch.autograd.Function):
    """``function(*tensors)``, of which only the arguments are kept."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return function(*(tensor.detach() for tensor in tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        needed = [place for place, need in enumerate(ctx.needs_input_grad[1:]) if need]

        def of_needed(*chosen: Tensor) -> Tensor:
            full = list(tensors)
            for place, tensor in zip(needed, chosen, strict=True):
                full[place] = tensor
            result: Tensor = ctx.function(*full)
            return result

        with calculus.precise(cotangent.device):
            _, pullback = calculus.vjp(of_needed, *(tensors[place] for place in needed))
            grads = dict(zip(needed, pullback(cotangent), strict=True))
        return None, *(grads.get(place) for place in range(len(tensors)))

    @staticmethod
    def jvp(ctx: Any, _function: None, *tangents: Tensor | None) -> Tensor:
        tensors = ctx.saved_tensors
        moved = [torch.zeros_like(x) if t is None else t for x, t in zip(tensors, tangents, strict=True)]
        with calculus.precise(tensors[0].device):
            return calculus.jvp(ctx.function, tensors, moved)
