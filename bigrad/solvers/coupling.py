"""Whether the problems of a batch depend on each other, which nothing that is done to each on its own survives."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import calculus
from ..equation import Problem

COUPLED = (
    "the value {}means as many independent problems, but what one returns depends on the variables of another: return "
    "one number for a coupled problem (.sum()), or remove what couples them (a batch norm in training mode, a mean "
    "over the batch); an init without batch dimensions that begins with the batch's size is ambiguous under "
    "torch.func: expand it"
)


def coupled(problem: Problem, y: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    """Whether what one problem returns depends on another's variables, tried at two points.

    Weighting what they return must weight each problem's gradient by its own weight and nothing else.
    """
    function = problem.primitive
    if problem.batch_dims == 0 or y.numel() <= y.shape[-1]:
        return False
    place = torch.arange(y.numel(), device=y.device, dtype=torch.float64).reshape(y.shape)
    wiggle = ((place + 1) * 0.6180339887498949 % 1).to(y.dtype) - 0.5
    batch = y.shape[: problem.batch_dims]
    weight = 1 + torch.arange(batch.numel(), device=y.device).reshape(batch).to(y.dtype) % 3
    error = size = torch.zeros_like(weight)
    for point in (y, y + 0.1 * wiggle * y.abs().clamp_min(1.0)):
        value, pullback = calculus.linearise(lambda free: function(free, *inputs), point)
        cotangent = torch.ones_like(value) if value.shape == batch else 1 + wiggle
        side = weight.reshape(batch + (1,) * (value.ndim - len(batch)))
        expected = weight.unsqueeze(-1) * pullback(cotangent)
        error = torch.fmax(error, (pullback(side * cotangent) - expected).abs().amax(-1))
        size = torch.fmax(size, expected.abs().amax(-1))
    # At most one of the points is an optimum, where gradients are rounding error; NaN is left for the solve to tell.
    return bool((error > torch.finfo(y.dtype).eps ** 0.5 * size).any())
