"""How a loss of each problem becomes one number."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..errors import InputError

Reduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str) -> Reduction:
    """Return ``reduction`` if it is one of the three, else raise :class:`InputError`."""
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f'reduction is {reduction!r}; it must be "mean", "sum" or "none"')
    return reduction  # type: ignore[return-value]  # narrowed by the test above


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """The losses ``(*batch)``, their sum or their mean."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
