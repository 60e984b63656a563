"""Implicit maximum likelihood: the difference of perturbed solutions, with the same noise on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .difference import Difference
from .estimator import Estimator, check_samples
from .noise import Noise, SumOfGamma
from .step import Step, check_step


@dataclass(frozen=True)
class IMLE(Estimator):
    r"""The mean of :math:`\bigl(S(w_k + \lambda g) - S(w_k)\bigr) / \lambda` over perturbed costs :math:`w_k`, for an
    oracle that minimises. The answer is the mean of :math:`S(w_k)`.

    With one sample and no noise it is :class:`Blackbox`; with a step towards zero and many samples it is the exact
    Jacobian of the perturbed optimizer.

    Args:
        step: :math:`\lambda`, a number or a :class:`RelativeStep`. A number is in the unit of cost over gradient: a
            loss that is a mean over many entries has small gradients, which most solutions do not feel.
        samples: ``K``.
        noise: how the cost is perturbed; sums of gamma numbers suit solutions with ``k`` ones.
        two_sided: difference both ways: for ``2 K`` solves in backward, less bias and less variance.
        generator: where the noise comes from, torch's own generator for ``None``.

    Raises:
        InputError: the step is not positive, or several samples without noise.

    Source: Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions (Niepert, Minervini,
    Franceschi, 2021). The gradient is divided by the step here, which the paper leaves to the learning rate.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import IMLE, SumOfGamma, TopK
        >>> from bigrad.layers import Combinatorial
        >>> generator = torch.Generator().manual_seed(0)
        >>> layer = Combinatorial(TopK(2), IMLE(step=2.0, samples=4, noise=SumOfGamma(k=2), generator=generator))
        >>> layer(torch.tensor([1.0, 3.0, 2.0, 0.0])).sum()
        tensor(2.)
    """

    step: Step = 10.0
    samples: int = 1
    noise: Noise | None = SumOfGamma()  # noqa: RUF009  # frozen
    two_sided: bool = False
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_step(self.step, "IMLE")
        check_samples("IMLE", self.samples, self.noise)

    @property
    def rule(self) -> Difference:
        """The difference rule."""
        return Difference(self.step, self.two_sided)
