"""Shortest paths on grids, compiled by numba: the distances and the rule of ``grid_path``."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from ..kernel import LANES, Array, kernel

MOST_SWEEPS = 32  # a maze takes one for each turn of its ways: there a heap is sooner done


@kernel
def grid_paths(cost: Array, eight: bool, mask: Array) -> bool:
    """Fill ``mask`` ``(B, H, W)`` with the paths for costs of that shape; ``False`` where a path's cost overflows."""
    batch, height, width = cost.shape
    costs = np.zeros((height, width * LANES), cost.dtype)
    distance = np.empty((height + 2, (width + 2) * LANES), cost.dtype)
    for first in range(0, batch, LANES):
        lanes = min(LANES, batch - first)
        for i in range(height):
            for j in range(width):
                for lane in range(lanes):
                    costs[i, j * LANES + lane] = cost[first + lane, i, j]
        settled = _sweep(costs, eight, distance)
        for lane in range(lanes):
            far = distance[:, lane::LANES]
            if not settled:
                _dijkstra(cost[first + lane], eight, far)
            if not np.isfinite(far[height, width]):
                return False
            _trace(eight, far, mask[first + lane])
    return True


@kernel
def _sweep(cost: Array, eight: bool, distance: Array) -> bool:
    """The distances ``(H + 2, (W + 2) * LANES)``: rows are lowered downwards and upwards, as long as one beside them
    has changed. ``False`` where that takes too long.
    """
    height = len(cost)
    distance.fill(np.inf)
    for lane in range(LANES):
        distance[1, LANES + lane] = cost[0, lane]
    from_above, from_below = np.zeros(height + 2, np.bool_), np.zeros(height + 2, np.bool_)
    from_above[1] = from_above[2] = True
    for _ in range(MOST_SWEEPS):
        changed = False
        for i in range(1, height + 1):
            if from_above[i]:
                from_above[i] = False
                if _lower(distance[i - 1], distance[i], cost[i - 1], eight):
                    changed = from_above[i] = from_above[i + 1] = from_below[i] = from_below[i - 1] = True
        for i in range(height, 0, -1):
            if from_below[i]:
                from_below[i] = False
                if _lower(distance[i + 1], distance[i], cost[i - 1], eight):
                    changed = from_above[i] = from_above[i + 1] = from_below[i] = from_below[i - 1] = True
        if not changed:
            return True
    return False


@kernel
def _lower(beside: Array, here: Array, cost: Array, eight: bool) -> bool:
    """Lower a row's distances by those beside it, then from cell to cell to the right; whether one has changed."""
    changed = False
    for m in range(len(cost)):
        least = beside[m + LANES]
        least = here[m + 2 * LANES] if here[m + 2 * LANES] < least else least
        if eight:
            least = beside[m] if beside[m] < least else least
            least = beside[m + 2 * LANES] if beside[m + 2 * LANES] < least else least
        reached, old = least + cost[m], here[m + LANES]
        changed |= reached < old
        here[m + LANES] = reached if reached < old else old
    for m in range(len(cost)):
        reached, old = here[m] + cost[m], here[m + LANES]
        changed |= reached < old
        here[m + LANES] = reached if reached < old else old
    return changed


@kernel
def _dijkstra(cost: Array, eight: bool, distance: Array) -> None:
    """The distances ``(H + 2, W + 2)`` of one problem, each cell once."""
    height, width = cost.shape
    distance[:] = np.inf
    distance[1, 1] = cost[0, 0]
    heap = [(cost[0, 0], 1, 1)]
    while heap:
        far, i, j = heappop(heap)
        if far > distance[i, j]:
            continue
        for k in range(max(i - 1, 1), min(i + 1, height) + 1):
            for m in range(max(j - 1, 1), min(j + 1, width) + 1):
                reached = far + cost[k - 1, m - 1]
                if (eight or k == i or m == j) and reached < distance[k, m]:
                    distance[k, m] = reached
                    heappush(heap, (reached, k, m))


@kernel
def _trace(eight: bool, distance: Array, mask: Array) -> None:
    """Mark the cells from the last one back to the first."""
    mask[:] = 0
    steps = np.empty((0, 0), np.int64)
    i, j = mask.shape
    mask[i - 1, j - 1] = 1
    while i > 1 or j > 1:
        row, column = 0, 0  # on the border, infinitely far
        for k in range(i - 1, i + 2):
            for m in range(j - 1, j + 2):
                beside = (k != i or m != j) and (eight or k == i or m == j)
                if beside and distance[k, m] < distance[row, column]:
                    row, column = k, m
        if distance[row, column] == distance[i, j]:
            if not len(steps):
                steps = _steps_to_edge(eight, distance)
            for k in range(i - 1, i + 2):
                for m in range(j - 1, j + 2):
                    beside = (eight or k == i or m == j) and distance[k, m] == distance[i, j]
                    if beside and steps[k, m] < steps[row, column]:
                        row, column = k, m
        i, j = row, column
        mask[i - 1, j - 1] = 1


@kernel
def _steps_to_edge(eight: bool, distance: Array) -> Array:
    """How many steps each cell is from one with a nearer neighbour, along cells of its own distance."""
    height, width = distance.shape[0] - 2, distance.shape[1] - 2
    steps = np.full((height + 2, width + 2), height * width)
    steps[1, 1] = 0
    going = True
    while going:
        going = False
        for i in range(1, height + 1):
            for j in range(1, width + 1):
                for k in range(i - 1, i + 2):
                    for m in range(j - 1, j + 2):
                        if not (eight or k == i or m == j) or distance[k, m] > distance[i, j]:
                            continue
                        least = 0 if distance[k, m] < distance[i, j] else steps[k, m] + 1
                        if least < steps[i, j]:
                            steps[i, j] = least
                            going = True
    return steps
