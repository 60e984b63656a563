"""The cheapest tree that joins all nodes of a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..errors import Infeasible
from .graph import reached, read_edges
from .oracle import Oracle


class SpanningTree(Oracle):
    r"""The cheapest tree that joins all nodes of a graph.

    :math:`y = \arg\min \langle c, y \rangle` over the 0/1 masks ``(E,)`` of spanning trees, or :math:`\arg\max`, by
    taking edges in the order of their costs, unless they close a circle. Costs have any sign; of equally good edges the
    first is taken first.

    Args:
        edges: pairs of nodes ``(E, 2)``, numbered from 0; the cost of an edge stands at its place.
        nodes: how many; ``None`` is one more than the greatest number.
        maximise: whether the costs are profits.
        compiled: whether a kernel of numba's solves, with the same answer; ``None`` is where numba is installed and
            the cost is in main memory.

    Raises:
        Infeasible: the edges do not join all nodes.

    Source: On the Shortest Spanning Subtree of a Graph (Kruskal, 1956).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import SpanningTree
        >>> SpanningTree([(0, 1), (1, 2), (0, 2)])(torch.tensor([3.0, -1.0, 2.0]))
        tensor([0., 1., 1.])
    """

    def __init__(
        self, edges: Any, nodes: int | None = None, *, maximise: bool = False, compiled: bool | None = None
    ) -> None:
        self.edges = read_edges("SpanningTree", edges, nodes)
        self.nodes = max((self.edges + 1).flatten().tolist(), default=1) if nodes is None else nodes
        self.maximise, self.compiled = maximise, compiled
        pairs = self.edges.tolist()
        joined = len(reached(0, pairs + [(v, u) for u, v in pairs]))
        if joined < self.nodes:
            raise Infeasible(
                f"SpanningTree: the {len(pairs)} edges join node 0 with {joined} of the {self.nodes} nodes; add the "
                "edges that are missing"
            )

    def __repr__(self) -> str:
        return (
            f"SpanningTree({len(self.edges)} edges, nodes={self.nodes}, maximise={self.maximise}, "
            f"compiled={self.compiled})"
        )

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where there is not one cost for each edge."""
        self.check_count(cost, len(self.edges), "edge")

    def solve(self, cost: Tensor) -> Tensor:
        """The trees ``(B, E)`` for costs ``(B, E)``."""
        order = cost.sort(dim=-1, descending=self.maximise, stable=True).indices
        if not runs_compiled(self.compiled, cost):
            return self._grow(cost, order.T)
        from .spanning_tree_numba import grow

        mask = torch.zeros_like(cost, memory_format=torch.contiguous_format)
        grow(order.numpy(), self.edges.numpy(), self.nodes, mask.numpy())
        return mask

    def _grow(self, cost: Tensor, order: Tensor) -> Tensor:
        """Take edges in their order, where they join two trees; each node carries the name of its tree."""
        ends = self.edges.to(cost.device)[order]
        tree = torch.arange(self.nodes, device=cost.device)[:, None].expand(-1, len(cost))
        joins = torch.zeros(order.shape, dtype=torch.bool, device=cost.device)
        for place, pair in enumerate(ends.mT):
            one, other = tree.gather(0, pair)
            joins[place] = one != other
            tree = torch.where(tree == other, one, tree)
        return torch.zeros_like(cost).scatter_(-1, order.T, joins.T.to(cost.dtype))
