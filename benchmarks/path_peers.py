"""Shortest paths on 8-connected grids of vertex costs, as others solve a batch: maps from costs to 0/1 masks."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

Array = NDArray[np.float32]
TILES = np.array([0.8, 1.2, 5.3, 7.7, 9.2])


def terrain(batch: int, size: int, seed: int = 0) -> Array:
    """Costs ``(batch, size, size)`` of five kinds of tiles, each off by up to a tenth."""
    draw = np.random.default_rng(seed)
    tiles = TILES[draw.integers(0, len(TILES), (batch, size, size))]
    return (tiles * draw.uniform(0.9, 1.1, tiles.shape)).astype(np.float32)


def neighbours(x: int, y: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """The cells around one."""
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        if down == 0 and right == 0:
            continue
        if 0 <= x + down < height and 0 <= y + right < width:
            yield x + down, y + right


def heap_path(cost: Array) -> Array:
    """One path, in the style of blackbox-backprop: a heap of cells, distances in an array, neighbours generated."""
    height, width = cost.shape
    distance = np.full_like(cost, 1e10)
    distance[0, 0] = cost[0, 0]
    heap = [(cost[0, 0], (0, 0))]
    done: set[tuple[int, int]] = set()
    came_from: dict[tuple[int, int], tuple[int, int]] = {}
    while heap:
        far, (x, y) = heapq.heappop(heap)
        if (x, y) in done:
            continue
        for there in neighbours(x, y, height, width):
            if there in done:
                continue
            if cost[there] + far < distance[there]:
                distance[there] = cost[there] + far
                heapq.heappush(heap, (distance[there], there))
                came_from[there] = (x, y)
        done.add((x, y))
    mask = np.zeros_like(cost)
    cell = (height - 1, width - 1)
    mask[cell] = 1
    while cell != (0, 0):
        cell = came_from[cell]
        mask[cell] = 1
    return mask


def heap_paths(costs: Array) -> Array:
    """A batch, one after another."""
    return np.stack([heap_path(cost) for cost in costs])


class GridGraph:
    """SciPy's Dijkstra on the graph of a grid whose structure is kept; an arc costs what its head does."""

    def __init__(self, size: int, batch: int) -> None:
        cells = list(itertools.product(range(size), repeat=2))
        heads = [[i * size + j for i, j in neighbours(x, y, size, size)] for x, y in cells]
        self.cells = len(cells)
        self.head = np.array(list(itertools.chain(*heads)), dtype=np.int32)
        self.start = np.cumsum([0, *map(len, heads)], dtype=np.int32)
        shift = np.arange(batch, dtype=np.int32)[:, None]
        self.heads = (self.head + shift * self.cells).ravel()
        self.starts = np.append((self.start[:-1] + shift * len(self.head)).ravel(), batch * len(self.head))
        self.sources = np.arange(batch) * self.cells

    def loop(self, costs: Array) -> Array:
        """One call a problem."""
        masks = np.zeros((len(costs), self.cells), np.float32)
        for cost, mask in zip(costs.reshape(len(costs), -1), masks, strict=True):
            graph = csr_array((cost[self.head].astype(np.float64), self.head, self.start), (self.cells, self.cells))
            _, before = dijkstra(graph, indices=0, return_predecessors=True)
            trace(before, mask, self.cells - 1)
        return masks.reshape(costs.shape)

    def union(self, costs: Array) -> Array:
        """One call for all: their graphs side by side, with a source in each."""
        flat = costs.reshape(len(costs), -1)
        data, nodes = flat[:, self.head].ravel().astype(np.float64), flat.size
        graph = csr_array((data, self.heads, self.starts), (nodes, nodes))
        _, before, _ = dijkstra(graph, indices=self.sources, return_predecessors=True, min_only=True)
        masks = np.zeros(nodes, np.float32)
        for source in self.sources:
            trace(before, masks, source + self.cells - 1)
        return masks.reshape(costs.shape)


def trace(before: NDArray[np.int32], mask: Array, cell: int) -> None:
    """Mark a path from its last cell."""
    while cell >= 0:
        mask[cell] = 1
        cell = before[cell]
