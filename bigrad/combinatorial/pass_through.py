"""The identity rule: the solver counts as plus or minus the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rule import Rule, Sample


@dataclass(frozen=True)
class PassThrough(Rule):
    r"""The gradient :math:`-g` where the oracle minimises and :math:`+g` where it maximises, through a projection of
    the cost that leaves the solution as it is.

    Attributes:
        centre: subtract the mean of each cost.
        normalise: divide each cost by its norm (after centring).
    """

    centre: bool = False
    normalise: bool = False
    remedy = "the gradient is the same for all entries of a cost, which centring takes away: set centre=False"

    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The gradient times the sign, and the transposed Jacobian of the projection."""
        if not (self.centre or self.normalise):
            return sample.sign * cotangent
        event_dims = sample.oracle.event_dims
        g, w = (part.unsqueeze(-1).flatten(-1 - event_dims) for part in (sample.sign * cotangent, sample.cost))
        if self.normalise:
            w = w - w.mean(-1, keepdim=True) if self.centre else w
            norm = w.norm(dim=-1, keepdim=True)
            scale = torch.where(norm > 0, 1 / norm, 0.0)  # a constant cost has no direction
            unit = scale * w
            g = scale * (g - unit * (unit * g).sum(-1, keepdim=True))
        if self.centre:
            g = g - g.mean(-1, keepdim=True)
        return g.reshape(cotangent.shape)
