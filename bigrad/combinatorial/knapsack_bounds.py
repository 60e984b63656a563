"""What a follower can pack at least from the items that come, however the leader takes some of them away."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor


class KnapsackBounds:
    r"""Lower bounds of a knapsack interdiction from item ``i`` on, for all that may be left of both capacities.

    .. math:: f_i(A, C) = \min\bigl( f_{i+1}(A - a_i, C),\ \max( f_{i+1}(A, C),\ p_i + f_{i+1}(A, C - b_i) ) \bigr)

    Item by item, the leader takes it or the follower packs it or not. Only capacities that can be left when an item's
    turn comes are kept, up to what the items to come can use. Where that are more than ``size`` entries, weights are
    divided by the least ``scale`` that helps: the leader's are rounded down and the follower's up, so that the
    bounds stay below.

    Attributes:
        scale: by what the weights in the tables were divided.
        tables: f of every item, and of the end.
    """

    def __init__(self, p: list[int], b: list[int], a: list[int], C: int, A: int, size: int) -> None:
        self.scale = 1
        while self._layout(b, a, C, A) > max(size, len(p) + 1):
            self.scale += 1 + self.scale // 16
        # A smaller type is faster: the table is written once and read little.
        dtype = torch.int16 if sum(p) < 2**15 else torch.int32 if sum(p) < 2**31 else torch.int64
        self.tables = [torch.zeros(len(self.leader[-1]), len(self.follower[-1]), dtype=dtype)]
        for item in reversed(range(len(p))):
            self.tables.append(self._table(item, p[item], -(-b[item] // self.scale), a[item] // self.scale))
        self.tables.reverse()

    def _layout(self, b: list[int], a: list[int], C: int, A: int) -> int:
        """Say what capacities of either are kept for each item, and how many entries that makes."""
        self.follower = _kept([-(-weight // self.scale) for weight in b], C // self.scale, b, C, self.scale)
        self.leader = _kept([weight // self.scale for weight in a], A // self.scale, a, A, self.scale)
        return sum(len(rows) * len(columns) for rows, columns in zip(self.leader, self.follower, strict=True))

    def _table(self, item: int, profit: int, weight: int, leader_weight: int) -> Tensor:
        """f of an item from the last of the tables, that of the item after it."""
        later, rows, columns = self.tables[-1], self.leader[item], self.follower[item]
        row, column = self.leader[item + 1].start, self.follower[item + 1].start
        kept = _stretch(later, 0, rows.start - row, len(rows))
        f = _stretch(kept, 1, columns.start - column, len(columns)).clone()
        first = max(columns.start, weight)
        if first < columns.stop:
            packing = f[:, first - columns.start :]
            packed = _stretch(kept, 1, first - weight - column, columns.stop - first) + profit
            torch.maximum(packing, packed, out=packing)
        first = max(rows.start, leader_weight)
        if first < rows.stop:
            taking = f[first - rows.start :]
            taken = _stretch(later, 0, first - leader_weight - row, rows.stop - first)
            torch.minimum(taking, _stretch(taken, 1, columns.start - column, len(columns)), out=taking)
        return f

    def places(self, item: int, left: Tensor) -> Tensor:
        """Where a row of this item's table holds the bound for what is left of the follower's capacity."""
        columns = self.follower[item]
        return (left // self.scale).clamp(columns.start, columns.stop - 1) - columns.start

    def row(self, item: int, left: int) -> Tensor:
        """This item's bounds for what is left of the leader's capacity."""
        rows = self.leader[item]
        return self.tables[item][min(left // self.scale, rows.stop - 1) - rows.start]


def _kept(rounded: list[int], capacity: int, weights: list[int], exact: int, scale: int) -> list[range]:
    """The capacities that can be left at each item's turn, none larger than the items to come can use."""
    before = accumulate(weights, initial=0)
    rounded_before = list(accumulate(rounded, initial=0))
    kept = []
    for used, rounded_used in zip(before, rounded_before, strict=True):
        last = min(capacity, rounded_before[-1] - rounded_used)
        least = min(max(exact - used, 0) // scale, max(capacity - rounded_used, 0))
        kept.append(range(min(least, last), last + 1))
    return kept


def _stretch(table: Tensor, dim: int, first: int, count: int) -> Tensor:
    """``count`` slices along ``dim`` from the one at ``first`` on; beyond the last one it is repeated."""
    first = min(first, table.shape[dim] - 1)
    have = min(count, table.shape[dim] - first)
    part = table.narrow(dim, first, have)
    if have == count:
        return part
    shape = list(part.shape)
    shape[dim] = count - have
    return torch.cat([part, part.narrow(dim, have - 1, 1).expand(shape)], dim)
