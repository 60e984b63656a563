"""Perturbed optimizers: the mean solution of random costs is smooth, and its derivative can be sampled."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..errors import InputError
from .difference import Difference
from .estimator import Estimator, check_samples
from .noise import Noise, Normal, SumOfGamma
from .score import Score


@dataclass(frozen=True)
class PerturbedOptimizer(Estimator):
    r"""The mean :math:`\frac1K \sum_k S(w_k)` over perturbed costs, and the derivative of its expectation: without bias
    by :class:`Score`, or with less variance by a :class:`Difference`.

    A two-sided difference whose step moves the cost by about the noise's scale has a small part of the score's variance
    and little bias, for ``2 K`` solves in backward, where the score takes none.

    Args:
        samples: ``K``.
        noise: :class:`Normal`, :class:`Gumbel`, or :class:`LogNormal`, which multiplies; any with the difference rule.
        rule: :class:`Score` or :class:`Difference`.
        generator: where the noise comes from, torch's own generator for ``None``.

    Raises:
        InputError: too few samples for the leave-one-out baseline, or noise without a density for the score.
        InputError (in backward): a cost of zero under :class:`LogNormal` and :class:`Score`.

    Source: Learning with Differentiable Perturbed Optimizers (Berthet, Blondel, Teboul, Cuturi, Vert, Bach, 2020).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Gumbel, PerturbedOptimizer, TopK
        >>> from bigrad.layers import Combinatorial
        >>> generator = torch.Generator().manual_seed(0)
        >>> layer = Combinatorial(TopK(1), PerturbedOptimizer(20_000, Gumbel(), generator=generator))
        >>> layer(torch.tensor([1.0, 3.0, 2.0])).round(decimals=1)  # the softmax is 0.09, 0.67, 0.24
        tensor([0.1000, 0.7000, 0.2000])
    """

    samples: int = 10
    noise: Noise = Normal()  # noqa: RUF009  # frozen
    rule: Score | Difference = Score()  # noqa: RUF009  # frozen
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise):
            raise InputError(f"PerturbedOptimizer: noise is {self.noise!r}; wanted one such as Normal(1.0)")
        alone = isinstance(self.rule, Score) and self.rule.leave_one_out
        check_samples("PerturbedOptimizer", self.samples, self.noise, 2 if alone else 1)
        if isinstance(self.rule, Score) and isinstance(self.noise, SumOfGamma):
            raise InputError("PerturbedOptimizer: SumOfGamma has no density for the score: use rule=Difference(...)")
