"""Judge the recorded benchmarks by their targets: every claim is a row, made from the records in ``results``.

A row is a ratio to a peer, an error, or a count; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]

JUDGED = {
    "combinatorial_oracles": "combinatorial oracles against loops and SciPy",
    "interdiction": "interdiction to proven optimality",
    "predict_then_optimize": "predict, then optimize: regret, and a tenth of PyEPO's time",
    "soft_bellman": "soft Bellman, to a million states",
    "response_forms": "response of a policy: variance at equal environment steps",
    "response_bias": "response of a policy: bias",
    "rlhf_step": "RLHF: the upper step beside imitation, whole runs beside plain SAC",
    "beamrider": "RLHF on pictures: steady memory, and that of the buffer beside stable-baselines3's",
    "scaling": "scaling: cost over the bare product or solve",
    "stochastic_bilevel": "stochastic bilevel methods on the problems of benchmark_bilevel",
}


def tables_of(record: dict[str, Any]) -> dict[str, list[Row]]:
    """The tables of a record; rows that stand alone are one."""
    return {**({"rows": record["rows"]} if "rows" in record else {}), **record.get("tables", {})}


def read(name: str) -> dict[str, list[Row]]:
    """The tables of one record; none where it was not made."""
    path = RESULTS / f"{name}.json"
    return tables_of(json.loads(path.read_text())) if path.exists() else {}


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
    yield row("adjoint, d = 500, kept factor, one pass: over TorchOpt cg", over(kept, peer), 0.03, "x")
    kept, again = (
        pick(adjoint, "ms", size=500, way=f"{way}, ten passes in a row, each")
        for way in ("bigrad direct", "torchopt cg")
    )
    yield row("adjoint, d = 500, kept factor, ten passes in a row: over TorchOpt cg's", over(kept, again), 0.03, "x")

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


def fixed_points(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """Both passes of equilibria, the best solver of each package."""
    rows = [found for found in tables.get("equilibria", []) if found.get("verdict") == "pass"]
    for problems in dict.fromkeys(found["problems"] for found in rows):
        best: dict[str, float] = {}
        for found in rows:
            if found["problems"] == problems:
                package = found["way"].split()[0]
                best[package] = min(found["ms"], best.get(package, found["ms"]))
        for peer in ("torchdeq", "jaxopt", "optimistix"):
            yield row(
                f"fixed points, {problems}, both passes: over {peer}",
                over(best.get("bigrad"), best.get(peer)),
                1.0,
                "x",
            )


def imports(tables: dict[str, list[Row]]) -> Iterator[Row]:
    """The time of the import."""
    ratio = pick(tables.get("imports", []), "ratio", package="bigrad over torch")
    yield row("import bigrad over import torch", ratio, 1.15, "x")


def judged(name: str, work: str) -> Iterator[Row]:
    """A record whose rows carry their own verdicts, as one row: how many of them fall short; a short run's at need."""
    tables = read(name)
    if not tables and (tables := read(f"{name}_short")):
        work += ", short run"
    verdicts = [found["verdict"] for rows in tables.values() for found in rows if "verdict" in found]
    short = float(sum(verdict != "pass" for verdict in verdicts)) if verdicts else None
    yield row(f"{work}: missed of {len(verdicts)} targets", short, 0.0, "targets")


def all_rows() -> list[Row]:
    """Every claim."""
    return [
        *implicit(read("implicit_gradients")),
        *transforms(read("transforms")),
        *memory(read("unrolled_memory")),
        *programs(read("quadratic_programs")),
        *fixed_points(read("fixed_points")),
        *imports(read("import_time")),
        *(line for name, work in JUDGED.items() for line in judged(name, work)),
    ]
