"""Gradients through argmins, beside TorchOpt, hypergrad, boat-torch, Betty, jaxopt, optimistix and loops by hand.

    python benchmarks/peers.py
    benchmarks/.peers/torch/bin/python benchmarks/implicit_gradients.py [--quick] [--only TABLE ...]

Tables: accuracy, second_derivatives, adjoint_time, products, side_by_side, first_call.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from statistics import median
from typing import Any

import gradient_peers as ways
import torch
from counted import products_of, quadratic_problem, spd
from harness import HERE, Case, Row, child, describe, interleave, options, relative_error, report, verdict
from problems import FAMILIES, InnerProblem, build, random, ridge_problem
from served import Ask, Remote, found_of, served
from torch import Tensor

ROW, EACH = 10, "{}, ten passes in a row, each"
EQUAL = 1e-6  # the relative error at which times are compared
TOLERANCES = [10.0**-power for power in range(3, 15)]
ITERATIONS = [5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0]


def attempt(run: Callable[[], float]) -> float | str:
    """A number, or the error that was raised instead."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001  # what a package raises is a result
        return describe(error)


def gradient_error(make: Callable[[], ways.Phases], truth: Tensor) -> float:
    """The relative error of one gradient."""
    phases = make()
    return relative_error(phases["backward"](phases["prepare"](None)), truth)


def judged(error: float | str, target: float) -> str:
    """A small error passes, and a typed refusal is no wrong number."""
    if isinstance(error, str):
        return "refuses"
    return verdict(error, target)


def accuracy(quick: bool) -> list[Row]:
    """The relative error of the gradient with everything left at its default; bigrad also finds the minimiser."""
    rows = []
    for family, condition in itertools.product(FAMILIES[: 2 if quick else None], (1e2, 1e4, 1e6)):
        problem = build(family, condition)
        truth, zero = problem.gradient(), torch.zeros_like(problem.solution)
        target = 1e-9  # ten times the requested tolerance

        def ours(problem: InnerProblem = problem, zero: Tensor = zero) -> ways.Phases:
            return ways.backward_of(ways.bigrad_layer(problem, init=zero), problem)

        error = attempt(lambda ours=ours, truth=truth: gradient_error(ours, truth))
        row = {"problem": problem.name, "condition": problem.condition, "bigrad": error}
        for name, way in {"torchopt default": ways.torchopt_default, "torchopt cg": ways.torchopt_cg}.items():
            row[name] = attempt(lambda way=way, p=problem, truth=truth: gradient_error(lambda: way(p), truth))
        rows.append(row | {"target": target, "verdict": judged(error, target)})
    return rows


def second_derivatives(quick: bool) -> list[Row]:
    """The relative error of the second derivative times a direction, by backward through backward."""
    rows = []
    for family in FAMILIES[: 2 if quick else None]:
        problem = build(family, 1e2)
        direction = random(torch.Generator().manual_seed(5), *problem.theta.shape)
        truth, zero = problem.curvature(direction), torch.zeros_like(problem.solution)

        def twice(make: Callable[[], ways.Layer], problem: InnerProblem = problem, d: Tensor = direction) -> Tensor:
            theta = problem.theta.clone().requires_grad_()
            (slope,) = torch.autograd.grad(problem.weight @ make()(theta), theta, create_graph=True)
            return torch.autograd.grad(slope @ d, theta)[0]

        layers = {
            "bigrad": lambda p=problem, zero=zero: ways.bigrad_layer(p, init=zero),
            "torchopt default": lambda p=problem: ways.torchopt_layer(p),
        }
        row: Row = {"problem": problem.name, "condition": problem.condition}
        for name, make in layers.items():
            row[name] = attempt(lambda m=make, twice=twice, truth=truth: relative_error(twice(m), truth))
        rows.append(row | {"target": 1e-8, "verdict": judged(row["bigrad"], 1e-8)})
    return rows


def loosest(way: Callable[[float], ways.Phases], truth: Tensor, ladder: list[float]) -> float:
    """The first rung that reaches the common error; where none does, the one that comes closest."""
    best, least = ladder[0], math.inf
    for rung in ladder:
        error = attempt(lambda rung=rung: gradient_error(lambda: way(rung), truth))
        if isinstance(error, float) and error < least:
            best, least = rung, error
        if least <= EQUAL:
            break
    return best


def adjoint_time(quick: bool) -> list[Row]:
    """Milliseconds of one backward pass of ridge regression, as shipped and at one error for all."""
    rows: list[Row] = []
    for size in (20,) if quick else (50, 500):
        problem, design, targets = ridge_problem(size)
        arrays = {name: getattr(problem, name) for name in ("solution", "theta", "weight")}
        with served("jax", "jax_peers.py", arrays | {"design": design, "targets": targets}) as ask:
            rows += adjoint_rows(problem, design, ask, 3 if quick else 41)
    return rows


def adjoint_rows(problem: InnerProblem, design: Tensor, ask: Ask, repetitions: int) -> list[Row]:
    """The rows of one size."""
    truth = problem.gradient()

    def remote(peer: str) -> Callable[[float], ways.Phases]:
        return lambda rtol: {"prepare": lambda _: None, "backward": lambda _: Remote.of(ask(peer=peer, rtol=rtol))}

    tuned: dict[str, tuple[Callable[[float], ways.Phases], list[float]]] = {
        "bigrad cg": (lambda rtol: ways.bigrad_cg(problem, rtol), TOLERANCES),
        "torchopt default": (lambda rtol: ways.torchopt_default(problem, rtol), TOLERANCES),
        "torchopt cg": (lambda rtol: ways.torchopt_cg(problem, rtol), TOLERANCES),
        "hypergrad cg": (lambda count: ways.hypergrad_cg(problem, count), ITERATIONS[:4]),
        "boat-torch cg": (lambda count: ways.boat_cg(problem, count), ITERATIONS),
        "betty cg": (lambda count: ways.betty_cg(problem, count), ITERATIONS[:4]),
        "jaxopt cg": (remote("jaxopt cg"), TOLERANCES),
        "optimistix cg": (remote("optimistix cg"), TOLERANCES),
        "limit: loop by hand, retained graph": (lambda rtol: ways.bare_graph(problem, rtol), TOLERANCES),
        "limit: loop by hand, products by hand": (lambda rtol: ways.bare_products(problem, design, rtol), TOLERANCES),
    }
    fixed: dict[str, Callable[[], ways.Phases]] = {
        "bigrad default": lambda: ways.bigrad_cg(problem),
        "bigrad default, solved from zero": lambda: ways.bigrad_from_zero(problem),
        "bigrad direct": lambda: ways.bigrad_direct(problem),
        "bigrad direct, second backward": lambda: ways.bigrad_direct(problem, keep=True),
        "torchopt default": lambda: ways.torchopt_default(problem),
        "torchopt inverse": lambda: ways.torchopt_inverse(problem),
        "jaxopt default": lambda: remote("jaxopt default")(0.0),
        "limit: factor by hand": lambda: ways.bare_factor(problem, design),
    }
    entries: list[tuple[str, float | None, Callable[[], ways.Phases]]] = [
        *((name, None, make) for name, make in fixed.items()),
    ]
    for name, (way, ladder) in tuned.items():
        rung = loosest(lambda rung, way=way: readable(way(rung)), truth, ladder)
        entries.append((name, rung, lambda way=way, rung=rung: way(rung)))
    rungs = {name: rung for name, rung, _ in entries}
    kept = {
        "bigrad direct": lambda _: ways.bigrad_direct(problem, keep=True),
        "torchopt cg": lambda rung: ways.torchopt_cg(problem, rung, keep=True),
    }
    for name, again in kept.items():
        rung = rungs[name]
        entries.append((EACH.format(name), rung, lambda again=again, rung=rung: ways.in_a_row(again(rung), ROW)))
    cases = [lazy(name, make) for name, _, make in entries]
    interleave(cases, repetitions, budget=30.0)
    limit = next(case for case in cases if case.name.endswith("retained graph")).milliseconds("backward")
    rows: list[Row] = []
    for case, (_, rung, _) in zip(cases, entries, strict=True):
        if case.failure:
            rows.append({"size": problem.theta.numel(), "way": case.name, "failure": case.failure})
            continue
        passes = ROW if case.name.endswith(EACH.format("")) else 1
        time, low, high = (ms / passes for ms in (case.milliseconds("backward"), *case.spread("backward")))
        error = relative_error(found_of(case.last), truth)
        rows.append(
            {
                "size": problem.theta.numel(),
                "way": case.name,
                "tuned": "as shipped" if rung is None else rung,
                "ms": time,
                "low": low,
                "high": high,
                "over limit": time / limit,
                "error": error,
                "verdict": verdict(error, EQUAL),
            }
        )
    return rows


def lazy(name: str, make: Callable[[], ways.Phases]) -> Case:
    """A case whose package is looked for when it first runs, so that a missing one is a row of the table."""
    made: list[ways.Phases] = []

    def prepare(_: Any) -> Any:
        if not made:
            made.append(make())
        return made[0]["prepare"](None)

    return Case(name, {"prepare": prepare, "backward": lambda prepared: made[0]["backward"](prepared)})


def readable(phases: ways.Phases) -> ways.Phases:
    """The same with a gradient for a result."""
    return phases | {"backward": lambda prepared: found_of(phases["backward"](prepared))}


def products(quick: bool) -> list[Row]:
    """How many products with a Hessian of condition 1e4 one gradient takes."""
    size = 30 if quick else 200
    problem, counter = quadratic_problem(spd(size, 1e4, torch.Generator().manual_seed(0)))
    truth = torch.linalg.solve(counter.matrix, problem.weight)
    ladder: dict[str, list[Callable[[], ways.Phases]]] = {
        "bigrad default": [lambda: ways.bigrad_cg(problem)],
        "bigrad cg": [lambda rtol=rtol: ways.bigrad_cg(problem, rtol) for rtol in TOLERANCES],
        "torchopt default": [lambda: ways.torchopt_default(problem)],
        "torchopt cg": [lambda rtol=rtol: ways.torchopt_cg(problem, rtol) for rtol in TOLERANCES],
    }
    rows: list[Row] = []
    for name, makes in ladder.items():
        row: Row = {"size": size, "way": name}
        try:
            for make in makes:  # the first of them that is exact enough
                gradient, count = products_of(make(), counter)
                error = relative_error(gradient, truth)
                row |= {"products": count, "error": error, "verdict": verdict(error, 1e-5)}
                if error <= 1e-5:
                    break
        except Exception as error:  # noqa: BLE001  # what a package raises is a result
            row["failure"] = describe(error)
        rows.append(row)
    return rows


def side_by_side(quick: bool) -> list[Row]:
    """Many blocks of mixed scales: products of all blocks at once, each with its own step lengths or as one system."""
    blocks, size = (8, 10) if quick else (64, 30)
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** (6 * torch.rand(blocks, generator=generator, dtype=torch.float64) - 3)
    matrix = torch.stack([scale * spd(size, 1e2, generator) for scale in scales])
    apart, first = quadratic_problem(matrix, coupled=False)
    coupled, second = quadratic_problem(matrix)
    truth = torch.linalg.solve(matrix, apart.weight)
    cases = {
        "bigrad, one number per block": (lambda: ways.bigrad_cg(apart), first),
        "bigrad, coupled by .sum(), at most 5000": (lambda: ways.bigrad_cg(coupled, most=5000), second),
        "torchopt cg, coupled by .sum()": (lambda: ways.torchopt_cg(coupled), second),
        "torchopt cg to 1e-12, coupled by .sum(), at most 5000": (
            lambda: ways.torchopt_cg(coupled, 1e-12, 5000),
            second,
        ),
    }
    rows: list[Row] = []
    for name, (make, counter) in cases.items():
        try:
            gradient, count = products_of(make(), counter)
            worst = float(((gradient - truth).norm(dim=1) / truth.norm(dim=1)).max())
            rows.append({"way": name, "products": count, "worst error": worst, "verdict": verdict(worst, EQUAL)})
        except Exception as error:  # noqa: BLE001  # what a package raises is a result
            rows.append({"way": name, "products": counter.products, "failure": describe(error)})
    return rows


def first_call(quick: bool) -> list[Row]:
    """The extra milliseconds of the first forward and backward pass of a fresh process."""
    rows: list[Row] = []
    for name in ("bigrad", "torchopt", "by hand"):
        found = [child(str(HERE / "first_call.py"), name) for _ in range(1 if quick else 3)]
        failures = [answer["failure"] for answer in found if "failure" in answer]
        if failures:
            rows.append({"way": name, "failure": failures[0]})
            continue
        first, later = (1e3 * median(answer[key] for answer in found) for key in ("first", "later"))
        rows.append({"way": name, "first ms": first, "later ms": later, "extra ms": first - later})
    return rows


TABLES = {
    "accuracy": accuracy,
    "second_derivatives": second_derivatives,
    "adjoint_time": adjoint_time,
    "products": products,
    "side_by_side": side_by_side,
    "first_call": first_call,
}

if __name__ == "__main__":
    report(options(__doc__, "implicit_gradients"), TABLES)
