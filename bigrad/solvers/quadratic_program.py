"""The function door of the quadratic program layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, OnFailure, check_on_failure
from ..errors import InputError, UnsupportedError
from ..gradients import GradientRule, Implicit, Record
from ..linear import Direct
from .interior_point import InteriorPoint
from .kkt import QuadraticKKT

_NAMES = ("Q", "q", "A", "b", "G", "h")
_EVENTS = (2, 1, 2, 1, 2, 1)  # dimensions beyond the batch
_HALF = (torch.float16, torch.bfloat16)


def solve_quadratic_program(
    Q: Tensor,
    q: Tensor,
    A: Tensor | None = None,
    b: Tensor | None = None,
    G: Tensor | None = None,
    h: Tensor | None = None,
    *,
    solver: InteriorPoint | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
) -> tuple[Tensor, Certificate | None]:
    """``y`` ``(*batch, n)``, and the certificate (``None`` under ``torch.func`` and ``torch.compile``).

    See :class:`bigrad.layers.QuadraticProgram` for formula, shapes, derivatives and errors.
    """
    inputs = _aligned(Q, q, A, b, G, h)
    check_on_failure(on_failure)
    solver = InteriorPoint() if solver is None else solver
    if not isinstance(solver, InteriorPoint):
        raise InputError(f"solver is {solver!r}; wanted solvers.InteriorPoint()")
    n = q.shape[-1]
    if torch.compiler.is_compiling():
        if gradient is not None:
            raise UnsupportedError("under torch.compile the derivative is the built-in one: leave gradient out")
        from .compiled_program import compiled_program  # registering operations takes long, and few need them

        return compiled_program(inputs, solver, on_failure)[..., :n], None
    rule = Implicit(Direct()) if gradient is None else gradient
    if not isinstance(rule, GradientRule):
        raise InputError(f"gradient is {rule!r}; wanted one of bigrad.gradients, such as gradients.Implicit()")
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - events] for x, events in zip(inputs, _EVENTS, strict=True)))
    record = Record(on_failure)
    start = inputs[1].new_zeros((*batch, n + inputs[3].shape[-1] + inputs[5].shape[-1]))
    point = rule.attach(QuadraticKKT(len(batch), solver.compiled), solver.solve, start, inputs, record)
    return point[..., :n], None if calculus.transforming() else record.certificate


def _aligned(
    Q: Tensor, q: Tensor, A: Tensor | None, b: Tensor | None, G: Tensor | None, h: Tensor | None
) -> tuple[Tensor, ...]:
    """The six inputs, empty where not given, with batch dimensions that line up from the right."""
    given = [(name, x) for name, x in zip(_NAMES, (Q, q, A, b, G, h), strict=True) if x is not None]
    for name, x in given:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"{name} is {found}; wanted a real floating-point tensor")
    for matrix, level, names in ((A, b, "A and b"), (G, h, "G and h")):
        if (matrix is None) != (level is None):
            raise InputError(f"{names} go together: give both, or neither")
    given = [(name, _raised(x)) for name, x in given]
    tensors = dict(given)
    for name, x in given:
        if x.dtype in _HALF:
            raise InputError(f"{name} is {x.dtype}; wanted float32 or float64: convert with .float(), or use autocast")
        if x.dtype != tensors["Q"].dtype:
            raise InputError(f"{name} is {x.dtype} and Q is {tensors['Q'].dtype}: convert one with .to()")
        if x.device != tensors["Q"].device:
            raise InputError(f"{name} is on {x.device} and Q on {tensors['Q'].device}: move one with .to()")
        if x.device.type == "meta":
            raise InputError(f"{name} is on the meta device, which holds no numbers: give it some with .to_empty()")
    n = q.shape[-1] if q.ndim else 0
    if n == 0:
        raise InputError(f"q has shape {tuple(q.shape)}; wanted (*batch, n) with at least one variable")
    for left, right in (("A", "b"), ("G", "h")):
        if left not in tensors:
            tensors[left], tensors[right] = tensors["q"].new_zeros((0, n)), tensors["q"].new_zeros((0,))
    for name, rows in (("Q", n), ("A", _last(tensors["b"])), ("G", _last(tensors["h"]))):
        x = tensors[name]
        if x.ndim < 2 or tuple(x.shape[-2:]) != (rows, n):
            beside = "q" if name == "Q" else "b" if name == "A" else "h"
            raise InputError(
                f"{name} has shape {tuple(x.shape)}; with q of {tuple(q.shape)} and {beside} of "
                f"{tuple(tensors[beside].shape)} it must end with {(rows, n)}"
            )
    inputs = [tensors[name] for name in _NAMES]
    rank = max(x.ndim - events for x, events in zip(inputs, _EVENTS, strict=True))
    try:
        torch.broadcast_shapes(*(x.shape[: x.ndim - events] for x, events in zip(inputs, _EVENTS, strict=True)))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(_NAMES, inputs, strict=True))
        raise InputError(f"the batch dimensions differ: {shapes}; wanted ones that broadcast") from error
    return tuple(
        x.reshape((1,) * (rank - x.ndim + events) + x.shape) for x, events in zip(inputs, _EVENTS, strict=True)
    )


def _raised(x: Tensor) -> Tensor:
    """Half precision under autocast is solved in float32."""
    if x.dtype in _HALF and x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        return x.float()
    return x


def _last(level: Tensor) -> int:
    return level.shape[-1] if level.ndim else -1
