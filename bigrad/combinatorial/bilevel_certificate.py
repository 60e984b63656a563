"""What a call of a two-level combinatorial layer can say about itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate
from .oracle_certificate import OracleCertificate


@dataclass(repr=False)
class BilevelCertificate(OracleCertificate):
    """What one call has asked of a two-level oracle, what was proven, and what the levels were asked alone.

    The counts of :class:`OracleCertificate` are those of two-level solves, forward and backward.

    Attributes:
        proof: how the forward solve ended; ``None`` where the oracle's answers always are the best.
        leader, follower: what the levels were asked alone, where the estimator holds the other one's point fixed.
    """

    proof: Certificate | None = None
    leader: OracleCertificate | None = None
    follower: OracleCertificate | None = None

    @property
    def gap(self) -> Tensor:
        """By how much each problem's answer may miss the best value; zero where that is proven."""
        return torch.zeros((), dtype=torch.float64) if self.proof is None else self.proof.stationarity

    def __repr__(self) -> str:
        parts = [super().__repr__().replace("OracleCertificate", "BilevelCertificate", 1)[:-1]]
        parts += [f"gap {float(self.gap.max()):.3g}"] if self.gap.numel() else []
        for name, level in (("leader", self.leader), ("follower", self.follower)):
            parts += [] if level is None else [f"{name}={level!r}"]
        return ", ".join(parts) + ")"
