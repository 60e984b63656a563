"""The shortest tour through all nodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..errors import InputError
from .held_karp import held_karp
from .oracle import Oracle

MOST_NODES = 12  # of the dynamic program, which takes n^2 2^n steps
PART = 256  # problems at a time: the program keeps n 2^n numbers of each


@dataclass(frozen=True)
class Tour(Oracle):
    r"""The shortest tour that visits every node once and returns.

    :math:`y = \arg\min \langle c, y \rangle` over the 0/1 matrices ``(n, n)`` of tours. A tour has no direction unless
    ``directed``: its matrix is symmetric, each edge counts from both sides, so that :math:`\langle c, y \rangle` is
    twice the length of the tour, and of a cost that is not symmetric only the symmetric part matters. A directed one
    has ``y[i, j] = 1`` where ``j`` follows ``i``. The diagonal is ignored; costs have any sign.

    Up to 12 nodes a dynamic program over the sets of nodes solves the whole batch. More go one by one to OR-Tools,
    whose integers keep costs to nine digits of the largest, and which has to prove its tour.

    Args:
        directed: whether a tour has a direction.
        seconds: the most that OR-Tools may take for one problem.
        compiled: whether a kernel of numba's solves up to 12 nodes, with the same answer; ``None`` is where numba is
            installed and the cost is in main memory.

    Source: A Dynamic Programming Approach to Sequencing Problems (Held, Karp, 1962).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Tour
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
        >>> Tour()(torch.cdist(corner, corner))
        tensor([[0., 0., 1., 1.],
                [0., 0., 1., 1.],
                [1., 1., 0., 0.],
                [1., 1., 0., 0.]])
    """

    directed: bool = False
    seconds: float = 60.0
    compiled: bool | None = None
    event_dims = 2

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where the matrix is not square, or has less than two nodes."""
        if cost.shape[-1] != cost.shape[-2] or cost.shape[-1] < 2:
            raise InputError(f"Tour: the cost has shape {tuple(cost.shape)}; wanted (*batch, n, n) with n >= 2")

    def solve(self, cost: Tensor) -> Tensor:
        """The tours ``(B, n, n)`` for costs ``(B, n, n)``.

        Raises:
            MissingPackage: there are more than 12 nodes and OR-Tools is not installed.
            NotConverged: OR-Tools has not proven its tour within ``seconds``.
        """
        lengths = cost if self.directed else (cost + cost.mT) / 2
        if cost.shape[-1] > MOST_NODES:
            from .tour_circuit import circuit

            following = torch.stack([circuit(matrix, self.seconds) for matrix in lengths.cpu()]).to(cost.device)
        elif runs_compiled(self.compiled, cost):
            from .held_karp_numba import held_karp as compiled_held_karp

            following = torch.empty(cost.shape[:2], dtype=torch.int64)
            compiled_held_karp(lengths.contiguous().numpy(), following.numpy())
        else:
            following = torch.cat([held_karp(part) for part in lengths.split(PART)])
        tour = torch.zeros_like(cost).scatter_(-1, following.unsqueeze(-1), 1)
        return tour if self.directed else torch.maximum(tour, tour.mT)
