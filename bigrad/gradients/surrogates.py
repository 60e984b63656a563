"""A value whose first derivative is that of something else, and which refuses a second one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedError


def surrogate(value: Tensor, derivative_of: Tensor, scale: Tensor, *, reason: str) -> Tensor:
    """``value``, differentiated as ``scale * derivative_of``.

    For estimates that are right to first order only. A second derivative of what comes out raises.

    Args:
        value: what the result equals, any shape; it is detached.
        derivative_of: a tensor of the same shape whose derivative is taken.
        scale: factor, broadcastable to that shape; it is detached.
        reason: what the error of a second derivative says.
    """
    result: Tensor = _Surrogate.apply(value.detach(), derivative_of, scale.detach(), reason)
    return result


class _Surrogate(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, derivative_of: Tensor, scale: Tensor, reason: str) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, derivative_of, scale, ctx.reason = inputs
        ctx.save_for_backward(derivative_of, scale)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        derivative_of, scale = ctx.saved_tensors
        return None, _FirstOrder.apply(cotangent * scale, derivative_of, ctx.reason), None, None


class _FirstOrder(torch.autograd.Function):
    """Lets a cotangent through and stands, as its formal function of ``witness``, in the way of a second derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cotangent: Tensor, witness: Tensor, reason: str) -> Tensor:
        return cotangent.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.reason = inputs[2]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        raise UnsupportedError(ctx.reason)
