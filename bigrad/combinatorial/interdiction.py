"""A leader who makes a follower's best answer as bad as a budget allows."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..certificate import Certificate
from ..errors import InputError, UnsupportedError
from .bilevel_oracle import BilevelOracle
from .cells import Cells
from .follower_first import FollowerFirst
from .knapsack import Knapsack
from .leader_first import LeaderFirst
from .oracle import Oracle
from .search import Allowance, check_limits
from .top_k import TopK
from .tour import Tour

Order = Literal["max_min", "min_max"]


class Interdiction(BilevelOracle):
    r"""The game of a follower, whose oracle solves for costs, and a leader who raises a few of these costs against it.

    .. math:: \langle z + x \odot w, y \rangle, \qquad x \in \{0, 1\}^n,\ \textstyle\sum_i r_i x_i \le \text{budget}

    The follower's oracle minimises this over ``y`` and the leader maximises it, or the other way round where the oracle
    maximises, such as :class:`Knapsack`: then harm is ``w <= 0``, and ``w = -z`` takes an item away. Whoever is named
    first in ``order`` moves first, and the other one answers:

    ============== =============================== ===============================
    order          ``ShortestPath``, ``Tour``, ... ``Knapsack``, ...
    ============== =============================== ===============================
    ``"max_min"``  the leader, then the follower   the follower, then the leader
    ``"min_max"``  the follower, then the leader   the leader, then the follower
    ============== =============================== ===============================

    The value of max-min is at most that of min-max, and often less. Both are exact, for ``w`` of any sign. An edge of a
    tour without direction is one cell: ``x`` is symmetric there.

    - The leader first (network interdiction): branch and bound over sets of raised cells. To do better than a set, the
      leader must raise a cell of the follower's answer to it; these cells' gains, as many as the budget pays, bound
      what they bring together. Nodes of all problems are solved in one call of the oracle.
    - The follower first (robust optimisation): with a threshold :math:`\theta` the value is :math:`\min_\theta k \theta
      + \min_y \sum_i (z_i + (w_i - \theta)_+) y_i` over the entries of ``w``, of which only those are solved that can
      be the best. The follower's points must be 0/1, and all prices 1. With the same ``w`` everywhere, the path
      does not feel the leader.

    Args:
        oracle: what solves for the follower.
        budget: an integer >= 0; without prices, the number of cells that may be raised.
        order: ``"min_max"`` or ``"max_min"``.
        prices: what raising a cell costs the leader, integers > 0 of the shape of one problem's cost; 1 by default.
        max_steps: most nodes of one problem's branch and bound.
        seconds: most seconds of a call's branch and bound.

    Raises:
        InputError: an argument does not fit.
        UnsupportedError: prices where the follower is first, or a follower's points that are not 0/1.

    Raises (when it solves):
        NotConverged: a limit stopped the search; the message names the gap.

    Source: Shortest-Path Network Interdiction, Israeli, Wood, 2002; Robust Discrete Optimization and Network Flows,
    Bertsimas, Sim, 2003.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Interdiction, ShortestPath
        >>> z = torch.tensor([[1.0, 2.0, 5.0], [3.0, 1.0, 2.0], [5.0, 2.0, 1.0]])
        >>> w = torch.tensor([[0.0, 4.0, 4.0], [4.0, 4.0, 4.0], [4.0, 4.0, 0.0]])
        >>> x, y = Interdiction(ShortestPath(), budget=1, order="max_min")(z, w)
        >>> x  # the centre, which the path then goes around
        tensor([[0., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])
        >>> y
        tensor([[1., 1., 0.],
                [0., 0., 1.],
                [0., 0., 1.]])
    """

    def __init__(
        self,
        oracle: Oracle,
        budget: int,
        order: Order = "min_max",
        *,
        prices: Any = None,
        max_steps: int | None = None,
        seconds: float | None = None,
    ) -> None:
        if not isinstance(oracle, Oracle):
            raise InputError(f"Interdiction: the follower is {oracle!r}; wanted an oracle such as ShortestPath()")
        if order not in ("max_min", "min_max"):
            raise InputError(f'Interdiction: order is {order!r}; wanted "min_max" or "max_min"')
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise InputError(f"Interdiction: the budget is {budget!r}; wanted an integer >= 0")
        check_limits(max_steps, seconds)
        self.budget, self.order, self.max_steps, self.seconds = budget, order, max_steps, seconds
        self.event_dims = oracle.event_dims
        self.follower_maximises, self.leader_maximises = oracle.maximise, not oracle.maximise
        self.prices = None if prices is None else _read_prices(prices, oracle)
        self.leader_first = (order == "max_min") != oracle.maximise
        if prices is not None and not self.leader_first:
            raise UnsupportedError(
                f'Interdiction: prices with order="{order}", where the follower moves first; wanted the other order, '
                "or no prices"
            )
        self.follower: Oracle = oracle
        self.leader: Oracle = Raising(self.budget, self.prices, oracle)

    def __repr__(self) -> str:
        prices = "" if self.prices is None else f", {self.prices.numel()} prices"
        limits = "".join(
            f", {name}={limit}" for name in ("max_steps", "seconds") if (limit := getattr(self, name)) is not None
        )
        return f'Interdiction({self.follower}, budget={self.budget}, order="{self.order}"{prices}{limits})'

    def check(self, z: Tensor, w: Tensor) -> None:
        """Raise :class:`InputError` where the follower's oracle does not take the costs, raised or not."""
        event = z.shape[z.ndim - self.event_dims :]
        if self.prices is not None and self.prices.shape != event:
            raise InputError(f"Interdiction: prices {tuple(self.prices.shape)} for a problem of shape {tuple(event)}")
        self.follower.validate(z)
        self.follower.validate(z + w)

    def project(self, z: Tensor, w: Tensor) -> Tensor:
        """The nearest ``z`` for which the follower's oracle takes the costs, raised or not."""
        return torch.maximum(z, (-w).clamp_min(0)) if self.follower.nonnegative else z

    def solve(self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The raised cells and the follower's points ``(B, *event)``."""
        x, y, certificate = self.search(z, w, a, b)
        certificate.enforce("raise")
        return x, y

    def search(
        self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Certificate]:
        """The raised cells and the follower's points ``(B, *event)``, and the gap that a limit has left."""
        sense = -1.0 if self.follower_maximises else 1.0
        cells = Cells(self.follower, z.shape[1:], z.device)

        def gather(cost: Tensor | None) -> Tensor:
            return cells.gather(torch.zeros_like(z) if cost is None else sense * cost.detach()).double()

        def answer(costs: Tensor) -> Tensor:
            return cells.pick(self.follower.solve(self.follower.project(sense * cells.split(costs))))

        numbers = gather(z) + gather(b), gather(w), gather(a)
        if self.leader_first:
            prices = torch.ones(z.shape[1:], dtype=torch.int64) if self.prices is None else self.prices
            tree = LeaderFirst(answer, *numbers, cells.pick(prices[None].to(z.device))[0], self.budget)
            x, y, certificate = tree.search(Allowance(self.max_steps, self.seconds))
        else:
            x, y, certificate = FollowerFirst(answer, *numbers, self.budget).search()
        return cells.spread(x).to(z.dtype), cells.spread(y).to(z.dtype), certificate


class Raising(Oracle):
    """The cells that a leader with a budget raises where they are worth most, none of them for nothing.

    Args:
        budget: the most that they cost.
        prices: of the cells, of the shape of one problem's cost, 1 each for ``None``.
        follower: whose costs are raised; where it maximises, the leader minimises.
    """

    def __init__(self, budget: int, prices: Tensor | None, follower: Oracle) -> None:
        self.budget, self.prices, self.follower = budget, prices, follower
        self.event_dims, self.maximise = follower.event_dims, not follower.maximise

    def __repr__(self) -> str:
        return f"Raising(budget={self.budget})"

    def solve(self, cost: Tensor) -> Tensor:
        """The raised cells ``(B, *event)`` for what raising each is worth."""
        cells = Cells(self.follower, cost.shape[1:], cost.device)
        worth = cells.gather(cost if self.maximise else -cost).contiguous()
        if self.prices is None:
            raised = TopK(min(self.budget, worth.shape[1])).solve(worth)
        else:
            raised = Knapsack(cells.pick(self.prices[None].to(cost.device))[0], self.budget).solve(worth)
        return cells.spread(raised * (worth > 0))


def _read_prices(prices: Any, oracle: Oracle) -> Tensor:
    read = torch.as_tensor(prices).detach().cpu()
    if read.is_floating_point() or read.is_complex() or read.ndim != oracle.event_dims or not bool((read > 0).all()):
        raise InputError(
            f"Interdiction: prices are {read.dtype} of shape {tuple(read.shape)}; wanted integers > 0 with "
            f"{oracle.event_dims} dimensions"
        )
    if isinstance(oracle, Tour) and not oracle.directed and not torch.equal(read, read.mT):
        raise InputError("Interdiction: the prices of a tour's edges differ by direction; wanted a symmetric matrix")
    return read.long()
