"""The knapsack's dynamic program, compiled by numba."""

from __future__ import annotations

import numpy as np

from ..kernel import Array, kernel


@kernel
def pack(profits: Array, weights: Array, capacity: int, packed: Array) -> None:
    """Fill ``packed`` ``(B, n)`` with the best packings for ``profits`` ``(B, n)``."""
    batch, items = profits.shape
    best = np.empty(capacity + 1, profits.dtype)
    taken = np.empty((items, capacity + 1), np.bool_)
    for b in range(batch):
        best[:] = 0
        for item in range(items):
            weight, profit, row = weights[item], profits[b, item], taken[item]
            for c in range(capacity, weight - 1, -1):
                with_it = best[c - weight] + profit
                row[c] = with_it > best[c]
                best[c] = max(with_it, best[c])
        left = capacity
        for item in range(items - 1, -1, -1):
            took = left >= weights[item] and taken[item, left]
            packed[b, item] = took
            if took:
                left -= weights[item]
