"""The same work on a GPU and on one thread of the CPU beside it.

    .venv/bin/python benchmarks/gpu.py [--quick] [--only adjoint ...]

Each gradient on the GPU is compared with the CPU's. The limits are those of the table of scaling, on the GPU. Without a
GPU nothing is measured and the record stays; ``--quick`` takes the CPU for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradient_peers as ways
import torch
from harness import Case, Row, interleave, options, relative_error, report
from qp_peers import Sizes, compiled, fresh, gradients, programs
from scaling import RTOL, chain
from soft_bellman import ACTIONS, TEMPERATURE, sparse_process
from torch import Tensor

from bigrad.layers import QuadraticProgram, SoftBellman

HOST = torch.device("cpu")
GPU = torch.accelerator.current_accelerator() or HOST
Phases = dict[str, Callable[[Any], Any]]


def finished(phases: Phases) -> Phases:
    """Phases that end when the GPU has: it is given its work and left alone."""

    def wait(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def waited(given: Any) -> Any:
            result = run(given)
            torch.accelerator.synchronize()
            return result

        return waited

    return phases if GPU == HOST else {name: wait(run) for name, run in phases.items()}


def beside(work: str, size: int, ours: Callable[[torch.device], Phases], bare: Phases | None = None) -> Row:
    """One row; the last phase of each case is what counts."""
    cases = [Case("GPU", finished(ours(GPU))), Case("CPU", ours(HOST))]
    cases += [] if bare is None else [Case("limit", finished(bare))]
    interleave(cases, 11, 15.0)
    for case in cases:
        if case.failure:
            return {"work": work, "size": size, "failure": f"{case.name}: {case.failure}"}
    ms, slow, *least = (case.milliseconds(list(case.phases)[-1]) for case in cases)
    row: Row = {"work": work, "size": size, "GPU, ms": ms}
    row |= {"limit on the GPU, ms": least[0], "over limit": ms / least[0]} if least else {}
    row |= {"CPU, ms": slow, "CPU over GPU": slow / ms}
    return row | {"differs by": relative_error(cases[0].last.to(HOST), cases[1].last)}


def adjoint(quick: bool) -> list[Row]:
    """By conjugate gradients, beside the loop by hand on a retained graph."""
    rows = []
    for size in (100,) if quick else (1_000, 10_000, 100_000, 1_000_000):
        problems = {place: chain(size, place) for place in (GPU, HOST)}
        bare = ways.bare_graph(problems[GPU], RTOL)
        rows.append(beside("adjoint by CG", size, lambda place: ways.bigrad_cg(problems[place], RTOL), bare))  # noqa: B023
    return rows


def batch(quick: bool) -> list[Row]:
    """Quadratic programs of 20 variables, both passes, beside one KKT solve with the active set given."""
    layer, rows = QuadraticProgram(), []
    compiled()
    for count in (2,) if quick else (1, 16, 256, 4096, 16384):
        drawn = programs(Sizes(count, 20, 20, 5))

        def both(place: torch.device, known: bool = False, drawn: Any = drawn) -> Phases:
            there = drawn.to(place)

            def run(_: Any) -> Tensor:
                data = fresh(there.data)
                x = (there.exact if known else layer)(*data)
                return torch.cat([part.flatten() for part in gradients(x, data, there.weight)])

            return {"both": run}

        rows.append(beside("programs of 20", count, both, both(GPU, known=True)))
    return rows


def states(quick: bool) -> list[Row]:
    """Soft-optimal policies from nothing, and the gradient through them; five successors anywhere."""
    rows = []
    for count in (100,) if quick else (1_000, 10_000, 100_000, 1_000_000):
        kernel = sparse_process(count, 0)
        reward = torch.rand(count, ACTIONS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

        def both(place: torch.device, kernel: Any = kernel, reward: Tensor = reward) -> Phases:
            layer = SoftBellman(kernel, discount=0.99, temperature=TEMPERATURE).to(place)
            free = reward.to(place).requires_grad_()
            weight = torch.linspace(0, 1, ACTIONS, dtype=torch.float64, device=place)

            def run(_: Any) -> Tensor:
                return torch.autograd.grad((layer(free).policy * weight).sum(), free)[0]

            return {"both": run}

        rows.append(beside("soft Bellman", count, both))
    return rows


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    chosen = options(__doc__, "gpu")
    if GPU == HOST and not chosen.quick:
        print("no GPU here: nothing is measured, and the record stays as it is")
    else:
        report(chosen, {"adjoint": adjoint, "batch": batch, "states": states})
