"""What an estimator is: a setting of the core, noise, samples and a backward rule."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import InputError
from .noise import Noise
from .oracle import Oracle
from .oracle_certificate import OracleCertificate
from .perturbed_solve import Call, draw, perturbed_solve
from .rule import Rule
from .zero_gradients import ZeroGradients


class Estimator(ABC):
    """How the solution of a combinatorial problem gets a derivative: :math:`Y_k = S(w_k)` for perturbed costs
    :math:`w_k`, their mean as the answer, and a :class:`Rule` for the backward pass.

    A subclass has these as attributes or properties.

    Attributes:
        rule: the backward rule.
        noise: how the cost is perturbed, ``None`` for not at all.
        samples: ``K``.
        generator: where the noise comes from, torch's own generator for ``None``.
    """

    noise: Noise | None = None
    samples: int = 1
    generator: torch.Generator | None = None

    @property
    @abstractmethod
    def rule(self) -> Rule:
        """The backward rule."""

    def attach(
        self, oracle: Oracle, cost: Tensor, zeros: ZeroGradients | None = None
    ) -> tuple[Tensor, OracleCertificate]:
        """The mean solution ``(*batch, *event)`` with its derivative, and the certificate, which backward completes.

        Args:
            oracle: the solver.
            cost: ``(*batch, *event)``.
            zeros: what is done about gradients of zero; nothing by default.
        """
        certificate = OracleCertificate(f"{type(self).__name__} over {type(oracle).__name__}")
        zeros = ZeroGradients("ignore") if zeros is None else zeros
        call = Call(oracle, self.rule, certificate, self.noise, zeros)
        drawn = draw(oracle, self.noise, cost, self.samples, self.generator)
        return perturbed_solve(call, cost, drawn), certificate


def check_samples(owner: str, samples: int, noise: Noise | None, least: int = 1) -> None:
    """Raise :class:`InputError` where the number of samples makes no sense."""
    if samples < least:
        raise InputError(f"{owner}: samples is {samples}; it must be at least {least}")
    if noise is None and samples > 1:
        raise InputError(f"{owner}: samples is {samples} without noise, where they are all the same: set it to 1")
    if not (noise is None or isinstance(noise, Noise)):
        raise InputError(f"{owner}: noise is {noise!r}; wanted one such as Normal(1.0), or None")
