"""Derivatives of functions of tensors: the one place that calls ``torch.autograd.grad`` and ``torch.func``.

In plain eager mode the retained graph of :mod:`torch.autograd` is used, which is faster than :mod:`torch.func`
and spares its slow first import; under a ``torch.func`` transform the functional form is used, which nests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Function = Callable[..., Tensor]
Pullback = Callable[[Tensor], tuple[Tensor, ...]]


def eager(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """``function``, left alone by ``torch.compile``: data-dependent loops and nested derivatives are not for it."""

    @wraps(function)
    def alone(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if "torch._dynamo" in sys.modules:  # imported by torch.compile, and slow to import
            result: Result = _excluded(function)(*args, **kwargs)
            return result
        return function(*args, **kwargs)

    return alone


@cache
def _excluded(function: Callable[..., Any]) -> Callable[..., Any]:
    excluded: Callable[..., Any] = torch.compiler.disable(function)
    return excluded


def transforming() -> bool:
    """Whether a ``torch.func`` transform is running."""
    return torch._C._are_functorch_transforms_active()


def in_transform(tensor: Tensor) -> bool:
    """Whether ``tensor`` belongs to a ``torch.func`` transform."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def nested_forward_mode() -> bool:
    """Whether forward mode runs over forward mode, which torch gets silently wrong (pytorch#197867)."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack) > 1


def vmapping() -> bool:
    """Whether ``torch.func.vmap`` is running, at any depth: under it no value can decide what happens next."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key() == torch._C._functorch.TransformType.Vmap for level in stack)


def lead(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A tensor with the dimension that vmap maps in front; one without it is repeated ``size`` times."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def precise(device: torch.device) -> AbstractContextManager[Any]:
    """Within the context, autocast lowers no precision on ``device``."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _backward(
    value: Tensor, tensors: Sequence[Tensor], cotangent: Tensor | None, *, keep: bool, create: bool = False
) -> list[Tensor]:
    """``torch.autograd.grad``, zero where ``value`` does not depend on a tensor; ``None`` is a cotangent of ones.

    With a cotangent, that function imports torch's symbolic shapes first, most of a second, and compares shapes with
    them at every call. So it is passed by where nothing listens for it.
    """
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    if cotangent is None or cotangent.shape != value.shape or torch._C._len_torch_function_stack():
        return list(
            torch.autograd.grad(
                value,
                tensors,
                cotangent,
                retain_graph=keep,
                create_graph=create,
                allow_unused=True,
                materialize_grads=True,
            )
        )
    results = torch.autograd.graph._engine_run_backward(  # as autograd.grad calls it
        (value,), (cotangent,), keep or create, create, tuple(tensors), allow_unreachable=True, accumulate_grad=False
    )
    return [
        torch.zeros_like(tensor) if result is None else result for tensor, result in zip(tensors, results, strict=True)
    ]


def value_and_gradient(function: Function, y: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The values ``(*batch)`` and the detached gradient with respect to ``y`` ``(*batch, n)``."""
    with torch.enable_grad():
        free = y.detach().requires_grad_()
        value = function(free, *inputs)
    (gradient,) = _backward(value, [free], torch.ones_like(value), keep=False)
    return value.detach(), gradient


def gradients_of(value: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar, zero where it does not depend on a tensor; nothing is accumulated anywhere."""
    return list(torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True))


def gradient(function: Function, y: Tensor, *inputs: Tensor) -> Tensor:
    """The gradient of ``function(y, *inputs).sum()`` in ``y``, itself differentiable in everything."""
    if transforming():
        slope: Tensor = torch.func.grad(lambda free: function(free, *inputs).sum())(y)
        return slope
    with torch.enable_grad():
        free = y.view_as(y) if y.requires_grad else y.detach().requires_grad_()
        value = function(free, *inputs)
        (result,) = _backward(value, [free], torch.ones_like(value), keep=True, create=True)
    return result


def vjp(function: Function, *primals: Tensor) -> tuple[Tensor, Pullback]:
    """The value of ``function(*primals)`` and the map from a cotangent to its vector-Jacobian products.

    The pullback may be called many times. Its result is differentiable where grad mode is on. Each primal counts as
    independent of the others, even where one was computed from another. Integer primals get zeros of size ().
    """
    real = [primal.is_floating_point() for primal in primals]
    if transforming():
        places = [place for place, is_real in enumerate(real) if is_real]

        def of_real(*chosen: Tensor) -> Tensor:
            full = list(primals)
            for place, tensor in zip(places, chosen, strict=True):
                full[place] = tensor
            return function(*full)

        value, back, *_ = torch.func.vjp(of_real, *(primals[place] for place in places))
        return value, lambda cotangent: _spread(real, back(cotangent))
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [
            primal
            if not is_real
            else primal.view_as(primal)
            if differentiable and primal.requires_grad
            else primal.detach().requires_grad_()
            for primal, is_real in zip(primals, real, strict=True)
        ]
        value = function(*aliases)
    wanted = [alias for alias, is_real in zip(aliases, real, strict=True) if is_real]

    def pullback(cotangent: Tensor) -> tuple[Tensor, ...]:
        if not value.requires_grad or not wanted:
            return _spread(real, [torch.zeros_like(alias) for alias in wanted])
        return _spread(
            real,
            _backward(value, wanted, cotangent, keep=True, create=torch.is_grad_enabled()),
        )

    return value if differentiable else value.detach(), pullback


def _spread(real: Sequence[bool], results: Iterable[Tensor]) -> tuple[Tensor, ...]:
    supply = iter(results)
    return tuple(next(supply) if is_real else torch.zeros(()) for is_real in real)


def jvp(function: Function, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The Jacobian-vector product, by reverse mode twice.

    Forward mode is avoided on purpose: over a custom ``autograd.Function`` it cannot be nested.
    """
    value, pullback = _differentiable_vjp(function, primals)
    probe = torch.zeros_like(value)
    # The pullback is linear in its cotangent; its transpose applied to the tangents is the product wanted.
    _, transpose = _differentiable_vjp(
        lambda cotangent: sum(
            (part * tangent).sum()
            for part, tangent in zip(pullback(cotangent), tangents, strict=True)
            if tangent.is_floating_point()
        ),
        [probe],
    )
    with torch.enable_grad():
        (result,) = transpose(torch.ones((), dtype=value.dtype, device=value.device))
    return result


def _differentiable_vjp(function: Callable[..., Any], primals: Sequence[Tensor]) -> tuple[Tensor, Pullback]:
    with torch.enable_grad():
        return vjp(function, *primals)


def linearise(function: Function, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The value ``F(y)`` and ``u -> (dF/dy)^T u`` on one retained graph, outside any differentiation."""
    with torch.enable_grad():
        free = y.detach().requires_grad_()
        value = function(free)
    if not value.requires_grad:
        return value, lambda u: torch.zeros_like(free)
    return value.detach(), lambda u: _backward(value, [free], u, keep=True)[0]


_FEW, _MANY = 8, 2**24  # rows below which a loop is as fast as vmap; most entries of one vmapped product


def jacobian(function: Function, y: Tensor) -> Tensor:
    """The matrices ``dF/dy`` ``(*batch, m, n)`` of ``F(y)`` ``(*batch, m)``, outside any differentiation."""
    value, pullback = linearise(function, y)
    size = value.shape[-1]
    if not size or not y.numel():
        return y.new_zeros(*y.shape[:-1], size, y.shape[-1])
    rows = torch.eye(size, dtype=y.dtype, device=y.device).reshape(size, *[1] * (y.ndim - 1), size)
    rows = rows.expand(size, *value.shape)
    if size > _FEW:
        with suppress(RuntimeError):  # an operation of the user's that has no rule for vmap
            many = batched(pullback, (0,))
            parts = [many(part) for part in rows.split(max(1, _MANY // y.numel()))]
            whole = parts[0] if len(parts) == 1 else torch.cat(parts)
            return whole.detach().movedim(0, -2)
    return torch.stack([pullback(row) for row in rows], -2).detach()


def call_module(module: torch.nn.Module, parameters: dict[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """Call ``module`` with other tensors as its parameters."""
    return torch.func.functional_call(module, parameters, arguments)


def batched(function: Function, in_dims: Sequence[int | None]) -> Function:
    """``torch.func.vmap`` of ``function`` over leading dimensions where ``in_dims`` is 0."""
    return torch.func.vmap(function, in_dims=tuple(in_dims), randomness="error")


def transform_level() -> int:
    """The depth of ``torch.func`` transforms that are running, 0 in eager mode."""
    top = torch._C._functorch.peek_interpreter_stack()
    return 0 if top is None else int(top.level())


def level_of(tensor: Tensor) -> int:
    """The depth of the transform that ``tensor`` belongs to, 0 for a plain tensor."""
    return max(0, int(torch._C._functorch.maybe_get_level(tensor)))
