"""Fixed points and their gradients, beside torchdeq, jaxopt and optimistix, at one error for all.

    benchmarks/.peers/torch/bin/python benchmarks/fixed_points.py [--quick]

A batch of equilibria ``y = tanh(W y + x)``, and the gradient of a weighted sum in ``x`` and ``W``. The eigenvalues of
``W`` reach from -0.5 to 0.97, so that the plain iteration takes some hundred steps. A way
gets one tolerance for its forward and its backward solve, the loosest of a ladder at which the gradient's error against
dense algebra is small; where none is, it falls short. Evaluations are those of the map in the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import Case, Row, describe, interleave, options, relative_error, report, verdict
from problems import random
from served import Ask, Remote, found_of, served
from torch import Tensor

EQUAL = 1e-6
LADDER = [10.0**-power for power in range(5, 11)]
MOST, STORED = 1000, 200  # iterations, and those of which torchdeq's Broyden keeps a pair of vectors each
RIDGE = 1e-12  # of torchdeq's Anderson: with its own 1e-4 no residual below a hundredth is reached
Both = tuple[Tensor, Tensor]  # gradients in x and W
Way = Callable[[float], Callable[[], Both]]


@dataclass(frozen=True)
class Equilibria:
    """``y_b = tanh(W y_b + x_b)`` and the weights of the sum that is differentiated."""

    x: Tensor
    W: Tensor
    weight: Tensor

    @classmethod
    def draw(cls, batch: int, size: int) -> Equilibria:
        """Random ones, small enough for the map to be steep."""
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(random(generator, size, size))
        W = basis @ torch.diag(torch.linspace(-0.5, 0.97, size, dtype=basis.dtype)) @ basis.mT
        return cls(0.1 * random(generator, batch, size), W, random(generator, size))

    def solution(self) -> Tensor:
        """By Newton's method with dense algebra."""
        y, eye = torch.zeros_like(self.x), torch.eye(len(self.W), dtype=self.W.dtype)
        for _ in range(20):
            value = step(y, self.x, self.W)
            slope = (1 - value**2).unsqueeze(-1) * self.W
            y = y - torch.linalg.solve(eye - slope, (y - value).unsqueeze(-1)).squeeze(-1)
        return y

    def gradients(self) -> Both:
        """By one dense solve for each problem."""
        y, eye = self.solution(), torch.eye(len(self.W), dtype=self.W.dtype)
        gain = 1 - y**2
        u = torch.linalg.solve((eye - gain.unsqueeze(-1) * self.W).mT, self.weight.expand_as(y).unsqueeze(-1))
        inner = u.squeeze(-1) * gain
        return inner, inner.mT @ y

    def leaves(self) -> Both:
        """Fresh ones."""
        return self.x.clone().requires_grad_(), self.W.clone().requires_grad_()


def step(y: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """The map."""
    return torch.tanh(y @ W.mT + x)


def by_bigrad(problem: Equilibria, name: str, evaluations: dict[str, int], tolerance: float) -> Callable[[], Both]:
    """bigrad's fixed point with one of its solvers, and a factorisation, its default up to 256 unknowns."""
    from bigrad import gradients, linear, solvers
    from bigrad.layers import FixedPoint

    solver = getattr(solvers, name)(rtol=tolerance, atol=0.0, max_steps=MOST)
    rule = gradients.Implicit(linear.Direct())
    layer = FixedPoint(step, torch.zeros_like(problem.x), batch_dims=1, solver=solver, gradient=rule)

    def both() -> Both:
        x, W = problem.leaves()
        y = layer(x, W)
        assert layer.certificate is not None
        evaluations[f"bigrad {name}"] = int(layer.certificate.steps.max()) + 1
        return torch.autograd.grad((y * problem.weight).sum(), (x, W))

    return both


def by_torchdeq(problem: Equilibria, name: str, evaluations: dict[str, int], tolerance: float) -> Callable[[], Both]:
    """torchdeq's equilibrium with one of its solvers in both passes."""
    from torchdeq import get_deq

    most = STORED if name == "broyden" else MOST
    settings = {"f_solver": name, "b_solver": name, "f_max_iter": most, "b_max_iter": most, "ift": True}
    layer = get_deq(**settings, f_stop_mode="rel", b_stop_mode="rel", f_tol=tolerance, b_tol=tolerance)
    extra = {"lam": RIDGE} if name == "anderson" else {}

    def both() -> Both:
        x, W = problem.leaves()
        out, told = layer(lambda y: step(y, x, W), torch.zeros_like(x), solver_kwargs=extra)
        evaluations[f"torchdeq {name}"] = int(told["nstep"].max())
        return torch.autograd.grad((out[-1] * problem.weight).sum(), (x, W))

    return both


def by_hand(problem: Equilibria, evaluations: dict[str, int], tolerance: float) -> Callable[[], Both]:
    """The limit: the plain iteration in both passes, written down, with nothing around it."""

    def both() -> Both:
        y, count = torch.zeros_like(problem.x), 0
        while True:
            count, before = count + 1, y
            y = step(y, problem.x, problem.W)
            if (y - before).norm() <= tolerance * y.norm():
                break
        gain = 1 - y**2
        u = right = problem.weight.expand_as(y)
        while True:
            before = u
            u = right + (u * gain) @ problem.W
            if (u - before).norm() <= tolerance * u.norm():
                break
        evaluations["limit: plain iteration by hand"] = count
        return u * gain, (u * gain).mT @ y

    return both


def loosest(way: Way, truth: Tensor) -> tuple[float, str]:
    """The first tolerance that reaches the common error, or the best one; and why none worked."""
    best, least, failure = LADDER[0], math.inf, ""
    for tolerance in LADDER:
        try:
            error = relative_error(flat(found_of(way(tolerance)())), truth)
        except Exception as found:  # noqa: BLE001  # a peer may raise anything: that is a result
            failure = describe(found)
            continue
        if error < least:
            best, least = tolerance, error
        if error <= EQUAL:
            break
    return best, failure if least == math.inf else ""


def flat(parts: Any) -> Tensor:
    """Gradients in ``x`` and ``W`` as one vector."""
    return torch.cat([torch.as_tensor(part, dtype=torch.float64).flatten() for part in parts])


def ways(problem: Equilibria, evaluations: dict[str, int], ask: Ask) -> dict[str, Way]:
    """All ways by name."""
    found: dict[str, Way] = {}
    for name in ("FixedPointIteration", "Anderson", "Broyden"):
        found[f"bigrad {name}"] = partial(by_bigrad, problem, name, evaluations)
    for name in ("fixed_point_iter", "anderson", "broyden"):
        found[f"torchdeq {name}"] = partial(by_torchdeq, problem, name, evaluations)
    for name in ("jaxopt FixedPointIteration", "jaxopt AndersonAcceleration", "optimistix FixedPointIteration"):

        def remote(tolerance: float, name: str = name) -> Callable[[], Any]:
            return lambda: Remote.of(ask(peer=name, tolerance=tolerance, most=MOST))

        found[name] = remote
    found["limit: plain iteration by hand"] = partial(by_hand, problem, evaluations)
    return found


def equilibria(quick: bool) -> list[Row]:
    """Milliseconds of both passes, at a batch that fits a model and at a single large problem."""
    rows: list[Row] = []
    for batch, size in ((4, 10),) if quick else ((64, 100), (1, 500)):
        problem, evaluations = Equilibria.draw(batch, size), dict[str, int]()
        truth = flat(problem.gradients())
        arrays = {name: getattr(problem, name).numpy() for name in ("x", "W", "weight")}
        with served("jax", "jax_fixed_points.py", arrays) as ask:
            rows += rows_of(problem, ways(problem, evaluations, ask), evaluations, truth, 2 if quick else 7)
    return rows


def rows_of(
    problem: Equilibria, found: dict[str, Way], evaluations: dict[str, int], truth: Tensor, repetitions: int
) -> list[Row]:
    """The rows of one size."""
    shape, rows, cases = f"{len(problem.x)} of {len(problem.W)}", [], {}
    for name, way in found.items():
        tolerance, failure = loosest(way, truth)
        if failure:
            rows.append({"problems": shape, "way": name, "failure": failure})
            continue
        run = way(tolerance)
        cases[name] = (Case(name, {"both": lambda _, run=run: run()}), tolerance)
    interleave([case for case, _ in cases.values()], repetitions, budget=20.0)
    limit = cases["limit: plain iteration by hand"][0].milliseconds("both")
    for name, (case, tolerance) in cases.items():
        if case.failure:
            rows.append({"problems": shape, "way": name, "failure": case.failure})
            continue
        error = relative_error(flat(found_of(case.last)), truth)
        row: Row = {"problems": shape, "way": name, "tolerance": tolerance, "ms": case.milliseconds("both")}
        row |= {"spread": [*case.spread("both")], "over limit": case.milliseconds("both") / limit}
        if name in evaluations:
            row["evaluations"] = evaluations[name]
        rows.append(row | {"error": error, "verdict": verdict(error, EQUAL)})
    return rows


if __name__ == "__main__":
    report(options(__doc__, "fixed_points"), {"equilibria": equilibria})
