"""The most valuable packing of a knapsack."""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..errors import Infeasible, InputError, UnsupportedError
from .oracle import Oracle

MOST_CELLS = 2**28  # of the table of decisions, one byte each


class Knapsack(Oracle):
    r"""The items of greatest total profit that a knapsack can carry.

    :math:`y = \arg\max \langle c, y \rangle` over the masks ``(n,)`` with :math:`\langle \text{weights}, y \rangle \le
    \text{capacity}`, by dynamic programming over the capacities: exact, ``n * capacity`` steps a problem. Profits have
    any sign. Of equally good packings always the same one is taken.

    Args:
        weights: one integer for each item ``(n,)``, at least zero.
        capacity: an integer, at least zero.
        compiled: whether a kernel of numba's solves, with the same answer; ``None`` is where numba is installed and
            the cost is in main memory.

    Raises:
        UnsupportedError: an item has several weights.

    Source: Dynamic Programming (Bellman, 1957).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Knapsack
        >>> Knapsack([3, 4, 5], capacity=8)(torch.tensor([[3.0, 4.0, 6.0], [2.0, 9.0, 3.0]]))
        tensor([[1., 0., 1.],
                [1., 1., 0.]])
    """

    maximise = True

    def __init__(self, weights: Any, capacity: int, *, compiled: bool | None = None) -> None:
        found = torch.as_tensor(weights).detach().cpu()
        if found.ndim == 2:
            raise UnsupportedError(
                f"Knapsack: weights of shape {tuple(found.shape)}, several for an item; MixedInteger(weights, "
                "upper=capacity, maximise=True) takes them"
            )
        if found.ndim != 1 or found.is_floating_point() or found.is_complex() or bool((found < 0).any()):
            raise InputError(
                f"Knapsack: the weights are {found.dtype} of shape {tuple(found.shape)}; wanted integers (n,), none "
                "below zero: multiply decimals by a power of ten, and the capacity with them"
            )
        if int(capacity) != capacity:
            raise InputError(f"Knapsack: the capacity is {capacity}; wanted an integer, in the unit of the weights")
        if capacity < 0:
            raise Infeasible(f"Knapsack: the capacity is {capacity}; wanted at least 0, where nothing is packed")
        self.weights, self.capacity, self.compiled = found.long(), int(capacity), compiled
        unit = max(gcd(*self.weights.tolist()), 1)
        self._weights = self.weights // unit
        self._capacity = min(self.capacity // unit, int(self._weights.sum()))

    def __repr__(self) -> str:
        return f"Knapsack({len(self.weights)} items, capacity={self.capacity}, compiled={self.compiled})"

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where there is not one profit for each item."""
        self.check_count(cost, len(self.weights), "item")

    def solve(self, cost: Tensor) -> Tensor:
        """The packings ``(B, n)`` for profits ``(B, n)``."""
        if runs_compiled(self.compiled, cost):
            from .knapsack_numba import pack

            packed = torch.empty_like(cost, memory_format=torch.contiguous_format)
            pack(cost.contiguous().numpy(), self._weights.numpy(), self._capacity, packed.numpy())
            return packed
        cells = len(self.weights) * (self._capacity + 1)
        return torch.cat([self._pack(part) for part in cost.split(max(MOST_CELLS // max(cells, 1), 1))])

    def _pack(self, cost: Tensor) -> Tensor:
        """The best value of every capacity, item by item; then the decisions that led there, backwards."""
        profits, weights = cost.T.contiguous(), self._weights.tolist()
        best = cost.new_zeros(self._capacity + 1, len(cost))
        taken = torch.zeros(len(weights), *best.shape, dtype=torch.bool, device=cost.device)
        for item, weight in enumerate(weights):
            if weight <= self._capacity:
                without, with_it = best[weight:], best[: len(best) - weight] + profits[item]
                torch.gt(with_it, without, out=taken[item, weight:])
                torch.maximum(with_it, without, out=without)
        packed = torch.empty(len(weights), len(cost), dtype=torch.bool, device=cost.device)
        left = torch.full((1, len(cost)), self._capacity, device=cost.device)
        for item in reversed(range(len(weights))):
            torch.gather(taken[item], 0, left, out=packed[item : item + 1])
            left = left - packed[item] * weights[item]
        return packed.T.to(cost.dtype, memory_format=torch.contiguous_format)
