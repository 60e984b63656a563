"""A solver of a user's, as the process pool imports it: it needs NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CAPACITY = 200
ROUNDS = 4


def slow_knapsack(profits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """A knapsack's dynamic program in plain Python, on purpose: some ten milliseconds."""
    packed = np.zeros(len(profits), bool)
    for _ in range(ROUNDS):
        best = [(0.0, 0)] * (CAPACITY + 1)
        for item, profit in enumerate(profits.tolist()):
            weight = 5 + 7 * item % 23
            for left in range(CAPACITY, weight - 1, -1):
                value, items = best[left - weight]
                best[left] = max(best[left], (value + profit, items | 1 << item))
        packed = np.array([best[-1][1] >> item & 1 for item in range(len(profits))], bool)
    return packed
