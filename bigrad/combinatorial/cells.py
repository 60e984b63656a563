"""What a leader can raise: the entries of a follower's cost, or the pairs of them that are one thing."""

from __future__ import annotations

import torch
from torch import Tensor

from .oracle import Oracle
from .tour import Tour


class Cells:
    """The cells of one problem's cost.

    Every entry is a cell of its own; in the matrix of a tour without direction, an edge's two entries are one cell, and
    the diagonal is none.

    Args:
        oracle: whose costs they are.
        event: the shape of one problem's cost.
        device: of the costs.
    """

    def __init__(self, oracle: Oracle, event: torch.Size, device: torch.device) -> None:
        self.event = event
        self.pairs: Tensor | None = None
        if isinstance(oracle, Tour) and not oracle.directed:
            row, column = torch.triu_indices(event[0], event[1], 1, device=device)
            self.pairs = torch.stack([row * event[1] + column, column * event[1] + row])

    def gather(self, numbers: Tensor) -> Tensor:
        """What belongs to each cell ``(m, cells)`` of numbers ``(m, *event)``, added up."""
        flat = numbers.flatten(1)
        return flat if self.pairs is None else flat[:, self.pairs[0]] + flat[:, self.pairs[1]]

    def pick(self, points: Tensor) -> Tensor:
        """The entry of each cell ``(m, cells)`` in points ``(m, *event)``, the same for both of a pair."""
        flat = points.flatten(1)
        return flat if self.pairs is None else flat[:, self.pairs[0]]

    def spread(self, numbers: Tensor) -> Tensor:
        """``(m, *event)``, where each entry of a cell has the cell's number."""
        if self.pairs is not None:
            flat = numbers.new_zeros(len(numbers), self.event.numel())
            flat[:, self.pairs[0]] = flat[:, self.pairs[1]] = numbers
            numbers = flat
        return numbers.reshape(-1, *self.event)

    def split(self, costs: Tensor) -> Tensor:
        """Costs ``(m, *event)`` that add up to those of the cells."""
        return self.spread(costs if self.pairs is None else costs / 2)
