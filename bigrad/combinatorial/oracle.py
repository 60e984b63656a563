"""What a combinatorial solver is to a layer: a map from costs to the best of finitely many points."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import InputError


class Oracle(ABC):
    r"""``argmin`` of :math:`\langle c, y \rangle` over a finite set of points ``y``, or ``argmax`` where it maximises.

    The last ``event_dims`` dimensions of a cost belong to one problem, the others are a batch, which is solved in one
    call. A subclass writes :meth:`solve`, and says what costs it takes.

    Attributes:
        event_dims: dimensions of one problem's cost.
        maximise: whether the oracle maximises.
        nonnegative: whether a cost below zero is outside the domain.
    """

    event_dims: int = 1
    maximise: bool = False
    nonnegative: bool = False

    @abstractmethod
    def solve(self, cost: Tensor) -> Tensor:
        """The best points ``(B, *event)`` for costs ``(B, *event)`` that are valid; same dtype, same device."""

    def check(self, cost: Tensor) -> None:  # noqa: B027  # most oracles take every shape
        """Raise :class:`InputError` where the shape ``(*batch, *event)`` is none of this oracle's."""

    def check_count(self, cost: Tensor, count: int, each: str) -> None:
        """Raise :class:`InputError` where a problem's cost is not one number for each of ``count``."""
        if cost.shape[-1] != count:
            raise InputError(
                f"{type(self).__name__}: the cost has shape {tuple(cost.shape)}; wanted (*batch, {count}), one number "
                f"for each {each}"
            )

    def project(self, cost: Tensor) -> Tensor:
        """The nearest cost in the domain."""
        return cost.clamp_min(0) if self.nonnegative else cost

    def value(self, cost: Tensor, y: Tensor) -> Tensor:
        r"""The objective :math:`\langle c, y \rangle` of each problem, of the batch shape."""
        return (cost * y).unsqueeze(-1).flatten(-1 - self.event_dims).sum(-1)

    def __call__(self, cost: Tensor) -> Tensor:
        """The best points ``(*batch, *event)``, without derivative.

        Raises:
            InputError: the cost has the wrong shape or dtype, is not finite, or lies outside the domain.
        """
        self.validate(cost)
        cost = cost.detach()
        batch = cost.shape[: cost.ndim - self.event_dims]
        event = cost.shape[cost.ndim - self.event_dims :]
        if batch.numel() == 0:
            return torch.zeros_like(cost)
        return self.solve(cost.reshape(batch.numel(), *event)).reshape(cost.shape)

    def validate(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where the cost is none that :meth:`__call__` takes."""
        name = type(self).__name__
        if not isinstance(cost, Tensor) or cost.dtype not in (torch.float32, torch.float64):
            found = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
            raise InputError(f"{name}: the cost is {found}; wanted a tensor of float32 or float64")
        if cost.ndim < self.event_dims:
            raise InputError(
                f"{name}: the cost has shape {tuple(cost.shape)}; wanted (*batch, ...) with {self.event_dims} "
                "dimensions beyond the batch"
            )
        self.check(cost)
        cost = cost.detach()
        self.check_finite(cost)
        if self.nonnegative and bool((cost < 0).any()):
            raise InputError(
                f"{name}: the least cost is {float(cost.min()):.3g}; wanted costs >= 0: pass them through "
                "torch.nn.functional.softplus, or clamp them"
            )

    def check_finite(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where a cost is infinite or NaN, or where the sum over a problem overflows."""
        if math.isfinite(float(cost.abs().sum())):
            return  # the sum over all problems, which is cheaper
        name, sums = type(self).__name__, self.value(cost.abs(), cost.new_ones(()))
        if bool(sums.isfinite().all()):
            return
        if count := int((~cost.isfinite()).sum()):
            raise InputError(f"{name}: {count} costs are infinite or NaN; wanted finite ones")
        raise InputError(
            f"{name}: the costs of a problem, up to {float(cost.abs().max()):.3g}, add up to more than {cost.dtype} "
            "holds; divide them by the largest"
        )
