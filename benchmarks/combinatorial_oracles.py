"""Batches of combinatorial problems, solved by the oracles and as others solve them, beside the targets.

    .venv/bin/python benchmarks/combinatorial_oracles.py [--quick] [--only grids]

Milliseconds a batch, all ways in turn, on one thread but for the pool: the median over the turns of a turn's mean. A
ratio says how many times longer others take. All ways have to find points of the same value.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import Case, Row, Seconds, all_cores, interleave, options, report
from own_solver import slow_knapsack
from path_peers import GridGraph, heap_paths, terrain
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from bigrad.combinatorial import Assignment, Knapsack, ShortestPath, SpanningTree, Tour, oracle

BATCH = 64
TURN = 0.02  # seconds
Ways = dict[str, Callable[[], Any]]


def turn(run: Callable[[], Any]) -> Seconds:
    """The time of a call, the mean of as many in a row as fill a while."""
    start, calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < TURN:
        run()
        calls += 1
    return Seconds(taken / calls)


def measure(ways: Ways, cost: Tensor, repetitions: int, budget: float) -> dict[str, Case]:
    """The ways of solving one batch, timed in turn and compared by the values of what they find."""
    values = [(torch.as_tensor(run()).double() * cost.double()).sum() for run in ways.values()]
    for value in values:
        torch.testing.assert_close(value, values[0], rtol=1e-5, atol=0)
    cases = {name: Case(name, {"solve": lambda _, run=run: turn(run)}) for name, run in ways.items()}
    interleave(list(cases.values()), repetitions, budget)
    return cases


def rows(work: str, cases: dict[str, Case], wanted: dict[tuple[str, str], float]) -> list[Row]:
    """One row a way, and one for each ratio ``(other, ours)`` that is wanted to be at least a number."""
    found: list[Row] = []
    times = {name: case.milliseconds("solve") for name, case in cases.items()}
    for name, case in cases.items():
        found.append({"work": work, "way": name, "ms": times[name], "quartiles": [*case.spread("solve")]})
    for (other, ours), target in wanted.items():
        ratio = times[other] / times[ours]
        verdict = "pass" if ratio >= target else "falls short"
        way = f"{other} over {ours}"
        found.append({"work": work, "way": way, "ratio": ratio, "target": target, "verdict": verdict})
    return found


def grids(quick: bool) -> list[Row]:
    """Paths through 8-connected grids."""
    found = []
    for size in (6,) if quick else (12, 18, 24, 30):
        costs = terrain(BATCH, size)
        cost, graph = torch.from_numpy(costs), GridGraph(size, BATCH)
        ways = {
            "heapq": lambda costs=costs: heap_paths(costs),
            "csgraph, loop": lambda costs=costs, graph=graph: graph.loop(costs),
            "csgraph, one call": lambda costs=costs, graph=graph: graph.union(costs),
            "torch": lambda cost=cost: ShortestPath(compiled=False)(cost),
            "numba": lambda cost=cost: ShortestPath(compiled=True)(cost),
        }
        cases = measure(ways, cost, 3 if quick else 11, 30.0)
        wanted = {("heapq", "torch"): 15.0, ("csgraph, loop", "numba"): 4.0, ("csgraph, one call", "numba"): 1.0}
        wanted |= {("heapq", "numba"): 100.0} if size in (12, 24) else {}
        found += rows(f"grid {size}x{size}", cases, wanted)
    return found


def knapsacks(quick: bool) -> list[Row]:
    """Packings of 20 items."""
    draw = np.random.default_rng(0)
    items, capacity = 8 if quick else 20, 100
    weights, profits = draw.integers(3, 30, items), draw.random((BATCH, items)).astype(np.float32)
    rule = LinearConstraint(weights[None], -np.inf, capacity)
    whole, box = np.ones(items), Bounds(0, 1)

    def highs() -> Tensor:
        exact = {"mip_rel_gap": 0.0}
        found = [milp(-one, integrality=whole, bounds=box, constraints=rule, options=exact).x for one in profits]
        return torch.tensor(np.stack(found)).round()

    cost, weight = torch.from_numpy(profits), torch.from_numpy(weights)
    ways: Ways = {
        "milp, loop": highs,
        "torch": lambda: Knapsack(weight, capacity, compiled=False)(cost),
        "numba": lambda: Knapsack(weight, capacity, compiled=True)(cost),
    }
    wanted = {("milp, loop", "torch"): 50.0, ("milp, loop", "numba"): 50.0}
    return rows(f"knapsack of {items}", measure(ways, cost, 3 if quick else 9, 30.0), wanted)


def graphs(quick: bool) -> list[Row]:
    """The other oracles, in torch and compiled: the 5x5 grid of right and down steps, a tree, tours, assignments."""
    generator = torch.Generator().manual_seed(0)
    cells = list(itertools.product(range(5), repeat=2))
    steps = [(5 * i + j, 5 * k + m) for i, j in cells for k, m in ((i, j + 1), (i + 1, j)) if k < 5 and m < 5]
    pairs = list(itertools.combinations(range(10), 2))
    nodes = 6 if quick else 10

    found = []
    works: dict[str, tuple[Callable[[bool], Any], tuple[int, ...]]] = {
        "5x5 grid of 40 edges": (lambda fast: ShortestPath.graph(steps, 0, 24, compiled=fast), (40,)),
        "tree of 10 nodes": (lambda fast: SpanningTree(pairs, compiled=fast), (45,)),
        f"tour of {nodes} nodes": (lambda fast: Tour(compiled=fast), (nodes, nodes)),
        "assignment of 10": (lambda fast: Assignment(), (10, 10)),
    }
    for work, (make, shape) in works.items():
        cost = torch.rand(BATCH, *shape, generator=generator)
        names = {"SciPy": True} if work.startswith("assignment") else {"torch": False, "numba": True}
        solvers = {name: make(fast) for name, fast in names.items()}
        ways = {name: lambda solver=solver, cost=cost: solver(cost) for name, solver in solvers.items()}
        found += rows(work, measure(ways, cost, 3 if quick else 31, 10.0), {})
    return found


def pool(quick: bool) -> list[Row]:
    """A user's solver in this process and in two."""
    cost = torch.rand(8 if quick else BATCH, 20, generator=torch.Generator().manual_seed(0))
    alone = oracle(slow_knapsack, event_dims=1, maximise=True)
    shared = oracle(slow_knapsack, event_dims=1, maximise=True, workers=2)
    ways: Ways = {"one process": lambda: alone(cost), "two": lambda: shared(cost)}
    try:
        with all_cores():
            cases = measure(ways, cost, 3 if quick else 5, 30.0)
    finally:
        shared.close()
    found = rows("own solver", cases, {("one process", "two"): 1.6})
    load = {"work": "machine", "way": f"{os.cpu_count()} cores", "load": os.getloadavg()[0]}
    return [
        *found,
        load,
        {"work": "machine", "way": "ms a call", "ms": cases["one process"].milliseconds("solve") / len(cost)},
    ]


if __name__ == "__main__":
    report(
        options(__doc__, "combinatorial_oracles"),
        {"grids": grids, "knapsacks": knapsacks, "graphs": graphs, "pool": pool},
    )
