"""What a graph's structure says before any cost is known: its edges, and what lies between two nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


def read_edges(name: str, edges: Any, nodes: int | None = None) -> Tensor:
    """The edges as integers ``(E, 2)`` in main memory.

    Raises:
        InputError: they are no pairs of nodes, or name a node that does not exist.
    """
    pairs = torch.as_tensor(edges).detach().cpu()
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point() or pairs.is_complex():
        raise InputError(f"{name}: the edges are {pairs.dtype} of shape {tuple(pairs.shape)}; wanted integers (E, 2)")
    most = torch.iinfo(torch.int64).max if nodes is None else nodes - 1
    if pairs.numel() and (int(pairs.min()) < 0 or int(pairs.max()) > most):
        wanted = "nodes numbered from 0" if nodes is None else f"nodes from 0 to {most}"
        raise InputError(f"{name}: the edges name nodes from {int(pairs.min())} to {int(pairs.max())}; wanted {wanted}")
    return pairs.long()


@dataclass(frozen=True)
class Arcs:
    """The directed arcs that can be part of a path, on nodes renumbered: 0 is the source, the last one the target.

    Where the arcs close no circle, nodes are sorted by their level: the most arcs on a way from the source.

    Attributes:
        tail, head: the ends ``(A,)``, sorted by head and edge.
        edge: the edge whose cost an arc has ``(A,)``.
        nodes, edges: how many.
        levels: bounds of the nodes of one level; ``None`` where the arcs close a circle.
    """

    tail: Tensor
    head: Tensor
    edge: Tensor
    nodes: int
    edges: int
    levels: tuple[int, ...] | None

    @classmethod
    def between(cls, edges: Tensor, source: int, target: int, directed: bool) -> Arcs:
        """The arcs of ``edges`` that lie on a way from ``source`` to ``target``."""
        listed = [(u, v, e) for e, (u, v) in enumerate(edges.tolist())]
        listed += [] if directed else [(v, u, e) for u, v, e in listed]
        listed = [(u, v, e) for u, v, e in listed if u != v and v != source and u != target]
        ahead = reached(source, [(u, v) for u, v, _ in listed])
        behind = reached(target, [(v, u) for u, v, _ in listed])
        listed = [(u, v, e) for u, v, e in listed if u in ahead and v in behind]
        level = _levels(source, ahead & behind, [(u, v) for u, v, _ in listed])
        between = (ahead & behind) | {source, target}
        order = sorted(between, key=lambda v: (v == target, v != source, level.get(v, 0), v))
        acyclic = len(level) == len(order)
        bounds = [k for k, v in enumerate(order) if k == 0 or level.get(v) != level.get(order[k - 1])]
        number = {node: k for k, node in enumerate(order)}
        listed = sorted((number[v], e, number[u]) for u, v, e in listed)
        head, edge, tail = torch.tensor(listed, dtype=torch.int64).reshape(-1, 3).unbind(1)
        return cls(tail, head, edge, len(order), len(edges), (*bounds, len(order)) if acyclic else None)


def reached(start: int, arcs: list[tuple[int, int]]) -> set[int]:
    """The nodes that arcs lead to from ``start``."""
    leaving: dict[int, list[int]] = {}
    for u, v in arcs:
        leaving.setdefault(u, []).append(v)
    found, waiting = {start}, [start]
    while waiting:
        for v in leaving.get(waiting.pop(), ()):
            if v not in found:
                found.add(v)
                waiting.append(v)
    return found


def _levels(source: int, nodes: set[int], arcs: list[tuple[int, int]]) -> dict[int, int]:
    """The most arcs on a way from the source, of every node; nodes on or behind a circle are left out."""
    leaving: dict[int, list[int]] = {}
    missing = dict.fromkeys(nodes, 0)
    for u, v in arcs:
        leaving.setdefault(u, []).append(v)
        missing[v] += 1
    level, waiting = {source: 0}, [source]
    while waiting:
        u = waiting.pop()
        for v in leaving.get(u, ()):
            missing[v] -= 1
            level[v] = max(level.get(v, 0), level[u] + 1)
            if not missing[v]:
                waiting.append(v)
    return {node: depth for node, depth in level.items() if not missing.get(node, 0)}
