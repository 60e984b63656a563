"""The root and fixed-point layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bigrad.certificate import OnFailure
from bigrad.gradients import GradientRule
from bigrad.layers.solved import Solved
from bigrad.solvers import Anderson, MappingReading, Newton, ResidualReading, Solver


class Root(Solved):
    r"""The root :math:`F(y, x) = 0` as a layer; see :func:`bigrad.root` for the arguments.

    Gradients go to the inputs, to the parameters of a residual that is an ``nn.Module``, and in eager mode to tensors
    that the residual captures.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import Root
        >>> layer = Root(lambda y, x: y + y**3 - x, torch.zeros(3, 1), batch_dims=1)
        >>> layer(torch.tensor([[0.0], [2.0], [10.0]])).squeeze()
        tensor([0., 1., 2.])
    """

    word = "residual"
    reading = ResidualReading
    default = Newton

    def __init__(
        self,
        residual: Callable[..., Any],
        init: Any,
        *,
        batch_dims: int = 0,
        solver: Solver | Callable[..., Any] | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__(residual, init, solver, gradient, on_failure, batch_dims=batch_dims)


class FixedPoint(Solved):
    r"""The fixed point :math:`y = T(y, x)` as a layer; see :func:`bigrad.fixed_point` for the arguments.

    Gradients go to the inputs, to the parameters of a mapping that is an ``nn.Module``, and in eager mode to tensors
    that the mapping captures.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import FixedPoint
        >>> layer = FixedPoint(lambda y, x: 0.5 * y + x, torch.zeros(2))
        >>> layer(torch.tensor([1.0, 2.0]))
        tensor([2., 4.])
    """

    word = "mapping"
    reading = MappingReading
    default = Anderson

    def __init__(
        self,
        mapping: Callable[..., Any],
        init: Any,
        *,
        batch_dims: int = 0,
        solver: Solver | Callable[..., Any] | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__(mapping, init, solver, gradient, on_failure, batch_dims=batch_dims)
