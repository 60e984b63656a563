"""The ranks of scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .oracle import Oracle


@dataclass(frozen=True)
class Ranking(Oracle):
    r"""The rank of each score, from 1 for the greatest to ``n`` for the least.

    :math:`y = \arg\min \langle c, y \rangle` over the permutations of ``1, ..., n``, or :math:`\arg\max`, where the
    least score has rank 1. Among equals the first has the lower rank.

    Args:
        maximise: whether the least score has rank 1.

    Source: Optimizing Rank-based Metrics with Blackbox Differentiation (Rolínek, Musil, Paulus, Vlastelica, Michaelis,
    Martius, 2020).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Ranking
        >>> Ranking()(torch.tensor([0.3, 0.9, -1.0]))
        tensor([2., 1., 3.])
    """

    maximise: bool = False

    def solve(self, cost: Tensor) -> Tensor:
        """The ranks ``(B, n)`` for scores ``(B, n)``."""
        order = cost.sort(dim=-1, descending=not self.maximise, stable=True).indices
        ranks = torch.arange(1, cost.shape[-1] + 1, dtype=cost.dtype, device=cost.device)
        return torch.zeros_like(cost).scatter_(-1, order, ranks.expand_as(cost))
