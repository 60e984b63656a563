"""Interdiction to proven optimality: the hard knapsack families, and paths on grids in both orders.

    python benchmarks/interdiction.py [--quick]

Seconds an instance on one thread, compiled code loaded before. HiGHS solves the same grids beside it, through SciPy and
the dual of the follower's path.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import Row, options, report, verdict
from scipy import optimize
from torch import Tensor

from bigrad import SolveError
from bigrad.combinatorial import Interdiction, ShortestPath, solve_knapsack_interdiction

ITEMS, FAMILIES, SEEDS = (35, 45, 55), range(1, 11), 5
MEDIAN, WORST = 1.0, 30.0  # seconds that pass for a knapsack
PATH = 2.0  # seconds that pass for 10x10 cells, 5 of them raised
GRIDS = ((10, 5, 8), (10, 5, 4), (10, 8, 8), (12, 3, 8), (18, 3, 8), (24, 3, 8))
INSTANCES = 20


def hard(items: int, family: int, seed: int) -> tuple[list[int], list[int], list[int], int, int]:
    """An instance of Caprara, Carvalho, Lodi and Woeginger: numbers to 100, ``family`` elevenths of all weights."""
    draw = random.Random(f"{items} {family} {seed}")
    profit, weight, price = ([draw.randint(1, 100) for _ in range(items)] for _ in range(3))
    capacity = family * sum(weight) // 11
    return profit, weight, price, capacity, draw.randint(max(capacity - 10, 0), capacity + 10)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result; ``None`` where a limit stopped the search."""
    start = time.perf_counter()
    try:
        result = run()
    except SolveError:
        result = None
    return time.perf_counter() - start, result


def knapsacks(quick: bool) -> list[Row]:
    """Each size over all families."""
    rows: list[Row] = []
    for items in (12,) if quick else ITEMS:
        drawn = [(family, hard(items, family, seed)) for family in FAMILIES for seed in range(1 if quick else SEEDS)]
        runs = [
            (*timed(lambda instance=instance: solve_knapsack_interdiction(*instance, seconds=60.0)), family)
            for family, instance in drawn
        ]
        times = [seconds for seconds, _, _ in runs]
        worst = max(times)
        proven = sum(result is not None for _, result, _ in runs)
        passed = max(median(times) / MEDIAN, worst / WORST) if proven == len(runs) else float("inf")
        rows.append(
            {
                "items": items,
                "instances": len(runs),
                "proven": proven,
                "median s": median(times),
                "worst s": worst,
                "worst family": runs[times.index(worst)][2],
                "verdict": verdict(passed, 1.0),
            }
        )
    return rows


def grid(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Costs and what raising adds, both whole numbers from 1 to 10."""
    z, w = torch.randint(1, 11, (2, size, size), generator=torch.Generator().manual_seed(seed)).double()
    return z, w


def by_milp(z: Tensor, w: Tensor, budget: int, connectivity: int) -> Any:
    """Max-min as one MILP of distances and raised cells (Israeli, Wood), by HiGHS."""
    size, n = z.shape[0], z.numel()
    cells = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    apart = (cells[:, None] - cells[None]).abs()
    near = apart.sum(2) == 1 if connectivity == 4 else apart.amax(2) == 1
    tail, head = near.nonzero().T.numpy()
    arc = np.arange(len(tail))
    steps = np.zeros((len(arc), 2 * n))
    steps[arc, head], steps[arc, tail], steps[arc, n + head] = 1, -1, -w.flatten().numpy()[head]
    raised = np.r_[np.zeros(n), np.ones(n)]
    aim = np.zeros(2 * n)
    aim[n - 1], aim[n] = -1, -float(w[0, 0])
    found = optimize.milp(
        aim,
        constraints=[
            optimize.LinearConstraint(steps, ub=z.flatten().numpy()[head]),
            optimize.LinearConstraint(raised[None], ub=budget),
        ],
        bounds=optimize.Bounds(np.zeros(2 * n), np.r_[0.0, np.full(n - 1, np.inf), np.ones(n)]),
        integrality=raised,
        options={"time_limit": 60.0},
    )
    return (float(z[0, 0]) - found.fun, float("nan")) if found.status == 0 else None


def way(game: Interdiction) -> Callable[[Tensor, Tensor], Any]:
    """The value and the nodes of one grid; an exception where the value is not proven."""

    def solve(z: Tensor, w: Tensor) -> tuple[float, int]:
        x, y, certificate = game.search(z[None], w[None])
        certificate.enforce("raise")
        return float(game.value(z, w, x[0], y[0])), int(certificate.steps)

    return solve


def ways(size: int, budget: int, connectivity: int) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Both orders with numba and with torch alone; the first one also by HiGHS where that ends."""
    found: dict[str, Callable[[Tensor, Tensor], Any]] = {}
    for order in ("max_min", "min_max"):
        for name, compiled in (("numba", True), ("torch alone", False)):
            follower = ShortestPath(connectivity, compiled=compiled)
            found[f"{order}, {name}"] = way(Interdiction(follower, budget, order, seconds=60.0))
    if size <= 10 and budget <= 5:
        found["max_min, HiGHS"] = lambda z, w: by_milp(z, w, budget, connectivity)
    return found


def paths(quick: bool) -> list[Row]:
    """Each grid in all ways, whose values must agree."""
    rows: list[Row] = []
    for size, budget, connectivity in ((5, 2, 8),) if quick else GRIDS:
        values: dict[str, list[Any]] = {}
        for name, solve in ways(size, budget, connectivity).items():
            timed(lambda solve=solve, size=size: solve(*grid(size, 0)))  # loads what is compiled
            seeds = range(2 if quick else INSTANCES)
            runs = [timed(lambda seed=seed, solve=solve, size=size: solve(*grid(size, seed))) for seed in seeds]
            times, done = [seconds for seconds, _ in runs], [result for _, result in runs if result is not None]
            values[name] = [result[0] for result in done]
            row: Row = {"grid": f"{size}x{size}", "raised": budget, "neighbours": connectivity, "way": name}
            row |= {"proven": f"{len(done)} of {len(runs)}", "median s": median(times), "worst s": max(times)}
            row["most nodes"] = max((result[1] for result in done), default=float("nan"))
            if (size, budget) == (10, 5) and name in ("max_min, numba", "max_min, torch alone"):
                row["verdict"] = verdict(max(times) if len(done) == len(runs) else float("inf"), PATH)
            rows.append(row)
        agree(values)
    return rows


def agree(values: dict[str, list[float]]) -> None:
    """All ways of one order have the same values, where each has them all."""
    for order in ("max_min", "min_max"):
        found = [np.array(part) for name, part in values.items() if name.startswith(order)]
        for other in found[1:]:
            if len(other) == len(found[0]) and not np.allclose(other, found[0]):
                raise AssertionError(f"{order}: {found[0]} and {other}")


if __name__ == "__main__":
    report(options(__doc__, "interdiction"), {"knapsacks": knapsacks, "paths": paths})
