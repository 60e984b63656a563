"""Max-min: a leader raises costs, then the follower finds its least sum; branch and bound over the raised sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .search import Allowance, Proof, proof

WIDTH = 128  # nodes solved in one call, at least
SHARE = 8  # of them for each problem
ROUNDING = 1e-12  # of the sum of a problem's costs: a smaller gap is none


@dataclass
class Nodes:
    """Open nodes of all problems.

    Attributes:
        owner: whose they are ``(m,)``.
        raised, closed: cells that are raised, and cells that are or must not be ``(m, n)``.
        bound: what no set below a node exceeds ``(m,)``.
    """

    owner: Tensor
    raised: Tensor
    closed: Tensor
    bound: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def at(self, rows: Tensor) -> Nodes:
        """Some of the nodes."""
        return Nodes(self.owner[rows], self.raised[rows], self.closed[rows], self.bound[rows])

    def join(self, others: Nodes) -> Nodes:
        """These nodes and others."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Nodes(*(torch.cat(pair) for pair in pairs))


class LeaderFirst:
    r"""The best of :math:`\max_x \min_y \langle z + x \odot w, y \rangle + \langle a, x \rangle` over the sets ``x``
    that a budget pays, for a batch of problems ``(B, n)``.

    A node is a set of raised cells, and cells that must not be raised. The follower's answer ``y`` to the set gives
    each other cell a gain :math:`w_i y_i + a_i`. A larger set is better than the node's own by no more than the sum of
    its cells' gains, so it contains a cell that has one. There is one child for each of those, in which the cells
    before it in the order of gains per price must not be raised.

    Args:
        answer: costs ``(m, n)`` to the follower's points.
        z, w, a: the costs.
        prices: of the cells, integers > 0 ``(n,)``.
        budget: what the raised cells may cost.
    """

    def __init__(
        self, answer: Callable[[Tensor], Tensor], z: Tensor, w: Tensor, a: Tensor, prices: Tensor, budget: int
    ) -> None:
        self.answer, self.z, self.w, self.a, self.prices, self.budget = answer, z, w, a, prices, budget
        self.rounding = ROUNDING * (z.abs() + w.abs() + a.abs()).sum(1)
        self.best = torch.full_like(z[:, 0], -torch.inf)
        self.x, self.y = torch.zeros_like(z, dtype=torch.bool), torch.zeros_like(z)
        self.visited = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        nothing = torch.zeros_like(self.x)
        self.open = Nodes(torch.arange(len(z), device=z.device), nothing, nothing, -self.best)

    def search(self, limits: Allowance) -> tuple[Tensor, Tensor, Proof]:
        """Raised cells and answers ``(B, n)``, and what is proven about them."""
        width = max(WIDTH, SHARE * len(self.z))
        self._expand(self.open, self.open.at(self.open.owner[:0]), limits)
        while len(self.open) and limits.lasts():
            chosen = torch.zeros_like(self.open.owner, dtype=torch.bool)
            promise = (self.open.bound - self.best[self.open.owner]) / self.rounding[self.open.owner]
            chosen[promise.topk(min(width, len(promise))).indices] = True
            self._expand(self.open.at(chosen), self.open.at(~chosen), limits)
        bound = self.best.scatter_reduce(0, self.open.owner, self.open.bound, "amax")
        return self.x, self.y, proof("interdiction", self.best, bound, self.visited)

    def _expand(self, nodes: Nodes, others: Nodes, limits: Allowance) -> None:
        """Solve nodes, and put those below them that can be better than the best so far beside the others."""
        limits.used += len(nodes)
        self.visited += torch.bincount(nodes.owner, minlength=len(self.z))
        costs = self.z[nodes.owner] + nodes.raised * self.w[nodes.owner]
        y = self.answer(costs)
        value = (costs * y).sum(1) + (self.a[nodes.owner] * nodes.raised).sum(1)
        self._keep_best(nodes, value, y)
        left = self.budget - (nodes.raised * self.prices).sum(1, keepdim=True)
        gain = self.w[nodes.owner] * y + self.a[nodes.owner]
        gain = torch.where(nodes.closed | (self.prices > left), 0.0, gain).clamp_min(0)
        self.open = others.join(self._children(nodes, value, gain, left))
        self.open = self.open.at(self._hopeful(self.open.owner, self.open.bound))

    def _hopeful(self, owner: Tensor, bound: Tensor) -> Tensor:
        """Which bounds are above the best so far."""
        return bound > (self.best + self.rounding)[owner]

    def _keep_best(self, nodes: Nodes, value: Tensor, y: Tensor) -> None:
        """Of each problem the first node of the greatest value."""
        best = self.best.scatter_reduce(0, nodes.owner, value, "amax")
        place = torch.arange(len(nodes), device=value.device)
        place = torch.where((value == best[nodes.owner]) & (value > self.best[nodes.owner]), place, len(nodes))
        first = torch.full_like(self.visited, len(nodes)).scatter_reduce(0, nodes.owner, place, "amin")
        better = first < len(nodes)
        self.x[better], self.y[better] = nodes.raised[first[better]], y[first[better]]
        self.best = best

    def _children(self, nodes: Nodes, value: Tensor, gain: Tensor, left: Tensor) -> Nodes:
        """One node for each cell with a gain, bounded by what the budget pays of it and the cells after it."""
        rate, order = (gain / self.prices).sort(dim=1, descending=True, stable=True)
        most = int((rate > 0).sum(1).max())
        rate, order = rate[:, :most], order[:, :most]
        price = self.prices[order]
        spent, gained = (torch.nn.functional.pad(part.cumsum(1), (1, 0)) for part in (price, rate * price))
        # From each cell on, the last cell that is paid in full, and a share of the next.
        end = (spent[:, :-1] + left).contiguous()
        paid = torch.searchsorted(spent, end, right=True) - 1
        share = (end - spent.gather(1, paid)) * torch.nn.functional.pad(rate, (0, 1)).gather(1, paid)
        bound = value[:, None] + gained.gather(1, paid) + share - gained[:, :-1]
        parent, place = ((rate > 0) & self._hopeful(nodes.owner[:, None], bound)).nonzero(as_tuple=True)
        raised, closed = nodes.raised[parent], nodes.closed[parent]
        raised[torch.arange(len(parent), device=parent.device), order[parent, place]] = True
        tried = torch.arange(most, device=parent.device) <= place[:, None]
        closed.scatter_(1, order[parent], tried | closed.gather(1, order[parent]))
        return Nodes(nodes.owner[parent], raised, closed, bound[parent, place])
