"""The quadratic program as an operation that torch.compile takes as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import calculus
from ..linear import Direct, Kept, Operator
from .interior_point import InteriorPoint
from .kkt import QuadraticKKT, bilinear, masked


def compiled_program(inputs: tuple[Tensor, ...], solver: InteriorPoint, on_failure: str) -> Tensor:
    """The KKT point ``(*batch, n + p + m)`` for aligned inputs; derivatives of every order in eager backends."""
    result: Tensor = _solution(*inputs, solver.rtol, solver.atol, solver.max_steps, on_failure)
    return result


@torch.library.custom_op(
    "bigrad::quadratic_program",
    mutates_args=(),
    schema="(Tensor Q, Tensor q, Tensor A, Tensor b, Tensor G, Tensor h, float? rtol, float? atol, int max_steps, "
    "str on_failure) -> Tensor",
)
def _solution(
    Q: Tensor,
    q: Tensor,
    A: Tensor,
    b: Tensor,
    G: Tensor,
    h: Tensor,
    rtol: float | None,
    atol: float | None,
    max_steps: int,
    on_failure: Any,
) -> Tensor:
    """The point where the conditions of optimality hold."""
    inputs = (Q, q, A, b, G, h)
    start = _like(inputs)
    with calculus.precise(q.device):
        point, certificate = InteriorPoint(rtol, atol, max_steps).solve(QuadraticKKT(start.ndim - 1), start, inputs)
    certificate.enforce(on_failure)
    return point


@torch.library.custom_op(
    "bigrad::quadratic_program_adjoint",
    mutates_args=(),
    schema="(Tensor g, Tensor s, Tensor Q, Tensor A, Tensor G, Tensor h, str on_failure) -> Tensor",
)
def _adjoint(g: Tensor, s: Tensor, Q: Tensor, A: Tensor, G: Tensor, h: Tensor, on_failure: Any) -> Tensor:
    """``K(s)^-1 g``, where ``K`` is the symmetric Jacobian of the conditions at the point ``s``."""
    problem = QuadraticKKT(s.ndim - 1)
    inputs = (Q, s.new_zeros(Q.shape[:-1]), A, s.new_zeros(A.shape[:-1]), G, h)
    with calculus.precise(s.device):
        product = problem.linearised(s, *inputs, transposed=True)
        kept = Kept(InteriorPoint.factor_at(problem, s, inputs))
        u, certificate = Direct().solve(Operator(product, symmetric=True, kept=kept), g)
    certificate.what = "adjoint solve"
    certificate.enforce(on_failure)
    return u


def _like(inputs: tuple[Tensor, ...]) -> Tensor:
    """An empty tensor of the shape of the KKT point."""
    q, b, h = inputs[1], inputs[3], inputs[5]
    batch = torch.broadcast_shapes(*(x.shape[:-2] for x in inputs[::2]), *(x.shape[:-1] for x in (q, b, h)))
    return q.new_zeros((*batch, q.shape[-1] + b.shape[-1] + h.shape[-1]))


@_solution.register_fake
def _(
    Q: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor, rtol: Any, atol: Any, max_steps: Any, mode: Any
) -> Tensor:
    return _like((Q, q, A, b, G, h))


@_adjoint.register_fake
def _(g: Tensor, s: Tensor, Q: Tensor, A: Tensor, G: Tensor, h: Tensor, mode: Any) -> Tensor:
    return torch.empty_like(s)


def _keep_solution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    Q, q, A, b, G, h, *_, ctx.on_failure = inputs
    ctx.shapes = q.shape, b.shape, h.shape
    ctx.save_for_backward(output, Q, A, G, h)


def _solution_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    s, Q, A, G, h = ctx.saved_tensors
    u = _adjoint(cotangent, s, Q, A, G, h, ctx.on_failure)
    active = QuadraticKKT(s.ndim - 1).active(s, A, G, h)
    parts = zip(masked(u, active, A), ctx.shapes, strict=True)
    of_q, of_b, of_h = (part.sum_to_size(shape) for part, shape in parts)
    of_Q, of_A, of_G = bilinear(-u, s, active, (Q, A, G))
    return of_Q, -of_q, of_A, of_b, of_G, of_h, None, None, None, None


def _keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, s, Q, A, G, h, ctx.on_failure = inputs
    ctx.save_for_backward(output, s, Q, A, G, h)


def _adjoint_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    u, s, Q, A, G, h = ctx.saved_tensors
    v = _adjoint(cotangent, s, Q, A, G, h, ctx.on_failure)
    active = QuadraticKKT(s.ndim - 1).active(s, A, G, h)
    of_Q, of_A, of_G = bilinear(-u, v, active, (Q, A, G))
    return v, None, of_Q, of_A, of_G, None, None


_solution.register_autograd(_solution_backward, setup_context=_keep_solution)
_adjoint.register_autograd(_adjoint_backward, setup_context=_keep_adjoint)
