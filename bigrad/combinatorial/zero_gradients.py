"""Gradients that came out as zero: counted, and told apart from those that should be zero."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import OnFailure
from ..errors import SolveWarning, Stalled
from .rule import Rule, Sample

_MOST, _ENOUGH = 0.5, 10  # the share of starved gradients that is too much, of at least so many


@dataclass
class ZeroGradients:
    """What a layer does where most gradients come out as zero though a solution of lower loss exists.

    While more than half of them are zero, one problem a backward pass is solved once more, at a very long step, to
    tell whether its zero is right.

    Attributes:
        reaction: ``"raise"``, ``"warn"`` (once) or ``"ignore"``.
        asked: gradients other than zero that came in.
        zero: those of them that came out as zero.
        checked: problems that were solved once more.
        starved: those of them with a solution of lower loss.
        warned: whether the warning was given.
    """

    reaction: OnFailure = "warn"
    asked: int = 0
    zero: int = 0
    checked: int = 0
    starved: int = 0
    warned: bool = False

    def note(self, rule: Rule, sample: Sample, cotangent: Tensor, gradient: Tensor) -> None:
        """Count the zeros in the certificate, and react.

        Raises:
            Stalled: under ``"raise"``.
        """
        dims = sample.oracle.event_dims
        asked, answered = (part.unsqueeze(-1).flatten(-1 - dims).any(-1) for part in (cotangent, gradient))
        zero = asked & ~answered
        certificate = sample.certificate
        certificate.asked, certificate.zero_gradients = asked, zero
        if self.reaction == "ignore" or self.warned:
            return
        self.asked += int(asked.sum())
        self.zero += int(zero.sum())
        if self.zero <= _MOST * self.asked or not bool(zero.any()):
            return
        self.checked += 1
        self.starved += _improvable(sample, cotangent, zero)
        if self.asked < _ENOUGH or self.zero * self.starved <= _MOST * self.asked * self.checked:
            return
        message = (
            f"{certificate.what}: {self.zero} of {self.asked} gradients came out as zero so far, and {self.starved} of "
            f"{self.checked} problems looked into have a solution of lower loss, out of reach; wanted at most half. "
            f"Remedy: {rule.remedy}. The layer's certificate.zero_gradients says which problems, and "
            'on_zero_gradient="ignore" does without this check.'
        )
        if self.reaction == "raise":
            raise Stalled(message, certificate)
        self.warned = True
        warnings.warn(message, SolveWarning, stacklevel=2)


def _improvable(sample: Sample, cotangent: Tensor, zero: Tensor) -> bool:
    """Whether the first problem with a gradient of zero has a solution of lower linearised loss, by one more solve."""
    event = cotangent.shape[zero.ndim :]
    place = int(zero.reshape(-1).int().argmax())
    g, w, y = (part.reshape(-1, *event)[place] for part in (cotangent, sample.cost, sample.points.mean(0)))
    size = w.norm() + (w.norm() == 0)
    far = w - sample.sign * 1e3 * (size / g.norm()) * g
    best = sample.solve(far.unsqueeze(0))[0]
    gain = (g * (y - best)).sum()
    rounding = torch.finfo(g.dtype).eps * g.numel() * g.abs().max() * (y.abs().max() + best.abs().max())
    return bool(gain > rounding)
