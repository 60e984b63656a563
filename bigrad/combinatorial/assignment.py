"""The cheapest assignment of rows to columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, MissingPackage
from .oracle import Oracle


@dataclass(frozen=True)
class Assignment(Oracle):
    r"""The cheapest way to give each row a column of its own.

    :math:`y = \arg\min \langle c, y \rangle` over the permutation matrices ``(n, n)``, or :math:`\arg\max`. SciPy
    solves one problem after another, in double precision. Costs have any sign.

    Args:
        maximise: whether the costs are profits.

    Source: On Implementing 2D Rectangular Assignment Algorithms (Crouse, 2016).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Assignment
        >>> Assignment()(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    maximise: bool = False
    event_dims = 2

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where the matrix is not square."""
        if cost.shape[-1] != cost.shape[-2]:
            raise InputError(f"Assignment: the cost has shape {tuple(cost.shape)}; wanted (*batch, n, n)")

    def solve(self, cost: Tensor) -> Tensor:
        """The permutations ``(B, n, n)`` for costs ``(B, n, n)``.

        Raises:
            MissingPackage: SciPy is not installed.
        """
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise MissingPackage("scipy", "combinatorial", "Assignment") from error

        found = [linear_sum_assignment(matrix, self.maximise)[1] for matrix in cost.cpu().numpy()]
        column = torch.stack([torch.from_numpy(columns) for columns in found]).to(cost.device)
        return torch.zeros_like(cost).scatter_(-1, column.unsqueeze(-1), 1)
