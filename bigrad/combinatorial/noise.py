"""Random costs around a cost: what perturbed solvers average over."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import calculus
from ..errors import InputError, UnsupportedError


@dataclass(frozen=True)
class Noise(ABC):
    r"""Perturbed costs :math:`w + \sigma Z`, and :math:`w - \sigma Z` where the oracle minimises: ``Z`` is added to
    what each entry is worth, so that both senses have the same distribution of solutions at opposite costs.

    Attributes:
        scale: :math:`\sigma`, in the unit of the cost.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise InputError(f"{type(self).__name__}: scale is {self.scale}; it must be positive and finite")

    def draw(self, cost: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
        """``Z`` ``(samples, *cost.shape)``; made where the generator lives, so that a seed means the same on all."""
        device = cost.device if generator is None else generator.device
        drawn = self.standard((samples, *cost.shape), cost.dtype, device, generator)
        return drawn.to(cost.device)

    @abstractmethod
    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """``Z`` of this shape."""

    def perturb(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """The perturbed costs; ``sign`` is 1 for an oracle that maximises and -1 for one that minimises."""
        return cost + sign * self.scale * drawn

    def slope(self, drawn: Tensor) -> Tensor | float:
        """The derivative of a perturbed cost in the cost, entry by entry."""
        return 1.0

    def score(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """The derivative in the cost of the perturbed cost's log-density, entry by entry.

        Raises:
            UnsupportedError: the density has no closed form.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no density in closed form, which the score rule needs: use Normal, Gumbel or "
            "LogNormal, or the rule Difference"
        )


@dataclass(frozen=True)
class Normal(Noise):
    """Gaussian noise, added.

    Source: Learning with Differentiable Perturbed Optimizers (Berthet, Blondel, Teboul, Cuturi, Vert, Bach, 2020).
    """

    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    def score(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """``Z / scale``."""
        return sign / self.scale * drawn


@dataclass(frozen=True)
class LogNormal(Noise):
    r"""Multiplicative noise: :math:`w \exp(\sigma Z - \sigma^2/2)` with normal ``Z``, of mean ``w``. Each cost keeps
    its sign, so no oracle's domain is left.

    Source: Learning with Combinatorial Optimization Layers: a Probabilistic Approach (Dalle, Baty, Bouvier, Parmentier,
    2022).
    """

    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    def perturb(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """The cost times the factors."""
        return cost * self.slope(drawn)

    def slope(self, drawn: Tensor) -> Tensor:
        """The factors."""
        return (self.scale * drawn - self.scale**2 / 2).exp()

    def score(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """``Z / (scale w)``.

        Raises:
            InputError: a cost is zero, where the mean solution has no derivative.
        """
        if bool((cost == 0).any()):
            raise InputError(
                f"LogNormal: {int((cost == 0).sum())} costs are zero and have no score: use the rule Difference, or "
                "add a small positive number to the costs"
            )
        return drawn / (self.scale * cost)


@dataclass(frozen=True)
class Gumbel(Noise):
    """Standard Gumbel noise, added: the best of several entries is then drawn from their softmax."""

    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """Standard Gumbel numbers."""
        uniform = torch.rand(shape, dtype=dtype, device=device, generator=generator)
        return -(-torch.log1p(-uniform)).clamp_min(torch.finfo(dtype).tiny).log()

    def score(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        """``(1 - exp(-Z)) / scale``."""
        return sign / self.scale * -torch.expm1(-drawn)


@dataclass(frozen=True)
class SumOfGamma(Noise):
    r"""Noise of which ``k`` entries add up to about a Gumbel number, for solutions with ``k`` ones:
    :math:`\frac{1}{k} \bigl(\sum_{i=1}^{m} \Gamma(\tfrac{1}{k}, \tfrac{k}{i}) - \log m\bigr)` with shape and scale.

    Attributes:
        k: ones in a solution.
        terms: :math:`m`.

    Source: Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions (Niepert, Minervini,
    Franceschi, 2021).
    """

    k: int = 5
    terms: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1 or self.terms < 1:
            raise InputError(f"SumOfGamma: k is {self.k} and terms is {self.terms}; both must be at least 1")

    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """Sums of gamma numbers."""
        scales = self.k / torch.arange(1, self.terms + 1, dtype=dtype, device=device)
        gammas = _gammas(self.k, (self.terms, *shape), dtype, device, generator)
        total = (scales.reshape(-1, *(1,) * len(shape)) * gammas).sum(0)
        return (total - math.log(self.terms)) / self.k


def _gammas(
    k: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Gamma numbers of shape ``1 / k``.

    All are drawn at once, and those that are rejected again, in less than half the time of torch's loop over them.

    Source: A Simple Method for Generating Gamma Variables (Marsaglia, Tsang, 2000).
    """
    if calculus.vmapping():
        concentration = torch.full(shape, 1 / k, dtype=dtype, device=device)
        return torch._standard_gamma(concentration, generator=generator)  # noqa: SLF001  # torch.distributions' own
    count = torch.Size(shape).numel()
    d = 1 / k + 2 / 3
    cubes = torch.empty(count, dtype=dtype, device=device)
    left = torch.arange(count, device=device)
    while len(left):
        x = torch.randn(len(left), dtype=dtype, device=device, generator=generator)
        u = torch.rand(len(left), dtype=dtype, device=device, generator=generator)
        v = (1 + x / math.sqrt(9 * d)) ** 3
        accepted = u.log() < x.square() / 2 + d - d * v + d * v.log()  # false where v < 0 has no logarithm
        cubes[left] = v
        left = left[~accepted]
    power = torch.rand(count, dtype=dtype, device=device, generator=generator) ** k
    return (d * cubes * power).reshape(shape)
