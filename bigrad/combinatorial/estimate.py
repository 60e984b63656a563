"""An estimated gradient as an operation: it can be batched, and has no derivative itself."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import UnsupportedError


class Estimate(torch.autograd.Function):
    """A function whose first argument has a ``refusal``: what the error of a derivative says."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> None:
        raise UnsupportedError(ctx.call.refusal)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        raise UnsupportedError(ctx.call.refusal)
