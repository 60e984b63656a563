"""A leader who sets tolls on the edges of a graph, and a follower who takes the cheapest path."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..calculus import transforming
from ..errors import InputError, Unbounded, UnsupportedError
from .bilevel_oracle import BilevelOracle
from .graph_path import GraphShortestPath
from .search import Allowance, Proof, check_limits, proof
from .toll_prices import Leaving, Prices, TolledGraph


class TollSetting(BilevelOracle):
    r"""The tolls that collect most from a follower who takes the cheapest path, tolls included.

    .. math:: \max_{0 \le x \le w} \langle x, y \rangle, \qquad y \in \arg\min_y \langle z + x, y \rangle

    Here ``w`` is the largest toll of each edge: zero where there must be none, ``inf`` where there is no limit. Of
    paths that cost the follower the same it takes the one that pays the leader best.

    Exact, for small graphs: paths are tried in the order of their costs, and the best tolls on a path are shortest
    distances in a graph of its detours. A path can bring no more than what it is cheaper than the cheapest path under
    all largest tolls, which ends the search. On edges that the follower does not use tolls are as high as they may be.

    As a layer, with a single-level estimator, the tolls have their exact derivative at the follower's path, and the
    path that of the estimator at its costs ``z + x``. The follower is indifferent between paths there, so the path's
    derivative is a heuristic.

    Args:
        graph: the follower's oracle, :meth:`ShortestPath.graph`.
        max_steps: most partial paths that a call looks at.
        seconds: the most that a call may take.

    Raises:
        InputError: the follower is none of these.

    Raises (when it solves):
        Unbounded: each path pays a toll without limit.
        NotConverged: a limit stopped the search; the message names the gap.

    Source: A Bilevel Model of Taxation and Its Application to Optimal Highway Pricing, Labbé, Marcotte, Savard, 1998.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import ShortestPath, TollSetting
        >>> graph = ShortestPath.graph([(0, 1), (1, 2), (0, 2)], source=0, target=2)
        >>> x, y = TollSetting(graph)(torch.tensor([1.0, 1.0, 5.0]), torch.tensor([2.0, torch.inf, 0.0]))
        >>> x, y
        (tensor([2., 1., 0.]), tensor([1., 1., 0.]))
    """

    bilinear = False

    def __init__(self, graph: GraphShortestPath, *, max_steps: int | None = None, seconds: float | None = None) -> None:
        if not isinstance(graph, GraphShortestPath):
            raise InputError(
                f"TollSetting: the follower is {graph!r}; wanted ShortestPath.graph(edges, source, target)"
            )
        check_limits(max_steps, seconds)
        self.follower: GraphShortestPath = graph
        self.max_steps, self.seconds = max_steps, seconds
        self._leaving: Leaving = {}
        for edge, (tail, head) in enumerate(graph.edges.tolist()):
            for one, other in ((tail, head),) if graph.directed else ((tail, head), (head, tail)):
                self._leaving.setdefault(one, []).append((edge, other))

    def __repr__(self) -> str:
        return f"TollSetting({self.follower})"

    def validate(self, z: Tensor, w: Tensor) -> None:
        """Raise :class:`InputError` where the costs are none, or the largest tolls."""
        self.check_shapes(z, w)
        self.follower.validate(z)
        least = min(float(part.detach().min()) if part.numel() else 0.0 for part in (z, w))
        if bool(w.isnan().any()) or not least >= 0:
            raise InputError(f"TollSetting: the least cost or largest toll is {least:.3g}, NaN among them; wanted >= 0")

    def project(self, z: Tensor, w: Tensor) -> Tensor:
        """The nearest costs that are at least zero."""
        return z.clamp_min(0)

    def costs(self, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What a toll brings on each edge, and what the follower pays for it."""
        return y, z + x

    def solve(self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tolls and paths ``(B, E)``."""
        x, y, certificate = self.search(z, w, a, b)
        certificate.enforce("raise")
        return x, y

    def search(
        self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Proof]:
        """Tolls and paths ``(B, E)``, and the gap that a limit has left."""
        if a is not None:
            raise UnsupportedError("TollSetting takes no tilt of the tolls: its levels share no objective")
        limits = Allowance(self.max_steps, self.seconds)
        costs = z if b is None else self.project(z + b, w)
        x, y = torch.zeros_like(z), torch.zeros_like(z)
        found = []
        for place, graph in enumerate(self._graphs(costs, w)):
            before = limits.used
            best, collected, most = _search(graph, limits)
            x[place] = torch.tensor([graph.sum_of(terms) for terms in graph.tolls(best)], dtype=torch.float64).to(z)
            y[place, best.edges] = 1
            found.append((collected, most, limits.used - before))
        value, bound, steps = torch.tensor(found, dtype=torch.float64).reshape(-1, 3).unbind(1)
        return torch.minimum(x.clamp_min(0), w), y, proof("toll setting", value, bound, steps.long())

    def respond(self, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The tolls with their derivative, on the paths ``y``."""
        if transforming():
            raise UnsupportedError(
                "TollSetting: tolls have no derivative under torch.func; call backward in eager mode"
            )
        rows_z, rows_w, rows_y = (part.reshape(-1, part.shape[-1]) for part in (z, w, y))
        by_z, by_w = torch.zeros(2, *rows_z.shape, rows_z.shape[-1], dtype=z.dtype)
        for place, graph in enumerate(self._graphs(rows_z, rows_w)):
            best = graph.prices(graph.order(rows_y[place].nonzero().flatten().tolist()))
            assert best is not None  # the follower has taken this path
            for which, terms in enumerate(graph.tolls(best)):
                for edge, costs, tolled in terms:
                    by_z[place, which, edge] += costs
                    by_w[place, which, edge] += tolled
        limited = torch.where(rows_w.isfinite(), rows_w, 0.0)
        of_z, of_w = (by.to(z.device) @ rows[..., None] for by, rows in ((by_z, rows_z), (by_w, limited)))
        tolls: Tensor = (of_z + of_w).reshape(z.shape)
        return x + (tolls - tolls.detach())

    def _graphs(self, z: Tensor, w: Tensor) -> Iterator[TolledGraph]:
        """The graph of each problem."""
        ends = self.follower.source, self.follower.target
        rows = zip(z.detach().double().tolist(), w.detach().double().tolist(), strict=True)
        for place, (costs, limits) in enumerate(rows):
            graph = TolledGraph(self._leaving, *ends, costs, limits)
            if graph.most == torch.inf:
                raise Unbounded(
                    f"TollSetting (problem {place} of {len(z)}): each path from node {ends[0]} to node {ends[1]} has a "
                    "toll without limit; wanted one without: set w = 0 on its edges, or a finite largest toll"
                )
            yield graph


def _search(graph: TolledGraph, limits: Allowance) -> tuple[Prices, float, float]:
    """The best prices of all paths, what they collect, and what no prices exceed."""
    best: Prices | None = None
    collected = -torch.inf
    for least, edges in graph.paths():
        if best is not None and (graph.most - least <= collected or not limits.lasts()):
            return best, collected, max(collected, graph.most - least)
        limits.used += 1
        prices = None if edges is None else graph.prices(edges)
        if prices is not None and graph.collected(prices) > collected:
            best, collected = prices, graph.collected(prices)
    assert best is not None  # the cheapest path is taken at tolls of zero
    return best, collected, collected
