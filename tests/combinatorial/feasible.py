"""All points of small combinatorial problems, listed without any cost; and the best of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from bigrad.combinatorial import Oracle

D = torch.float64
Edges = list[tuple[int, int]]


def draw(*shape: int, seed: int = 0, kind: str = "normal", dtype: torch.dtype = D) -> Tensor:
    """Random costs: of both signs, positive, whole (with many ties), or mostly zero."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(*shape, generator=generator, dtype=dtype)
    match kind:
        case "positive":
            return normal.abs() + 0.01
        case "whole":
            return (2 * normal).round()
        case "zeros":
            return (normal.abs() - 0.8).clamp_min(0).ceil()
    return normal


def indicators(sets: list[list[int]], size: int) -> Tensor:
    """0/1 vectors ``(P, size)``."""
    rows = torch.zeros(len(sets), size, dtype=D)
    for row, members in zip(rows, sets, strict=True):
        row[members] = 1
    return rows


def graph_paths(edges: Edges, source: int, target: int, directed: bool) -> Tensor:
    """All simple paths as masks of edges ``(P, E)``."""
    leaving: dict[int, list[tuple[int, int]]] = {}
    for edge, (u, v) in enumerate(edges):
        leaving.setdefault(u, []).append((v, edge))
        if not directed:
            leaving.setdefault(v, []).append((u, edge))
    found: list[list[int]] = []

    def walk(node: int, seen: frozenset[int], taken: list[int]) -> None:
        if node == target:
            found.append(taken)
            return
        for beside, edge in leaving.get(node, ()):
            if beside not in seen:
                walk(beside, seen | {beside}, [*taken, edge])

    walk(source, frozenset({source}), [])
    return indicators(found, len(edges))


def trees(edges: Edges, nodes: int) -> Tensor:
    """All spanning trees as masks of edges ``(P, E)``."""

    def spans(chosen: tuple[int, ...]) -> bool:
        tree = list(range(nodes))
        for edge in chosen:
            one, other = (tree[end] for end in edges[edge])
            tree = [one if name == other else name for name in tree]
        return len(set(tree)) == 1

    chosen = itertools.combinations(range(len(edges)), nodes - 1)
    return indicators([list(few) for few in chosen if spans(few)], len(edges))


@cache
def tours(nodes: int, directed: bool) -> Tensor:
    """All tours as matrices ``(P, nodes * nodes)``."""
    found = []
    for order in itertools.permutations(range(1, nodes)):
        ring = [0, *order]
        steps = list(zip(ring, [*order, 0], strict=True))
        steps += [] if directed else [(j, i) for i, j in steps]
        found.append([i * nodes + j for i, j in steps])
    return indicators(found, nodes * nodes)


@cache
def permutations(size: int) -> Tensor:
    """All permutations of 0, 1, ... ``(P, size)``."""
    return torch.tensor(list(itertools.permutations(range(size))), dtype=D)


def matrices(size: int) -> Tensor:
    """All permutation matrices ``(P, size * size)``."""
    return torch.nn.functional.one_hot(permutations(size).long(), size).flatten(1).to(D)


def assert_best(oracle: Oracle | Callable[[Tensor], Tensor], cost: Tensor, points: Tensor, maximise: bool) -> Tensor:
    """The oracle's points for costs ``(B, ...)``: each is one of ``points`` ``(P, n)``, and none of those is better."""
    y = oracle(cost)
    assert y.dtype == cost.dtype
    assert y.shape == cost.shape
    found, flat = y.flatten(1).to(D), cost.flatten(1).to(D)
    assert bool((found[:, None] == points).all(-1).any(1).all()), "not a point of the problem"
    values = flat @ points.T
    best = values.amax(1) if maximise else values.amin(1)
    tolerance = 100 * torch.finfo(cost.dtype).eps * flat.abs().sum(1)
    assert bool(((found * flat).sum(1) - best).abs().le(tolerance).all()), "not the best"
    return y
