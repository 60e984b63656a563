"""Shortest paths from level to level, compiled by numba."""

from __future__ import annotations

import numpy as np

from ..kernel import Array, kernel


@kernel
def level_paths(cost: Array, tail: Array, head: Array, edge: Array, nodes: int, mask: Array) -> None:
    """Add the paths to ``mask`` ``(B, E)``, zero so far; the arcs are sorted by head, and lead from lower nodes."""
    distance = np.empty(nodes, cost.dtype)
    into = np.empty(nodes, np.int64)
    for b in range(len(cost)):
        distance[:] = np.inf
        distance[0] = 0
        for arc in range(len(edge)):
            reached = distance[tail[arc]] + cost[b, edge[arc]]
            if reached < distance[head[arc]]:
                distance[head[arc]] = reached
                into[head[arc]] = arc
        node = nodes - 1
        while node > 0:
            mask[b, edge[into[node]]] = 1
            node = tail[into[node]]
