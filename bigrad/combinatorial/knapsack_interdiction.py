"""Knapsack interdiction: a leader takes items away before the follower packs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..certificate import OnFailure, check_on_failure
from ..errors import InputError, UnsupportedError
from .knapsack_bounds import KnapsackBounds
from .search import Allowance, proof

TABLE = 2**26  # entries of the tables of bounds that are kept at most
CAPACITY = 2**22  # the largest for which all packings are kept


def solve_knapsack_interdiction(
    profit: Tensor | Sequence[int],
    weight: Tensor | Sequence[int],
    leader_weight: Tensor | Sequence[int],
    capacity: int,
    leader_capacity: int,
    *,
    max_steps: int | None = None,
    seconds: float | None = None,
    on_failure: OnFailure = "raise",
) -> tuple[int, Tensor, Tensor]:
    r"""The items to take from a follower, who packs the best of what is left, so that this is worth least.

    .. math:: \min_{x \in \{0,1\}^n,\ a \cdot x \le A}\ \max_{y \in \{0,1\}^n,\ b \cdot y \le C,\ y \le 1 - x} p \cdot y

    Exact: depth-first search over the items from the most profit per weight on, the more promising answer first. A
    table that the items fill from the last on bounds what is to come: there the leader sees how the follower has packed
    the items before. It holds ``n`` times both capacities; where that is too large, weights are rounded in it,
    which makes the bounds weaker and no answer wrong.

    Args:
        profit: p, integers >= 0 ``(n,)``.
        weight: b, the follower's weights, integers >= 0 ``(n,)``.
        leader_weight: a, what taking an item costs the leader, integers >= 0 ``(n,)``.
        capacity: C, the follower's.
        leader_capacity: A, the leader's.
        max_steps: most nodes of the search, which has its first answer after ``n + 1``.
        seconds: most seconds, tables included, until no further answer is looked for.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` a search that a limit has stopped; under the last two the
            best answer found is returned.

    Returns:
        The value, x and y ``(n,)`` int64; y is a best answer to x.

    Raises:
        InputError: numbers that are negative or no integers, or lengths that differ.
        UnsupportedError: a capacity beyond four million.
        NotConverged: a limit stopped the search; the message names the gap, ``error.certificate.gap`` is it.

    Source: A Study on the Computational Complexity of the Bilevel Knapsack Problem, Caprara, Carvalho, Lodi, Woeginger,
    2014; A Fast Combinatorial Algorithm for the Bilevel Knapsack Problem with Interdiction Constraints, Weninger,
    Fukasawa, 2023.

    Example:
        >>> from bigrad.combinatorial import solve_knapsack_interdiction
        >>> solve_knapsack_interdiction([5, 4, 3], [2, 3, 1], [1, 1, 1], capacity=4, leader_capacity=1)
        (5, tensor([0, 0, 1]), tensor([1, 0, 0]))
    """
    check_on_failure(on_failure)
    limits = Allowance(max_steps, seconds)
    numbers = {"profit": profit, "weight": weight, "leader_weight": leader_weight}
    p, b, a = (_integers(given, name) for name, given in numbers.items())
    if not len(p) == len(b) == len(a):
        raise InputError(f"{len(p)} profits, {len(b)} weights and {len(a)} leader_weights; wanted as many of each")
    (C,), (A,) = _integers([capacity], "capacity"), _integers([leader_capacity], "leader_capacity")
    C, A = min(C, sum(b)), min(A, sum(a))
    if C > CAPACITY:
        raise UnsupportedError(f"the capacity is {C}; at most {CAPACITY} is searched: divide it and the weights")
    order = sorted(range(len(p)), key=lambda item: -p[item] / max(b[item], 1e-9))
    p, b, a = ([part[item] for item in order] for part in (p, b, a))
    taken, bound = _search(p, b, a, C, A, limits)
    packed = _packing([0 if gone else worth for worth, gone in zip(p, taken, strict=True)], b, C)
    value = sum(worth for worth, inside in zip(p, packed, strict=True) if inside)
    proof("knapsack interdiction", torch.tensor(value), torch.tensor(bound), torch.tensor(limits.used)).enforce(
        on_failure
    )
    answer = torch.zeros(2, len(p), dtype=torch.int64)
    answer[:, order] = torch.tensor([taken, packed], dtype=torch.int64)
    x, y = answer.to(profit.device) if isinstance(profit, Tensor) else answer
    return value, x, y


def _search(p: list[int], b: list[int], a: list[int], C: int, A: int, limits: Allowance) -> tuple[list[int], int]:
    """The items the leader takes, and the least value that is still possible."""
    bounds = KnapsackBounds(p, b, a, C, A, TABLE)
    unfilled = C - torch.arange(C + 1)
    places = [bounds.places(item, unfilled) for item in range(len(p) + 1)]
    filled = [min(weight, C) + 1 for weight in accumulate(b, initial=0)]

    def node(packings: Tensor, left: int, taken: tuple[int, ...]) -> tuple[int, Tensor, int, tuple[int, ...]]:
        item = len(taken)
        most = filled[item]
        bound = (packings[:most] + bounds.row(item, left)[places[item][:most]]).max()
        return int(bound), packings, left, taken

    best, answer = sum(p) + 1, [0] * len(p)
    # A packing of the items so far for each capacity it may fill, what is left of the leader's, and what was taken.
    open_nodes = [node(bounds.tables[0].new_zeros(C + 1), A, ())]
    while open_nodes and (best > sum(p) or limits.lasts()):
        bound, packings, left, taken = open_nodes.pop()
        if bound >= best:
            continue
        limits.used += 1
        item = len(taken)
        if item == len(p):
            best, answer = bound, list(taken)
            continue
        children = [node(_packed(packings, p[item], b[item]), left, (*taken, 0))]
        if a[item] <= left:
            children.append(node(packings, left - a[item], (*taken, 1)))
        # The child with the least bound is the next; where they are equal, the one that takes the item.
        open_nodes += sorted((child for child in children if child[0] < best), key=lambda child: -child[0])
    return answer, min([best, *(bound for bound, *_ in open_nodes)])


def _packed(packings: Tensor, profit: int, weight: int) -> Tensor:
    """The best packings once one more item may be packed."""
    if weight >= len(packings):
        return packings
    result = packings.clone()
    torch.maximum(result[weight:], packings[: len(packings) - weight] + profit, out=result[weight:])
    return result


def _packing(p: list[int], b: list[int], C: int) -> list[int]:
    """A best packing."""
    rows = [torch.zeros(C + 1, dtype=torch.int64)]
    for profit, weight in zip(p, b, strict=True):
        rows.append(_packed(rows[-1], profit, weight))
    packed, left = [0] * len(p), C
    for item in reversed(range(len(p))):
        packed[item] = int(rows[item + 1][left] > rows[item][left])
        left -= packed[item] * b[item]
    return packed


def _integers(given: Any, name: str) -> list[int]:
    """A vector of integers >= 0."""
    numbers = torch.as_tensor(given).detach().cpu()
    if numbers.numel() and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise InputError(
            f"{name} is {numbers.dtype}; wanted integers: round it, after scaling where that is too coarse"
        )
    if numbers.ndim != 1:
        raise InputError(f"{name} has shape {tuple(numbers.shape)}; wanted one dimension")
    if numbers.numel() and int(numbers.min()) < 0:
        raise InputError(f"the least {name} is {int(numbers.min())}; wanted integers >= 0")
    return [int(number) for number in numbers]
