"""The argmin layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bigrad.certificate import OnFailure
from bigrad.gradients import GradientRule
from bigrad.layers.solved import Solved
from bigrad.solvers import LBFGS, ObjectiveReading, Solver


class ArgMin(Solved):
    r"""The minimiser :math:`y^*(x) = \arg\min_y f(y, x)` as a layer; see :func:`bigrad.argmin` for the arguments.

    Gradients go to the inputs, to the parameters of an objective that is an ``nn.Module``, and in eager mode to tensors
    that the objective captures.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import ArgMin
        >>> layer = ArgMin(lambda w, X, y: ((X @ w - y) ** 2).sum() + (w**2).sum(), torch.zeros(2))
        >>> X = torch.eye(2, requires_grad=True)
        >>> layer(X, torch.tensor([2.0, 4.0])).detach()
        tensor([1., 2.])
    """

    word = "objective"
    reading = ObjectiveReading
    default = LBFGS

    def __init__(
        self,
        objective: Callable[..., Tensor],
        init: Any,
        *,
        solver: Solver | Callable[..., Any] | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__(objective, init, solver, gradient, on_failure)
