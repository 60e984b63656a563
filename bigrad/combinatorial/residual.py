"""The residual rule: a loss of the cost whose derivative is what the solutions lack of a target."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .rule import Rule, Sample


@dataclass(frozen=True)
class Residual(Rule):
    r"""Not the points but the loss :math:`\frac1K \sum_k \langle w_k, y - Y_k \rangle` of a target ``y`` at the
    perturbed costs :math:`w_k` of an oracle that minimises (the negative for one that maximises), and its derivative
    :math:`\frac1K \sum_k \frac{\partial w_k}{\partial w} (y - Y_k)`: the points :math:`Y_k` are best, so that how they
    move with the cost makes no difference. No term is below zero.
    """

    def output(self, sample: Sample) -> Tensor:
        """The loss ``(*batch)``."""
        assert sample.target is not None
        return sample.sign * sample.inner(sample.perturbed, sample.points - sample.target).mean(0)

    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The mean residual, weighted by the slope of the noise."""
        assert sample.target is not None
        weight = sample.spread(sample.sign * cotangent)
        return weight * (sample.slope * (sample.points - sample.target)).mean(0)
