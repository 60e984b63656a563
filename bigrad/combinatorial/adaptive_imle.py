"""Adaptive implicit maximum likelihood: the step is controlled by how sparse the gradient is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from .difference import sampled_quotient
from .estimator import Estimator, check_samples
from .noise import Noise, SumOfGamma
from .rule import Rule, Sample
from .step import relative_sizes


class AdaptiveIMLE(nn.Module, Estimator):
    r""":class:`IMLE` with the step :math:`\lambda = \alpha \|w\| / \|g\|` of each problem, where every backward pass
    moves :math:`\alpha` by ``ratio_step``: up while the running mean of how many entries of a sample's difference are
    not zero is below ``target``, else down, and never below zero.

    Both numbers are buffers: they follow ``state_dict``, and the result depends on nothing else but the noise.

    Args:
        samples: ``K``.
        noise: how the cost is perturbed.
        two_sided: difference both ways.
        ratio: :math:`\alpha` at the start.
        ratio_step: how far a backward pass moves it.
        target: wanted entries other than zero in a sample's difference; a solution that trades ``k`` ones for others
            has ``2 k``.
        decay: weight of the past in the running mean.
        generator: where the noise comes from, torch's own generator for ``None``.

    Attributes:
        ratio: :math:`\alpha` now.
        nonzeros: the running mean now.

    Raises:
        InputError: a number out of range, or several samples without noise.

    Source: Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models (Minervini, Franceschi,
    Niepert, 2023). The norms are those of each problem here, of the whole batch there.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import AdaptiveIMLE, TopK
        >>> from bigrad.layers import Combinatorial
        >>> layer = Combinatorial(TopK(1), AdaptiveIMLE(noise=None, ratio=0.5))
        >>> y = layer(torch.tensor([1.0, 3.0, 2.0], requires_grad=True))
        >>> y[1].backward()
        >>> layer.estimator.ratio, layer.estimator.nonzeros
        (tensor(0.4990, dtype=torch.float64), tensor(1.1000, dtype=torch.float64))
    """

    ratio: Tensor
    nonzeros: Tensor

    def __init__(
        self,
        *,
        samples: int = 1,
        noise: Noise | None = SumOfGamma(),  # noqa: B008  # frozen
        two_sided: bool = False,
        ratio: float = 1.0,
        ratio_step: float = 1e-3,
        target: float = 1.0,
        decay: float = 0.9,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_samples("AdaptiveIMLE", samples, noise)
        if not (ratio >= 0 and ratio_step >= 0 and target > 0 and 0 <= decay < 1):
            raise InputError(
                f"AdaptiveIMLE: ratio is {ratio}, ratio_step {ratio_step}, target {target}, decay {decay}; wanted "
                "ratio >= 0, ratio_step >= 0, target > 0, 0 <= decay < 1"
            )
        self.samples, self.noise, self.two_sided, self.generator = samples, noise, two_sided, generator
        self.ratio_step, self.target, self.decay = ratio_step, target, decay
        self.register_buffer("ratio", torch.tensor(ratio, dtype=torch.float64))
        self.register_buffer("nonzeros", torch.tensor(1.0, dtype=torch.float64))

    @property
    def rule(self) -> Rule:
        """The difference rule under control."""
        return _Controlled(self)

    @torch.no_grad()
    def control(self, nonzeros: Tensor) -> None:
        """Move the ratio after a backward pass whose samples have this many entries other than zero on average."""
        self.nonzeros.mul_(self.decay).add_((1 - self.decay) * nonzeros)
        upwards = 2 * (self.nonzeros < self.target).to(self.ratio) - 1
        self.ratio.add_(self.ratio_step * upwards).clamp_(min=0)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        return (
            f"samples={self.samples}, noise={self.noise}, two_sided={self.two_sided}, ratio={float(self.ratio):.4g}, "
            f"ratio_step={self.ratio_step}, target={self.target}, decay={self.decay}"
        )


@dataclass(frozen=True)
class _Controlled(Rule):
    estimator: AdaptiveIMLE
    remedy = "the ratio of the step grows by itself: raise ratio_step, or start with a larger ratio"

    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The mean difference quotient."""
        estimator = self.estimator
        ratio = estimator.ratio.to(sample.cost)
        sizes = relative_sizes(ratio, sample.cost, cotangent, sample.oracle.event_dims)
        quotients = sampled_quotient(sample, cotangent, sizes, two_sided=estimator.two_sided)
        solved = sizes.numel() * quotients.shape[0]
        if solved:
            estimator.control(quotients.count_nonzero().to(estimator.nonzeros) / solved)  # integers divide in float32
        return quotients.mean(0)
