"""Computations on a problem that no derivative passes through, and that ``torch.func`` can batch all the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..calculus import lead
from ..equation import Problem
from ..errors import UnsupportedError

Tensors = tuple[Tensor, ...]
Compute = Callable[[Problem, Tensors, Tensors], Tensors]


@dataclass
class Interest:
    """Who asked for a derivative of a detached computation: reverse mode, forward mode."""

    reverse: bool = False
    forward: bool = False


def detached(
    compute: Compute,
    problem: Problem,
    own: Tensors,
    inputs: Tensors,
    *,
    apart: Collection[int] = (),
    refusal: str | None = None,
) -> tuple[Tensors, Interest]:
    """``compute(problem, own, inputs)`` on plain tensors, and who wanted to differentiate it.

    Under ``vmap`` it is one call with the batch problem, so loops and comparisons in it see numbers.

    Args:
        compute: returns new tensors, each with the batch dimensions of the problem in front where ``vmap`` adds them.
        problem: what ``inputs`` are the inputs of.
        own: tensors that carry the batch dimensions of the problem.
        inputs: the inputs of the problem.
        apart: places of inputs that ``vmap`` must not share between its problems, as each has a result of its own.
        refusal: what the error of a derivative says; without it the results are constants.
    """
    call = _Call(compute, problem, len(own), frozenset(apart), refusal)
    outputs: Tensors = _Detached.apply(call, *own, *inputs)
    return outputs, call.interest


@dataclass(frozen=True)
class _Call:
    """Everything about a detached computation that is no tensor."""

    compute: Compute
    problem: Problem
    own: int
    apart: frozenset[int]
    refusal: str | None
    interest: Interest = field(default_factory=Interest)


class _Detached(torch.autograd.Function):
    @staticmethod
    def forward(call: _Call, *tensors: Tensor) -> Tensors:
        plain = tuple(tensor.detach() for tensor in tensors)
        return call.compute(call.problem, plain[: call.own], plain[call.own :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.call, ctx.outputs = inputs[0], len(output)
        ctx.call.interest.reverse |= any(ctx.needs_input_grad)
        if ctx.call.refusal is None:
            ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:
        raise UnsupportedError(ctx.call.refusal)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        ctx.call.interest.forward = True
        if ctx.call.refusal is not None:
            raise UnsupportedError(ctx.call.refusal)
        return (None,) * int(ctx.outputs)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], call: _Call, *tensors: Tensor) -> tuple[Tensors, Any]:
        dims = in_dims[1:]
        problem, inputs = side_by_side(
            call.problem, tensors[call.own :], dims[call.own :], info.batch_size, apart=call.apart
        )
        own = (lead(tensor, dim, info.batch_size) for tensor, dim in zip(tensors[: call.own], dims, strict=False))
        outputs = _Detached.apply(replace(call, problem=problem), *own, *inputs)
        return outputs, (0,) * len(outputs)


def side_by_side(
    problem: Problem, inputs: Sequence[Tensor], dims: Sequence[int | None], size: int, apart: Collection[int] = ()
) -> tuple[Problem, Tensors]:
    """The batch of problems that ``vmap`` over ``dims`` of the inputs makes, and their inputs.

    Inputs without a mapped dimension are shared, except for those in ``apart`` and the problem's companions.
    """
    flags = [
        0 if place < problem.companions or place in apart or dim is not None else None for place, dim in enumerate(dims)
    ]
    moved = (
        tensor if flag is None else lead(tensor, dim, size)
        for tensor, dim, flag in zip(inputs, dims, flags, strict=True)
    )
    return problem.vmapped(flags), tuple(moved)
