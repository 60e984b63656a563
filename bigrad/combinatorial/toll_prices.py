"""The tolls that are best on one path, and the paths that come into question."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

Leaving = dict[int, list[tuple[int, int]]]  # for each node the pairs (edge, next node)
Terms = list[tuple[int, int, int]]  # edge, how often its cost is counted, and its largest toll


@dataclass(frozen=True)
class Prices:
    """The greatest prices of a path, tolls included, at which the follower takes it.

    Attributes:
        edges: of the path.
        totals: from the source to each node of the path.
        terms: what these sums consist of.
    """

    edges: list[int]
    totals: list[float]
    terms: list[Terms]


class TolledGraph:
    """A graph with the cost and the largest toll of each edge.

    Args:
        leaving: the ways from each node.
        source, target: the ends of the follower's path.
        z, w: costs and largest tolls.

    Attributes:
        most: the least price of a path under all largest tolls.
        fallback: the edges of that path.
    """

    def __init__(self, leaving: Leaving, source: int, target: int, z: list[float], w: list[float]) -> None:
        self.leaving, self.source, self.target, self.z, self.w = leaving, source, target, z, w
        self.full = [cost + toll for cost, toll in zip(z, w, strict=True)]
        distance, entry = distances(leaving, source, self.full)
        self.most = distance.get(target, inf)
        self.fallback = way(source, target, entry) if self.most < inf else []

    def paths(self) -> Iterator[tuple[float, list[int] | None]]:
        """Paths in the order of their cost; and before them, with ``None``, what the next one costs at least."""
        entering: Leaving = {}
        for node, ways in self.leaving.items():
            for edge, head in ways:
                entering.setdefault(head, []).append((edge, node))
        ahead, _ = distances(entering, self.target, self.z)
        waiting = [(ahead[self.source], 0.0, [self.source], list[int]())]
        while waiting:
            least, cost, nodes, edges = heapq.heappop(waiting)
            yield least, edges if nodes[-1] == self.target else None
            for edge, head in self.leaving.get(nodes[-1], ()) if nodes[-1] != self.target else ():
                if head in ahead and head not in nodes:
                    further = cost + self.z[edge]
                    heapq.heappush(waiting, (further + ahead[head], further, [*nodes, head], [*edges, edge]))

    def prices(self, edges: list[int]) -> Prices | None:
        r"""The greatest prices of a path; ``None`` where the follower does not take it even without tolls.

        Tolls off the path are as high as they may be. With the price :math:`S_j` up to the path's node ``j`` the
        follower keeps to it if no detour is cheaper, :math:`S_j - S_i \le D_{ij}` for :math:`i < j`, and the tolls want
        :math:`z_j \le S_j - S_{j-1} \le z_j + w_j`. The greatest such prices are distances from the first node.
        """
        nodes = self._nodes(edges)
        open_prices = [inf if edge in edges else price for edge, price in enumerate(self.full)]
        links: list[tuple[int, int, float, Terms]] = []
        for place, edge in enumerate(edges):
            links.append((place + 1, place, -self.z[edge], [(edge, -1, 0)]))
            links.append((place, place + 1, self.full[edge], [(edge, 1, 1)]))
            distance, entry = distances(self.leaving, nodes[place], open_prices)
            for later in range(place + 1, len(nodes)):
                if nodes[later] in distance:
                    detour = [(edge, 1, 1) for edge in way(nodes[place], nodes[later], entry)]
                    links.append((place, later, distance[nodes[later]], detour))
        return self._least(edges, links)

    def collected(self, prices: Prices) -> float:
        """The sum of the tolls on a path."""
        return prices.totals[-1] - sum(self.z[edge] for edge in prices.edges)

    def tolls(self, prices: Prices) -> list[Terms]:
        """The sum that the toll of each edge is; without limit and off the path, one that makes it no bargain."""
        tolls: list[Terms] = [[(edge, 0, 1)] for edge in range(len(self.z))]
        dear = [(edge, 1, 1) for edge in self.fallback]
        tolls = [dear if self.w[edge] == inf else terms for edge, terms in enumerate(tolls)]
        for edge, before, after in zip(prices.edges, prices.terms, prices.terms[1:], strict=False):
            tolls[edge] = [*after, *((part, -costs, -tolled) for part, costs, tolled in before), (edge, -1, 0)]
        return tolls

    def sum_of(self, terms: Terms) -> float:
        """The value of a sum."""
        return sum(costs * self.z[edge] + (tolled * self.w[edge] if tolled else 0.0) for edge, costs, tolled in terms)

    def order(self, edges: list[int]) -> list[int]:
        """The edges of a path from the source on."""
        node, ordered = self.source, list[int]()
        while node != self.target:
            edge, node = next(pair for pair in self.leaving[node] if pair[0] in edges and pair[0] not in ordered)
            ordered.append(edge)
        return ordered

    def _least(self, edges: list[int], links: list[tuple[int, int, float, Terms]]) -> Prices | None:
        """The distances from the first node over links of any sign; ``None`` where they close a circle below zero."""
        rounding = 1e-12 * (sum(self.z) + 1e-300)
        totals, terms = [0.0] + [inf] * len(edges), [Terms() for _ in range(len(edges) + 1)]
        for _ in range(len(edges) + 2):
            changed = False
            for start, end, length, parts in links:
                if totals[start] + length < totals[end] - (rounding if totals[end] < inf else 0.0):
                    totals[end], terms[end], changed = totals[start] + length, terms[start] + parts, True
            if not changed:
                return Prices(edges, totals, terms)
        return None

    def _nodes(self, edges: list[int]) -> list[int]:
        """The nodes along a path."""
        nodes = [self.source]
        for edge in edges:
            nodes.append(next(head for found, head in self.leaving[nodes[-1]] if found == edge))
        return nodes


def distances(leaving: Leaving, start: int, prices: list[float]) -> tuple[dict[int, float], dict[int, tuple[int, int]]]:
    """The distance of each node that can be reached, and the edge and the node before it on the way."""
    found: dict[int, float] = {}
    entry: dict[int, tuple[int, int]] = {}
    waiting = [(0.0, start, -1, start)]
    while waiting:
        distance, node, edge, before = heapq.heappop(waiting)
        if node in found:
            continue
        found[node], entry[node] = distance, (edge, before)
        for edge, head in leaving.get(node, ()):
            if head not in found and prices[edge] < inf:
                heapq.heappush(waiting, (distance + prices[edge], head, edge, node))
    return found, entry


def way(start: int, end: int, entry: dict[int, tuple[int, int]]) -> list[int]:
    """The edges of the way to a node."""
    edges: list[int] = []
    while end != start:
        edge, end = entry[end]
        edges.append(edge)
    return edges[::-1]
