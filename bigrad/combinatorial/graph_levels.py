"""Shortest paths where no way comes back to a node: a sweep from level to level, costs of any sign."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Arcs


@dataclass(frozen=True)
class Levels:
    """For every node the arcs into it, as rows padded to the same length with an edge of infinite cost.

    Attributes:
        tail, edge: ``(nodes, D)``; the source's row leads to itself.
        bounds: the first node of each level, and the number of nodes.
    """

    tail: Tensor
    edge: Tensor
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, arcs: Arcs) -> Levels | None:
        """The levels of these arcs, ``None`` where they close a circle."""
        if arcs.levels is None:
            return None
        into = torch.bincount(arcs.head, minlength=arcs.nodes)
        place = torch.arange(len(arcs.head)) - (into.cumsum(0) - into)[arcs.head]
        tail = torch.zeros(arcs.nodes, max(int(into.max()), 1), dtype=torch.int64)
        edge = torch.full_like(tail, arcs.edges)
        tail[arcs.head, place], edge[arcs.head, place] = arcs.tail, arcs.edge
        return cls(tail, edge, arcs.levels)

    def paths(self, cost: Tensor) -> Tensor:
        """The paths ``(B, E)`` for costs ``(B, E)``."""
        (nodes, width), batch = self.tail.shape, len(cost)
        tail, edge = (rows.flatten().to(cost.device) for rows in (self.tail, self.edge))
        costs = torch.cat([cost.T, cost.new_full((1, batch), torch.inf)])[edge]
        distance = cost.new_zeros(nodes, batch)
        best = torch.zeros(nodes, batch, dtype=torch.int64, device=cost.device)
        for first, last in zip(self.bounds[1:], self.bounds[2:], strict=False):
            rows = slice(first * width, last * width)
            reached = (distance[tail[rows]] + costs[rows]).view(last - first, width, batch)
            torch.min(reached, 1, out=(distance[first:last], best[first:last]))
        mask = cost.new_zeros(cost.shape[1] + 1, batch)
        node = torch.full((1, batch), nodes - 1, device=cost.device)
        one = cost.new_ones(1, batch)
        for _ in self.bounds[2:]:
            arc = node * width + best.gather(0, node)
            mask.scatter_(0, edge[arc], one)
            node = tail[arc]
        return mask[:-1].T.contiguous()
