"""What a search for a best point may spend, and what it has proven when it ends."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..errors import InputError


class Proof(Certificate):
    """The certificate of a search: ``stationarity`` is the gap between the best value found and the proven bound."""

    @property
    def gap(self) -> Tensor:
        """By how much the answer may miss the best value, of the batch shape; zero is proven optimality."""
        return self.stationarity

    def message(self) -> str:
        """One sentence on the worst problem: the gap, how much was searched, the remedy."""
        worst = int(self.gap.reshape(-1).argmax())
        gap, steps = float(self.gap.reshape(-1)[worst]), int(self.steps.reshape(-1)[worst])
        where = "" if self.gap.ndim == 0 else f" (problem {worst} of {self.gap.numel()})"
        return (
            f"{self.what}{where} stopped early: the gap between the value found and the proven bound is {gap:.6g}, "
            f"wanted 0, after {steps} nodes. Remedy: raise max_steps or seconds, or take a smaller problem."
        )


class Allowance:
    """The nodes and seconds that a search may use; ``None`` is no limit.

    Attributes:
        used: nodes so far.
    """

    def __init__(self, max_steps: int | None, seconds: float | None) -> None:
        check_limits(max_steps, seconds)
        self.max_steps = max_steps
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.used = 0

    def lasts(self) -> bool:
        """Whether the search may go on."""
        if self.max_steps is not None and self.used >= self.max_steps:
            return False
        return self.deadline is None or time.monotonic() < self.deadline


def check_limits(max_steps: int | None, seconds: float | None) -> None:
    """Raise :class:`InputError` unless both limits are at least zero or ``None``."""
    for name, limit in (("max_steps", max_steps), ("seconds", seconds)):
        if limit is not None and not limit >= 0:
            raise InputError(f"{name} is {limit!r}; it must be at least 0, or None for no limit")


def proof(what: str, value: Tensor, bound: Tensor, steps: Tensor) -> Proof:
    """The certificate of values ``(*batch)`` found beside bounds ``(*batch)`` proven."""
    gap = (value - bound).abs().double()
    status = torch.where(gap > 0, int(Status.MAX_STEPS), int(Status.CONVERGED))
    return Proof(what, status, gap, torch.zeros_like(gap), steps)
