"""What crosses the border to a solver that is no torch program: values in, answers out, and no second derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UnsupportedError
from ..gradients import surrogate


def inward(value: Tensor, batch_dims: int, symmetric: bool, owner: str) -> Tensor:
    """A value in float64 on the CPU with at most one batch dimension; what is differentiated twice in it raises."""
    reason = f"{owner} has no second derivatives: write a smooth objective and use bigrad.argmin"
    try:
        once = surrogate(value.detach(), value, value.new_ones(()), reason=reason)
    except NotImplementedError as error:  # what torch says of forward mode
        raise UnsupportedError(f"{owner} has no forward mode: call backward") from error
    inside = (once.flatten(0, batch_dims - 1) if batch_dims else once).cpu().double()
    return (inside + inside.mT) / 2 if symmetric else inside


def sealed(function: Callable[[list[Tensor]], Sequence[Tensor]], values: Sequence[Tensor]) -> list[Tensor]:
    """``function(values)``, of which the gradients depend on the cotangent in autograd's eyes too.

    A backward that cuts the graph would hide it, and a second derivative there would be a silent zero. With the values
    from :func:`inward` it raises.
    """
    joined = torch.cat([value.reshape(-1) for value in values])
    pieces = joined.split([value.numel() for value in values])
    answers = function([piece.reshape(value.shape) for piece, value in zip(pieces, values, strict=True)])
    together = torch.cat([answer.reshape(-1) for answer in answers])
    if together.requires_grad:
        noted: list[Tensor] = []

        def tie(gradient: Tensor) -> Tensor:
            if not noted:
                return gradient
            link = noted.pop().sum()
            return gradient.detach() + torch.where(torch.zeros_like(link).bool(), link, 0.0)

        together.register_hook(lambda cotangent: noted.append(cotangent) if cotangent.requires_grad else None)
        joined.register_hook(tie)
    parts = together.split([answer.numel() for answer in answers])
    return [part.reshape(answer.shape) for part, answer in zip(parts, answers, strict=True)]
