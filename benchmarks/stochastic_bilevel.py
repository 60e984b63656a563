"""Single-loop, variance-reduced and implicit methods on the problems of benchmark_bilevel, by oracle calls.

    .venv/bin/python benchmarks/stochastic_bilevel.py [--quick]

A curve is the squared norm of the exact hyper-gradient against calls: gradients of single samples and products with
their second derivatives. Each method takes the best of the problem's steps for its upper level. ``benchopt/`` has the
same methods as solver files of the benchmark's public interface; with ``BENCHMARK_BILEVEL=`` naming a checkout they run
there, beside its own solvers.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator

import torch
from checkout import beside
from harness import Row, options, report, verdict
from stochastic_methods import Point, implicit, single_loop
from stochastic_problems import Problem, cleaning, regularisation, simulated

POINTS = 16  # of a curve
GOAL = 1e-10  # on the simulated problem, for a method of reduced variance
BUDGETS = {"simulated quadratics": 2.5e6, "breast_cancer": 1e6, "digits, half wrong": 3e5}

Method = Callable[[Problem, float], Iterator[Point]]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


METHODS: dict[str, Method] = {
    "SABA": lambda problem, outer: single_loop(problem.oracle(), 0.1, outer, seeded(), reduced=True),
    "SOBA": lambda problem, outer: single_loop(problem.oracle(), 0.1, outer, seeded(), reduced=False),
    "Implicit": lambda problem, outer: implicit(problem.oracle(), problem.lower, outer),
}


def curve(problem: Problem, points: Iterator[Point], budget: float) -> tuple[list[int], list[float], float]:
    """Calls, squared norms at some of them, and the seconds of the method alone."""
    calls, norms, seconds = [1], [problem.squared_norm(problem.init[1])], 0.0
    marks = [budget ** ((k + 1) / POINTS) for k in range(POINTS)]
    start = time.perf_counter()
    for x, _, count in points:
        if count < marks[0]:
            continue
        seconds += time.perf_counter() - start
        marks = [mark for mark in marks if mark > count]
        norm = problem.squared_norm(x.detach()) if bool(x.isfinite().all()) else math.inf
        calls.append(count)
        norms.append(norm)
        if not marks or not norm < 1e6 or norm < 1e-24:
            break
        start = time.perf_counter()
    return calls, norms, seconds


def curves(quick: bool) -> list[Row]:
    """Each method on each problem."""
    torch.set_default_dtype(torch.float64)
    problems = [simulated(64, 5)] if quick else [simulated(), regularisation(), cleaning()]
    rows: list[Row] = []
    for problem, (name, method) in itertools.product(problems, METHODS.items()):
        budget = 1e4 if quick else BUDGETS[problem.name]
        tried = {outer: curve(problem, method(problem, outer), budget) for outer in problem.outer_steps}
        outer, (calls, norms, seconds) = min(tried.items(), key=lambda item: item[1][1][-1])
        row: Row = {"problem": problem.name, "method": name, "outer step": outer, "all calls": calls[-1]}
        row |= {"start": norms[0], "end": norms[-1], "seconds": seconds, "calls": calls, "squared norms": norms}
        if name == "SABA" and problem.name.startswith("simulated"):
            row |= {"target": GOAL, "verdict": verdict(norms[-1], GOAL)}
        rows.append(row)
        print(f"  {problem.name}, {name}: {norms[0]:.2g} to {norms[-1]:.2g} in {seconds:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    report(options(__doc__, "stochastic_bilevel"), {"curves": curves, "their solvers": beside})
