"""Spanning trees, compiled by numba."""

from __future__ import annotations

import numpy as np

from ..kernel import Array, kernel


@kernel
def grow(order: Array, edges: Array, nodes: int, mask: Array) -> None:
    """Mark in ``mask`` ``(B, E)``, zero so far, the edges that join two trees when they are taken in ``order``."""
    parent = np.empty(nodes, np.int64)
    for b in range(len(order)):
        for node in range(nodes):
            parent[node] = node
        missing = nodes - 1
        for edge in order[b]:
            if missing == 0:
                break
            one, other = edges[edge, 0], edges[edge, 1]
            while parent[one] != one:
                parent[one] = parent[parent[one]]
                one = parent[one]
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            if one != other:
                parent[other] = one
                mask[b, edge] = 1
                missing -= 1
