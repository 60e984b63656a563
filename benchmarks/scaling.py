"""Cost against size, each beside the bare product or the bare solve that nothing can do without.

    .venv/bin/python benchmarks/scaling.py [--quick] [--only dimension ...]

The limits are written by hand in plain torch (SciPy for the grids) for the very problem, without a general objective,
without a certificate, and where that helps with what the solve has yet to find out: the active constraints, the answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gradient_peers as ways
import torch
from harness import Case, Row, interleave, options, relative_error, report, verdict
from path_peers import GridGraph, terrain
from problems import InnerProblem, random
from qp_peers import Sizes, compiled, fresh, gradients, programs
from response_forms import LENGTH, Copy, Reward
from soft_bellman import ACTIONS, TEMPERATURE, sparse_process
from torch import Tensor

from bigrad import gradients as rules
from bigrad import linear, solvers
from bigrad.combinatorial import ShortestPath
from bigrad.layers import ArgMin, QuadraticProgram, SoftBellman, SoftResponse
from bigrad.mdp import Segments, Trace
from bigrad.problems import random_mdp

RTOL = 1e-8
OVERHEAD = 1.2  # over the bare products, at 1000 unknowns and more


def pair(size: int, work: str, ours: Case, limit: Case, budget: float, target: float | None = None) -> Row:
    """One row; the last phase of each case is what counts. Gradients of both are compared where both have one."""
    interleave([ours, limit], 11 if target is None else 41, budget)
    for case in (ours, limit):
        if case.failure:
            return {"work": work, "size": size, "failure": case.failure}
    times = [case.milliseconds(list(case.phases)[-1]) for case in (ours, limit)]
    row: Row = {"work": work, "size": size, "ms": times[0], "limit": limit.name, "limit ms": times[1]}
    row["over limit"] = times[0] / times[1]
    if isinstance(ours.last, Tensor) and isinstance(limit.last, Tensor):
        row["differs by"] = relative_error(ours.last, limit.last)
    return row if target is None else row | {"target": target, "verdict": verdict(row["over limit"], target)}


def chain(size: int, device: torch.device | None = None) -> InnerProblem:
    """Smoothing of a noisy signal; each step has a log stiffness of its own. The condition does not grow with size."""
    generator = torch.Generator().manual_seed(0)
    signal, theta = random(generator, size).to(device), 0.5 * random(generator, size - 1).to(device) + 2.0

    def objective(y: Tensor, theta: Tensor) -> Tensor:
        return ((y - signal) ** 2).sum() / 2 + (theta.exp() * (y[1:] - y[:-1]) ** 2).sum() / 2

    def product(v: Tensor) -> Tensor:
        pull = theta.exp() * (v[1:] - v[:-1])
        return v - torch.nn.functional.pad(pull, (0, 1)) + torch.nn.functional.pad(pull, (1, 0))

    solution = ways.conjugate_gradients(product, signal, 1e-14)
    return InnerProblem("chain", objective, theta, solution, random(generator, size).to(device), float("nan"))


def dimension(quick: bool) -> list[Row]:
    """An adjoint by conjugate gradients, from products alone."""
    rows = []
    for size in (100, 1000) if quick else (100, 1_000, 10_000, 100_000, 1_000_000):
        problem = chain(size)
        ours = Case("bigrad", ways.bigrad_cg(problem, RTOL))
        limit = Case("the loop by hand on a retained graph", ways.bare_graph(problem, RTOL))
        target = OVERHEAD if size >= 1000 else 2.0
        rows.append(pair(size, "adjoint by CG", ours, limit, 5.0, target))
    return rows


def batch(quick: bool) -> list[Row]:
    """Quadratic programs of 20 variables, both passes."""
    layer, rows = QuadraticProgram(), []
    compiled()
    for count in (1, 4) if quick else (1, 4, 16, 64, 256, 1024, 4096):
        drawn = programs(Sizes(count, 20, 20, 5))

        def both(solve: Callable[..., Tensor], drawn: Any = drawn) -> Tensor:
            data = fresh(drawn.data)
            return torch.cat([part.flatten() for part in gradients(solve(*data), data, drawn.weight)])

        ours = Case("bigrad", {"both": lambda _, both=both: both(layer)})
        solved = Case("one KKT solve, active set given", {"both": lambda _, both=both, d=drawn: both(d.exact)})
        rows.append(pair(count, "programs of 20", ours, solved, 4.0))
    return rows


def inner_steps(quick: bool) -> list[Row]:
    """Gradient descent and one adjoint, 1000 unknowns; memory stays, time grows as the steps."""
    problem, size, rows = chain(50 if quick else 1000), 0.02, []
    zero, theta = torch.zeros_like(problem.solution), problem.theta

    def by_hand(steps: int) -> Tensor:
        y = zero
        for _ in range(steps):
            y = y.detach().requires_grad_()
            y = y - size * torch.autograd.grad(problem.objective(y, theta), y)[0]
        at = InnerProblem("", problem.objective, theta, y.detach(), problem.weight, 0.0)
        return ways.bare_graph(at, RTOL)["backward"](None)

    for steps in (1, 3) if quick else (10, 100, 1000):
        layer = ArgMin(
            problem.objective,
            zero,
            solver=solvers.GradientDescent(size, rtol=0.0, atol=0.0, max_steps=steps),
            gradient=rules.Implicit(linear.CG(rtol=RTOL)),
            on_failure="ignore",
        )
        phases = ways.backward_of(layer, problem)
        ours = Case("bigrad", {"both": lambda _, phases=phases: phases["backward"](phases["prepare"](None))})
        bare = Case("the loops by hand", {"both": lambda _, steps=steps: by_hand(steps)})
        rows.append(pair(steps, "descent and adjoint", ours, bare, 4.0))
    return rows


def states(quick: bool) -> list[Row]:
    """The gradient through a soft-optimal policy, four actions and five successors anywhere."""
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    rows = []
    for count in (100,) if quick else (100, 1_000, 10_000, 100_000, 1_000_000):
        kernel, generator, discount = sparse_process(count, 0), torch.Generator().manual_seed(2), 0.99
        matrix = torch.sparse_csr_tensor(kernel.crow, kernel.col, kernel.values, (count * ACTIONS, count))
        # Values and policy first and the reward from them: what is timed is the way back from there.
        value, policy = random(generator, count), random(generator, count, ACTIONS)
        later = torch.mv(matrix, value).reshape(count, ACTIONS)
        free = value[:, None] + TEMPERATURE * policy.log_softmax(-1) - discount * later
        free.requires_grad_()
        layer = SoftBellman(kernel, discount=discount, temperature=TEMPERATURE)
        weight = torch.linspace(0, 1, ACTIONS, dtype=torch.float64)
        v, taken = torch.ones(count, dtype=torch.float64), []

        def solve(
            _: Any, layer: SoftBellman = layer, free: Tensor = free, value: Tensor = value, weight: Tensor = weight
        ) -> Tensor:
            return (layer(free, init=value).policy * weight).sum()

        def back(loss: Tensor, layer: SoftBellman = layer, free: Tensor = free, taken: list[int] = taken) -> None:
            torch.autograd.grad(loss, free)
            assert layer.certificate is not None
            assert layer.certificate.adjoint is not None
            taken[:] = [int(layer.certificate.adjoint.steps)]

        def bare(_: Any, matrix: Tensor = matrix, v: Tensor = v, taken: list[int] = taken) -> None:
            for _step in range(*taken):
                torch.mv(matrix, v)

        ours = Case("bigrad", {"solve": solve, "backward": back})
        limit = Case("its products with the transitions", {"products": bare})
        rows.append(pair(count, "soft-Bellman adjoint", ours, limit, 5.0))
    return rows


def grids(quick: bool) -> list[Row]:
    """Shortest paths through 64 grids at once."""
    rows = []
    for size in (6,) if quick else (6, 12, 24, 48, 96):
        costs = terrain(64, size)
        cost, graph, oracle = torch.from_numpy(costs), GridGraph(size, 64), ShortestPath(compiled=True)
        oracle(cost)  # compiles
        ours = Case("bigrad", {"solve": lambda _, cost=cost, oracle=oracle: oracle(cost) * 1.0})
        scipy = Case(
            "SciPy's Dijkstra, one call",
            {"solve": lambda _, graph=graph, costs=costs: torch.as_tensor(graph.union(costs)) * 1.0},
        )
        rows.append(pair(size, "64 grids", ours, scipy, 4.0, 1.0))
    return rows


def segments(quick: bool) -> list[Row]:
    """The response of a policy through segments of twelve steps, by the trace."""
    mdp = random_mdp(torch.Generator().manual_seed(0), states=5, discount=0.9, temperature=0.3)
    copy, rows = Copy(mdp, torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)), []
    for count in (16,) if quick else (64, 256, 1024, 4096, 16384):
        observed, acted = copy.episodes(count, LENGTH, torch.Generator().manual_seed(2))
        logs = copy.policy.log()[observed, acted].detach()
        drawn = Segments(observed, acted, logs)
        layer = SoftResponse(Reward(copy), temperature=mdp.temperature, discount=mdp.discount, estimator=Trace())
        plain = Reward(copy)

        def respond(_: Any, layer: SoftResponse = layer, drawn: Segments = drawn) -> None:
            layer.reward_model.zero_grad()
            layer(drawn).sum().backward()

        def evaluate(_: Any, plain: Reward = plain, observed: Tensor = observed, acted: Tensor = acted) -> None:
            plain.zero_grad()
            plain(observed, acted).sum().backward()

        ours = Case("bigrad", {"both": respond})
        limit = Case("one pass through the reward model", {"both": evaluate})
        rows.append(pair(count, "trace of segments", ours, limit, 3.0))
    return rows


TABLES = {
    "dimension": dimension,
    "batch": batch,
    "inner_steps": inner_steps,
    "states": states,
    "grids": grids,
    "segments": segments,
}

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    report(options(__doc__, "scaling"), TABLES)
