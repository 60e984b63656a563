"""The k best of n."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .oracle import Oracle


@dataclass(frozen=True)
class TopK(Oracle):
    r"""The ``k`` entries of greatest score.

    :math:`y = \arg\max \langle c, y \rangle` over the masks ``(n,)`` of ``k`` ones. Among equals the first are taken.

    Args:
        k: how many.
        maximise: the greatest scores, or the least costs.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import TopK
        >>> TopK(2)(torch.tensor([[0.1, 0.7, 0.7, 0.7], [4.0, 3.0, 2.0, 1.0]]))
        tensor([[0., 1., 1., 0.],
                [1., 1., 0., 0.]])
    """

    k: int
    maximise: bool = True

    def __post_init__(self) -> None:
        if self.k < 0:
            raise InputError(f"TopK: k is {self.k}; wanted at least 0")

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where there are fewer than ``k`` entries."""
        if cost.shape[-1] < self.k:
            raise InputError(f"TopK: {cost.shape[-1]} entries; wanted at least k = {self.k}")

    def solve(self, cost: Tensor) -> Tensor:
        """The masks ``(B, n)`` for scores ``(B, n)``."""
        best = cost.sort(dim=-1, descending=self.maximise, stable=True).indices[:, : self.k]
        return torch.zeros_like(cost).scatter_(-1, best, 1)
