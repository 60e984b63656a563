"""Shortest paths through grids and graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..errors import InputError
from .graph_path import GraphShortestPath
from .grid_path import grid_paths, too_large
from .oracle import Oracle


@dataclass(frozen=True)
class ShortestPath(Oracle):
    r"""The cheapest path through a grid of vertex costs, from the top-left to the bottom-right corner.

    :math:`y = \arg\min \langle c, y \rangle` over the 0/1 masks ``(H, W)`` of paths, both ends counted. Sums are
    rounded in the cost's dtype, and of equally cheap paths always the same one is taken. Costs are at least zero.
    :meth:`graph` makes the oracle of any other graph.

    Args:
        connectivity: 8, or 4 without the diagonal steps.
        compiled: whether a kernel of numba's solves, with the same answer; ``None`` is where numba is installed and
            the cost is in main memory.

    Source: On a Routing Problem (Bellman, 1958).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import ShortestPath
        >>> cost = torch.tensor([[1.0, 9.0, 1.0], [1.0, 9.0, 1.0], [9.0, 1.0, 1.0]])
        >>> ShortestPath()(cost)
        tensor([[1., 0., 0.],
                [1., 0., 0.],
                [0., 1., 1.]])
    """

    connectivity: int = 8
    compiled: bool | None = None
    event_dims = 2
    nonnegative = True

    def __post_init__(self) -> None:
        if self.connectivity not in (4, 8):
            raise InputError(f"ShortestPath: connectivity is {self.connectivity!r}; wanted 4 or 8")

    @staticmethod
    def graph(
        edges: Any, source: int, target: int, *, directed: bool = True, compiled: bool | None = None
    ) -> GraphShortestPath:
        """The oracle of a graph with edge costs: see :class:`GraphShortestPath`."""
        return GraphShortestPath(edges, source, target, directed=directed, compiled=compiled)

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where the grid has no cell."""
        if cost.shape[-2:].numel() == 0:
            raise InputError(f"ShortestPath: the cost has shape {tuple(cost.shape)}; wanted (*batch, H, W), H, W >= 1")

    def solve(self, cost: Tensor) -> Tensor:
        """The paths ``(B, H, W)`` for costs ``(B, H, W)``."""
        if not runs_compiled(self.compiled, cost):
            return grid_paths(cost, self.connectivity)
        from .grid_path_numba import grid_paths as compiled_grid_paths

        mask = torch.empty_like(cost, memory_format=torch.contiguous_format)
        if not compiled_grid_paths(cost.contiguous().numpy(), self.connectivity == 8, mask.numpy()):
            raise too_large(cost)
        return mask
