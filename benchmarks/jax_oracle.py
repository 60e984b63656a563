"""Losses in jax as torch sees them: batches of gradients and products, and a full mean that can be differentiated.

benchmark_bilevel hands its solvers functions ``f(inner_var, outer_var, start, batch_size)``; see ``benchopt/``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import numpy as np
import torch
from stochastic_methods import Oracle
from torch import Tensor

Loss = Callable[..., Any]


def to_numpy(part: Tensor) -> np.ndarray:
    """What a compiled function takes at once; an array of jax costs a dispatch of its own."""
    return part.detach().numpy()


def to_torch(part: Any) -> Tensor:
    return torch.from_numpy(np.array(part))


def oracle(lower: Loss, upper: Loss, sizes: tuple[int, int], init: tuple[Any, Any]) -> Oracle:
    """The oracle of two losses over samples."""

    @partial(jax.jit, static_argnames="size")
    def products(y: jax.Array, x: jax.Array, v: jax.Array, start: int, size: int) -> Any:
        slope, pull = jax.vjp(lambda y, x: jax.grad(lower)(y, x, start=start, batch_size=size), y, x)
        return slope, *pull(v)

    @partial(jax.jit, static_argnames="size")
    def slopes(y: jax.Array, x: jax.Array, start: int, size: int) -> Any:
        return jax.grad(upper, argnums=(0, 1))(y, x, start=start, batch_size=size)

    def inner(y: Tensor, x: Tensor, v: Tensor, batch: slice) -> tuple[Tensor, Tensor, Tensor]:
        first, second, third = products(to_numpy(y), to_numpy(x), to_numpy(v), batch.start, batch.stop - batch.start)
        return to_torch(first), to_torch(second), to_torch(third)

    def outer(y: Tensor, x: Tensor, batch: slice) -> tuple[Tensor, Tensor]:
        first, second = slopes(to_numpy(y), to_numpy(x), batch.start, batch.stop - batch.start)
        return to_torch(first), to_torch(second)

    return Oracle(inner, outer, sizes, (to_torch(init[0]), to_torch(init[1])))


@cache
def slope_of(f: Loss) -> Loss:
    return jax.jit(jax.grad(f, argnums=(0, 1)))


@cache
def products_of(f: Loss) -> Loss:
    """Of a point and a vector: the Hessian times the vector."""

    def products(y: jax.Array, x: jax.Array, below: jax.Array, above: jax.Array) -> Any:
        return jax.vjp(jax.grad(f, argnums=(0, 1)), y, x)[1]((below, above))

    return jax.jit(products)


class Value(torch.autograd.Function):
    """``f(y, x)``, differentiable twice."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, f: Loss) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.f = f
        return to_torch(f(to_numpy(y), to_numpy(x)))

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None]:
        below, above = Slope.apply(*ctx.saved_tensors, ctx.f)
        return cotangent * below, cotangent * above, None


class Slope(torch.autograd.Function):
    """Its gradient."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, f: Loss) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(y, x)
        ctx.f = f
        below, above = slope_of(f)(to_numpy(y), to_numpy(x))
        return to_torch(below), to_torch(above)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, below: Tensor, above: Tensor) -> tuple[Tensor, Tensor, None]:
        y, x = ctx.saved_tensors
        first, second = products_of(ctx.f)(to_numpy(y), to_numpy(x), to_numpy(below), to_numpy(above))
        return to_torch(first), to_torch(second), None
