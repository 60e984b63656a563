"""Batches of dense quadratic programs, beside qpth, QPLayer, cvxpylayers and Moreau.

    benchmarks/.peers/torch/bin/python benchmarks/quadratic_programs.py [--quick]

Forward and backward milliseconds for a whole batch, and the error of the gradients in all six arguments against a dense
solve with the active constraints. The peers get tolerances at which that error is small, where they can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from harness import Case, Row, interleave, options, report, verdict
from qp_peers import WAYS, Layer, Programs, Sizes, compiled, fresh, gradients, infeasibility, programs
from torch import Tensor

SIZES = (Sizes(64, 50, 50, 10), Sizes(256, 20, 20, 5), Sizes(8, 200, 200, 40))
QUICK = (Sizes(3, 8, 8, 2),)
ACCURATE = 1e-6  # what passes
NEARLY = 1e-5  # what a peer may have and still count as the fastest


def way_of(name: str, make: Callable[[Sizes], Layer], sizes: Sizes, drawn: Programs) -> Case:
    """Both passes of one layer, which is made when it first runs."""
    made: list[Layer] = []

    def forward(_: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not made:
            made.append(make(sizes))
        data = fresh(drawn.data)
        return made[0](*data), data

    def backward(graph: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, list[Tensor]]:
        x, data = graph
        return x.detach(), gradients(x, data, drawn.weight)

    return Case(name, {"forward": forward, "backward": backward})


def flat(parts: list[Tensor]) -> Tensor:
    """All gradients of a program as one vector, ``(batch, ...)``."""
    return torch.cat([part.flatten(1) for part in parts], 1)


def times(quick: bool) -> list[Row]:
    """All sizes."""
    torch.set_default_dtype(torch.float64)
    rows: list[Row] = []
    compiled()
    for sizes in QUICK if quick else SIZES:
        drawn = programs(sizes)
        truth = flat(drawn.gradients())
        cases = [way_of(name, make, sizes, drawn) for name, make in WAYS.items()]
        interleave(cases, 2 if quick else 7, budget=25.0)
        rows += judged([row_of(case, sizes, drawn, truth) for case in cases])
    return rows


def row_of(case: Case, sizes: Sizes, drawn: Programs, truth: Tensor) -> Row:
    """What one layer took and how far off it was."""
    shape = f"{sizes.batch} of {sizes.variables}, {sizes.inequalities}, {sizes.equations}"
    if case.failure:
        return {"programs": shape, "way": case.name, "failure": case.failure}
    x, found = case.last
    worst = float(((flat(found) - truth).norm(dim=1) / truth.norm(dim=1)).max())
    forward, backward = case.milliseconds("forward"), case.milliseconds("backward")
    return {
        "programs": shape,
        "way": case.name,
        "forward ms": forward,
        "forward spread": list(case.spread("forward")),
        "backward ms": backward,
        "backward spread": list(case.spread("backward")),
        "both ms": forward + backward,
        "runs": len(case.times["forward"]),
        "worst gradient error": worst,
        "infeasibility": infeasibility(x, drawn.data),
    }


def judged(rows: list[Row]) -> list[Row]:
    """With ratios to the fastest peer that is accurate, and a verdict on accuracy or, for bigrad, on both."""
    peers = [row for row in rows if row["way"] != "bigrad" and row.get("worst gradient error", math.inf) <= ACCURATE]
    fastest = {
        key: min((row[key] for row in peers), default=math.nan) for key in ("forward ms", "backward ms", "both ms")
    }
    for row in rows:
        if "failure" in row:
            continue
        row |= {f"{key.split()[0]} over fastest peer": row[key] / fastest[key] for key in fastest}
        row["verdict"] = verdict(row["worst gradient error"], ACCURATE)
        if row["way"] == "bigrad" and row["verdict"] == "pass":
            row["verdict"] = verdict(row["both over fastest peer"], 1.0)
    return rows


if __name__ == "__main__":
    report(options(__doc__, "quadratic_programs"), {"times": times})
