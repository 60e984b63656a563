"""Shortest paths through graphs of edge costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..errors import Infeasible, InputError
from .graph import Arcs, read_edges
from .graph_circles import circle_paths
from .graph_levels import Levels
from .oracle import Oracle


class GraphShortestPath(Oracle):
    r"""The cheapest path between two nodes of a graph.

    :math:`y = \arg\min \langle c, y \rangle` over the 0/1 masks ``(E,)`` of the paths' edges. Where no way comes back
    to a node, costs have any sign and one sweep from level to level solves. Otherwise costs are at least zero, and the
    distances of the whole batch come from one call of SciPy's, or without it from sweeps over all edges. Of equally
    cheap paths always the same one is taken.

    Args:
        edges: pairs of nodes ``(E, 2)``, numbered from 0; the cost of an edge stands at its place.
        source, target: the ends of the path.
        directed: whether an edge leads from its first node to its second only.
        compiled: whether compiled code solves, numba's or SciPy's, with the same answer; ``None`` is where it is
            installed and the cost is in main memory.

    Raises:
        Infeasible: no path leads from the source to the target.

    Source: On a Routing Problem (Bellman, 1958); A Note on Two Problems in Connexion with Graphs (Dijkstra, 1959).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import ShortestPath
        >>> oracle = ShortestPath.graph([(0, 1), (1, 3), (0, 2), (2, 3)], source=0, target=3)
        >>> oracle(torch.tensor([[1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, -3.0]]))
        tensor([[1., 1., 0., 0.],
                [0., 0., 1., 1.]])
    """

    def __init__(
        self, edges: Any, source: int, target: int, *, directed: bool = True, compiled: bool | None = None
    ) -> None:
        self.edges = read_edges("GraphShortestPath", edges)
        self.source, self.target, self.directed, self.compiled = source, target, directed, compiled
        if source < 0 or target < 0:
            raise InputError(f"GraphShortestPath: source {source} and target {target}; wanted nodes, numbered from 0")
        self._arcs = Arcs.between(self.edges, source, target, directed)
        if not len(self._arcs.edge) and source != target:
            raise Infeasible(
                f"GraphShortestPath: no path leads from node {source} to node {target} along the {len(self.edges)} "
                f"{'directed' if directed else 'undirected'} edges; add those that are missing, or check their order"
            )
        self._levels = Levels.of(self._arcs)
        self.nonnegative = self._levels is None

    def __repr__(self) -> str:
        return (
            f"GraphShortestPath({len(self.edges)} edges, source={self.source}, target={self.target}, "
            f"directed={self.directed}, compiled={self.compiled})"
        )

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where there is not one cost for each edge."""
        self.check_count(cost, len(self.edges), "edge")

    def solve(self, cost: Tensor) -> Tensor:
        """The paths ``(B, E)`` for costs ``(B, E)``."""
        if not len(self._arcs.edge):
            return torch.zeros_like(cost)
        if self._levels is None:
            return circle_paths(self._arcs, cost, self.compiled)
        if runs_compiled(self.compiled, cost):
            return _compiled_level_paths(self._arcs, cost)
        return self._levels.paths(cost)


def _compiled_level_paths(arcs: Arcs, cost: Tensor) -> Tensor:
    """The paths by a kernel of numba's."""
    from .graph_path_numba import level_paths

    mask = torch.zeros_like(cost, memory_format=torch.contiguous_format)
    tail, head, edge = (part.numpy() for part in (arcs.tail, arcs.head, arcs.edge))
    level_paths(cost.contiguous().numpy(), tail, head, edge, arcs.nodes, mask.numpy())
    return mask
