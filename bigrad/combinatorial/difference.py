"""The difference rule: perturb the cost along the gradient, solve again, take the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .rule import Rule, Sample
from .step import RelativeStep, Step, check_step, step_sizes


@dataclass(frozen=True)
class Difference(Rule):
    r"""The difference quotient :math:`\frac1K \sum_k \bigl(S(w_k + \lambda g) - S(w_k)\bigr) / \lambda` of an oracle
    that minimises (one that maximises is moved by :math:`-\lambda g`), with the same noise on both sides.

    It is the exact derivative of a piecewise affine interpolation of the linearised loss, and that of the mean solution
    as the step goes to zero.

    Attributes:
        step: :math:`\lambda`: a number, or a :class:`RelativeStep` for each problem its own.
        two_sided: :math:`\bigl(S(w_k + \lambda g) - S(w_k - \lambda g)\bigr) / 2 \lambda` instead, for another ``K``
            solves: less bias and, with noise, less variance.

    Source: Differentiation of Blackbox Combinatorial Solvers (Pogancic, Paulus, Musil, Martius, Rolinek, 2020).
    """

    step: Step
    two_sided: bool = False

    def __post_init__(self) -> None:
        check_step(self.step, "Difference")

    @property
    def remedy(self) -> str:
        """What to do about gradients of zero."""
        if isinstance(self.step, RelativeStep):
            return f"raise the ratio of {self.step}, or add noise"
        return f"raise step, now {self.step:.3g}, or give each problem its own: step=RelativeStep(1.0)"

    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The mean difference quotient."""
        sizes = step_sizes(self.step, sample.cost, cotangent, sample.oracle.event_dims)
        return sampled_quotient(sample, cotangent, sizes, two_sided=self.two_sided).mean(0)


def sampled_quotient(sample: Sample, cotangent: Tensor, sizes: Tensor, *, two_sided: bool) -> Tensor:
    """The difference quotients ``(K, *batch, *event)`` of every sample, for steps ``(*batch)``."""
    sample.certificate.step = sizes

    def solve(tilts: Tensor) -> Tensor:
        return sample.slope * sample.solve(sample.perturbed - sample.sign * tilts.unsqueeze(1))

    rest = sample.slope * sample.points
    return -sample.sign * difference_quotient(solve, rest, cotangent, sizes, two_sided=two_sided)


def difference_quotient(
    solve: Callable[[Tensor], Tensor], rest: Tensor, cotangent: Tensor, sizes: Tensor, *, two_sided: bool
) -> Tensor:
    """``(solve(t g) - rest) / t``, or ``(solve(t g) - solve(-t g)) / 2 t``, in one call of ``solve``.

    It is what a response to a tilt of the objective by ``t <g, y>`` says about a derivative, whoever responds.

    Args:
        solve: tilts ``(sides, *batch, *event)`` to what is differenced, ``(sides, ..., *batch, *event)``.
        rest: the same without a tilt, ``(..., *batch, *event)``.
        cotangent: ``g`` ``(*batch, *event)``.
        sizes: ``t`` ``(*batch)``; where it is zero the quotient is.
        two_sided: whether to tilt both ways.
    """
    wide = sizes.reshape(sizes.shape + (1,) * (cotangent.ndim - sizes.ndim))
    tilt = wide * cotangent
    weight = torch.where(wide > 0, 1 / wide, 0.0)
    if two_sided:
        both = solve(torch.stack([tilt, -tilt]))
        return weight / 2 * (both[0] - both[1])
    return weight * (solve(tilt.unsqueeze(0))[0] - rest)
