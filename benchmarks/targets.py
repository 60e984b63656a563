"""Judge the recorded benchmarks by their targets: writes results/targets.json and prints a table.

Every row is a ratio to a peer, or an error, from the other records in ``results``; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import write_record

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


def read(name: str) -> dict[str, list[Row]]:
    """One record; empty where it was not made."""
    path = RESULTS / f"{name}.json"
    found: dict[str, list[Row]] = json.loads(path.read_text())["tables"] if path.exists() else {}
    return found


def row(work: str, found: float | None, target: float, unit: str = "") -> Row:
    """One line of the table."""
    verdict = "not measured" if found is None else "pass" if found <= target else "falls short"
    return {"work": work, "found": found, "target": target, "unit": unit, "verdict": verdict}


def pick(rows: list[Row], key: str, **wanted: Any) -> float | None:
    """The number ``key`` of the row with these entries."""
    for candidate in rows:
        if all(candidate.get(name) == value for name, value in wanted.items()):
            return candidate.get(key)
    return None


def over(one: float | None, other: float | None) -> float | None:
    """A ratio, where both were measured."""
    return None if one is None or not other else one / other


def implicit(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """Accuracy, adjoints, products, blocks and the first call."""
    accuracy = tables.get("accuracy", [])
    errors = [r["bigrad"] for r in accuracy if isinstance(r["bigrad"], float)]
    yield row("first derivative, worst of 10 problems up to condition 1e6", max(errors, default=None), 1e-9, "error")
    refused = sum(not isinstance(r["bigrad"], float) for r in accuracy)
    yield row("first derivative, refused at default settings", float(refused) if accuracy else None, 1.0, "problems")
    second = [r["bigrad"] for r in tables.get("second_derivatives", []) if isinstance(r["bigrad"], float)]
    yield row("second derivative, worst of 10 problems", max(second, default=None), 1e-8, "error")

    adjoint = tables.get("adjoint_time", [])
    graph = "limit: loop by hand, retained graph"
    for size, most in ((500, 1.2), (50, 2.0)):
        ours = pick(adjoint, "ms", size=size, way="bigrad cg")
        limit = over(ours, pick(adjoint, "ms", size=size, way=graph))
        yield row(f"adjoint, d = {size}: over the products by hand in plain torch", limit, most, "x")
    peer = pick(adjoint, "ms", size=500, way="torchopt cg")
    yield row(
        "adjoint, d = 500: over TorchOpt cg", over(pick(adjoint, "ms", size=500, way="bigrad cg"), peer), 0.35, "x"
    )
    kept = pick(adjoint, "ms", size=500, way="bigrad direct, second backward")
    yield row("adjoint, d = 500, kept factor: over TorchOpt cg", over(kept, peer), 0.03, "x")

    products = tables.get("products", [])
    default = pick(products, "products", way="torchopt default")
    ratio = over(pick(products, "products", way="bigrad cg"), default)
    yield row("products at condition 1e4, error 1e-5: over TorchOpt's default", ratio, 0.25, "x")
    blocks = tables.get("side_by_side", [])
    apart = pick(blocks, "products", way="bigrad, one number per block")
    coupled = pick(blocks, "products", way="bigrad, coupled by .sum(), at most 5000")
    yield row("64 blocks of mixed scales: over one coupled solve", over(apart, coupled), 1 / 50, "x")
    extra = pick(tables.get("first_call", []), "extra ms", way="bigrad")
    yield row("first call above the steady state", extra, 300.0, "ms")


def memory(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """Unrolled memory."""
    growth = tables.get("growth", [])
    yield row(
        "memory, 1000 inner steps: over the leaner of TorchOpt and higher",
        pick(growth, "of the leaner peer", steps=1000, way="bigrad"),
        0.15,
        "x",
    )
    short, long = (pick(growth, "peak MiB", steps=steps, way="bigrad") for steps in (20, 1000))
    ratio = over(long, short)
    yield row("peak memory, 1000 inner steps over 20", None if ratio is None else 100 * (ratio - 1), 2.0, "% more")


def programs(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """Quadratic programs, forward and backward."""
    times = tables.get("times", [])
    wanted = {
        "64 of 50, 50, 10": {"qpth": 0.5, "cvxpylayers": 0.15, "QPLayer": 1.3, "cvxpylayers, Moreau": 0.3},
        "256 of 20, 20, 5": {"qpth": 0.5, "cvxpylayers": 0.15, "QPLayer": 0.5, "cvxpylayers, Moreau": 0.3},
        "8 of 200, 200, 40": {"qpth": 0.8},
    }
    for shape, peers in wanted.items():
        ours = pick(times, "both ms", programs=shape, way="bigrad")
        for peer, target in peers.items():
            ratio = over(ours, pick(times, "both ms", programs=shape, way=peer))
            yield row(f"QP, {shape}: over {peer}", ratio, target, "x")
    errors = [r["worst gradient error"] for r in times if r["way"] == "bigrad" and "worst gradient error" in r]
    yield row("QP, worst gradient error", max(errors, default=None), 1e-6, "error")


def transforms(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """Of the six transforms, those that some layer does not survive; user's functions compile with graph breaks."""
    ours = [found for found in tables.get("matrix", []) if found["layer"].startswith("bigrad")]
    wanted = ["func.grad", "jacrev", "vmap", "vmap(grad)", "grad of grad"]
    lost = [
        (found["layer"], name)
        for found in ours
        for name in [*wanted, "compile(fullgraph)" if "QP" in found["layer"] else "compile"]
        if found[name] != "pass"
    ]
    yield row("transforms that fail, six of each layer", float(len(lost)) if ours else None, 0.0, "cells")


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| work | found | target | |", "|---|---|---|---|"]
    for r in rows:
        found = "-" if r["found"] is None else f"{r['found']:.2g}"
        unit = "" if r["unit"] in ("error", "problems", "cells") else f" {r['unit']}" if r["unit"] != "x" else "x"
        lines.append(f"| {r['work']} | {found}{unit} | {r['target']:.2g}{unit} | {r['verdict']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    rows = [
        *implicit(read("implicit_gradients")),
        *transforms(read("transforms")),
        *memory(read("unrolled_memory")),
        *programs(read("quadratic_programs")),
    ]
    write_record(RESULTS / "targets.json", {"targets": rows})
    print(table(rows))
