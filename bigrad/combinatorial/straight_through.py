"""Straight-through: the gradient of the solution is handed to the cost as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .estimator import Estimator, check_samples
from .noise import Noise
from .pass_through import PassThrough


@dataclass(frozen=True)
class StraightThrough(Estimator):
    r"""The gradient :math:`\pm g` without projection; with :class:`Gumbel` noise, straight-through Gumbel.

    Args:
        noise: how the cost is perturbed in forward, ``None`` for not at all.
        samples: perturbed costs that are solved and averaged.
        generator: where the noise comes from, torch's own generator for ``None``.

    Raises:
        InputError: several samples without noise.

    Source: Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation (Bengio, Léonard,
    Courville, 2013).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import StraightThrough, TopK
        >>> from bigrad.layers import Combinatorial
        >>> score = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
        >>> y = Combinatorial(TopK(1), StraightThrough())(score)
        >>> torch.autograd.grad(y @ torch.tensor([1.0, 2.0, 3.0]), score)[0]
        tensor([1., 2., 3.])
    """

    noise: Noise | None = None
    samples: int = 1
    generator: torch.Generator | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_samples("StraightThrough", self.samples, self.noise)

    @property
    def rule(self) -> PassThrough:
        """The identity rule."""
        return PassThrough()
