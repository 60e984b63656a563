"""Shortest tours by dynamic programming over sets of nodes, compiled by numba."""

from __future__ import annotations

import numpy as np

from ..kernel import LANES, Array, kernel


@kernel
def held_karp(cost: Array, following: Array) -> None:
    """Fill ``following`` ``(B, n)`` with the node after each on the shortest tour, for costs ``(B, n, n)``."""
    batch, nodes, _ = cost.shape
    others = nodes - 1
    into = np.zeros((nodes, others * LANES), cost.dtype)
    length = np.empty((1 << others, others * LANES), cost.dtype)
    for first in range(0, batch, LANES):
        lanes = min(LANES, batch - first)
        for j in range(nodes):
            for i in range(others):
                for lane in range(lanes):
                    into[j, i * LANES + lane] = cost[first + lane, i + 1, j] if j else cost[first + lane, 0, i + 1]
        _extend(into, length)
        for lane in range(lanes):
            _trace(cost[first + lane], length[:, lane::LANES], following[first + lane])


@kernel
def _extend(into: Array, length: Array) -> None:
    """The least length of a way through each set to each of its members, from those to one member less.

    Args:
        into: the costs ``(n, (n - 1) * LANES)`` of the edges into a node from all but node 0; in row 0, those from it.
        length: ``(sets, (n - 1) * LANES)``, to be filled; infinite for nodes outside the set.
    """
    others = len(into) - 1
    least = np.empty((others + 1) * LANES, length.dtype)
    length.fill(np.inf)
    for j in range(others):
        for lane in range(j * LANES, (j + 1) * LANES):
            length[1 << j, lane] = into[0, lane]
    for visited in range(1, 1 << others):
        for j in range(others):
            if visited >> j & 1:
                continue
            for lane in range(LANES):
                least[lane] = np.inf
            for m in range(others * LANES):  # the least so far moves along from node to node
                way = length[visited, m] + into[j + 1, m]
                least[m + LANES] = way if way < least[m] else least[m]
            for lane in range(LANES):
                length[visited | 1 << j, j * LANES + lane] = least[others * LANES + lane]


@kernel
def _trace(cost: Array, length: Array, following: Array) -> None:
    """Go back from node 0 to the member that attains the length, one after another."""
    others = len(cost) - 1
    visited, here = (1 << others) - 1, 0
    for _ in range(others):
        before = 0
        least = length[0, 0]  # infinite
        for i in range(others):
            way = length[visited, i] + cost[i + 1, here]
            if way < least:
                before, least = i + 1, way
        following[before] = here
        visited, here = visited & ~(1 << (before - 1)), before
    following[0] = here
