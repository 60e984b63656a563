"""Shortest paths where a way may come back to a node: distances first, then the arcs that attain them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..compiled import runs_compiled
from .graph import Arcs


def circle_paths(arcs: Arcs, cost: Tensor, compiled: bool | None) -> Tensor:
    """The paths ``(B, E)`` for costs ``(B, E)``, at least zero.

    Distances are sums in double precision, the same from SciPy and from torch. An arc is tight where it attains the
    distance of its head. A path enters a node by its first tight arc from a nearer node; inside a plateau (costs of
    zero) by the first that is on a way of fewest arcs to its edge.
    """
    costs = cost[:, arcs.edge.to(cost.device)].double()
    solve = _dijkstra if runs_compiled(compiled, cost, "scipy") else _sweeps
    into = _entries(arcs, costs, solve(arcs, costs))
    tail, edge = arcs.tail.to(cost.device), arcs.edge.to(cost.device)
    tail, edge = torch.cat([tail, tail.new_tensor([0])]), torch.cat([edge, edge.new_tensor([arcs.edges])])
    mask = cost.new_zeros(len(cost), arcs.edges + 1)
    node = torch.full((len(cost), 1), arcs.nodes - 1, device=cost.device)
    while bool((node > 0).any()):
        arc = into.gather(1, node)
        mask.scatter_(1, edge[arc], 1)
        node = tail[arc]
    return mask[:, :-1]


def _sweeps(arcs: Arcs, costs: Tensor) -> Tensor:
    """The distances ``(B, nodes)``: all are lowered together until none changes."""
    tail, head = arcs.tail.to(costs.device), arcs.head.to(costs.device).expand_as(costs)
    distance = costs.new_full((len(costs), arcs.nodes), torch.inf)
    distance[:, 0] = 0
    while True:
        lower = distance.scatter_reduce(1, head, distance[:, tail] + costs, "amin")
        if torch.equal(lower, distance):
            return distance
        distance = lower


def _dijkstra(arcs: Arcs, costs: Tensor) -> Tensor:
    """The distances ``(B, nodes)``: one call on all graphs of the batch side by side."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    batch, nodes = len(costs), arcs.nodes
    # SciPy adds up what lies between the same two nodes: of such arcs only the cheapest is kept.
    pair, place = torch.unique(arcs.tail * nodes + arcs.head, return_inverse=True)
    least = costs.new_full((batch, len(pair)), torch.inf).scatter_reduce(1, place.expand_as(costs), costs, "amin")
    shift = torch.arange(batch)[:, None]
    column = (pair % nodes + shift * nodes).flatten()
    row = (pair // nodes + shift * nodes).flatten()
    start = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=batch * nodes).cumsum(0)])
    union = csr_array((least.flatten().numpy(), column.numpy(), start.numpy()), shape=(batch * nodes, batch * nodes))
    sources = np.arange(batch) * nodes
    return torch.from_numpy(dijkstra(union, indices=sources, min_only=True)).view(batch, nodes)


def _entries(arcs: Arcs, costs: Tensor, distance: Tensor) -> Tensor:
    """The arc by which a path enters each node ``(B, nodes)``; the number of arcs where there is none."""
    count = len(arcs.edge)
    tail, head = arcs.tail.to(costs.device), arcs.head.to(costs.device).expand_as(costs)
    tight = distance[:, tail] + costs == distance[:, arcs.head.to(costs.device)]
    nearer = distance[:, tail] < distance[:, arcs.head.to(costs.device)]
    arc = torch.arange(count, device=costs.device).expand_as(head)
    none = arc.new_full(distance.shape, count)
    into = none.scatter_reduce(1, head, torch.where(tight & nearer, arc, count), "amin")
    settled = into < count
    settled[:, 0] = True
    while not bool(settled.all()):
        more = none.scatter_reduce(1, head, torch.where(tight & settled[:, tail], arc, count), "amin")
        into = torch.where(settled, into, more)
        settled = settled | (into < count)
    return into
