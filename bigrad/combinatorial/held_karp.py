"""Shortest tours by dynamic programming over sets of nodes, in plain torch."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def held_karp(cost: Tensor) -> Tensor:
    """The node that follows each ``(B, n)`` on the shortest tour, for costs ``(B, n, n)``.

    ``length[S, j]`` is the least length of a way from node 0 through all of the set ``S`` that ends at its member
    ``j``; sets of one size are computed together. Of equals the last step comes from the lowest node.
    """
    batch, nodes, _ = cost.shape
    others = nodes - 1
    costs = cost.permute(1, 2, 0).reshape(nodes * nodes, batch)
    length = cost.new_full((2**others * others, batch), torch.inf)
    member = torch.arange(others, device=cost.device)
    length[2**member * others + member] = costs[1:nodes]
    for tables in _tables(nodes):
        state, before, edge = (table.to(cost.device) for table in tables)
        ways = length[before.flatten()] + costs[edge.flatten()]
        length[state] = ways.view(*before.shape, batch).amin(1)
    return _trace(length, costs, nodes)


def _trace(length: Tensor, costs: Tensor, nodes: int) -> Tensor:
    """Go back from node 0 to the member that attains the length, one after another."""
    batch, others = length.shape[1], nodes - 1
    member = torch.arange(others, device=length.device)[:, None]
    visited = torch.full((1, batch), 2**others - 1, device=length.device)
    here = torch.zeros_like(visited)
    following = torch.zeros(nodes, batch, dtype=torch.int64, device=length.device)
    for _ in range(others):
        ways = length.gather(0, visited * others + member) + costs.gather(0, (member + 1) * nodes + here)
        before = ways.argmin(0, keepdim=True) + 1
        following.scatter_(0, before, here)
        visited, here = visited - 2 ** (before - 1), before
    return following.scatter_(0, torch.zeros_like(here), here).T.contiguous()


@cache
def _tables(nodes: int) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """For the sets of each size from two: the places of ``(S, j)``, of ``(S - j, i)``, and of the edge ``(i, j)``."""
    others = nodes - 1
    sets = torch.arange(2**others)
    holds = sets[:, None] >> torch.arange(others) & 1 == 1
    found = []
    for size in range(2, others + 1):
        chosen = sets[holds.sum(1) == size]
        members = holds[chosen].nonzero()[:, 1].view(-1, size)
        rest = torch.stack([torch.cat([members[:, :k], members[:, k + 1 :]], 1) for k in range(size)], 1)
        state = chosen[:, None] * others + members
        before = (chosen[:, None] - 2**members).unsqueeze(-1) * others + rest
        edge = (rest + 1) * nodes + members.unsqueeze(-1) + 1
        found.append((state.flatten(), before.flatten(0, 1), edge.flatten(0, 1)))
    return tuple(found)
