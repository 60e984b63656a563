"""Which of torch's transforms each layer survives, with numbers that are checked and not only shapes.

    benchmarks/.peers/torch/bin/python benchmarks/transforms.py [--quick]

A cell says "pass", "wrong" with the relative error, or what was raised. hypergrad and boat-torch have no layer: they
return one gradient and nothing that could be transformed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Row, options, relative_error, report
from problems import random, ridge_problem
from qp_peers import WAYS, Sizes, programs
from torch import Tensor

Map = Callable[[Tensor], Tensor]
TOLERANCE = 1e-5
FULL_GRAPH = "compile(fullgraph)"  # nobody's layer can do it around a function that the user writes


@dataclass(frozen=True)
class Subject:
    """A layer as a map from a vector to a vector.

    Attributes:
        make: makes the layer.
        truth: the same map by dense algebra.
        at: where it is evaluated ``(3, n)``.
    """

    make: Callable[[], Map]
    truth: Map
    at: Tensor


def value(layer: Map) -> Map:
    """A scalar of a layer's output, which has the size of its input."""
    return lambda x: (layer(x) * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype)).sum()


def eager(layer: Map, at: Tensor) -> Tensor:
    """``.backward()``."""
    x = at[0].clone().requires_grad_()
    return torch.autograd.grad(value(layer)(x), x)[0]


def eager_twice(layer: Map, at: Tensor) -> Tensor:
    """Backward through backward."""
    x = at[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(layer)(x), x, create_graph=True)
    return torch.autograd.grad((slope * at[1]).sum(), x)[0]


def compiled(layer: Map, at: Tensor) -> Tensor:
    """``torch.compile`` that only traces, and may leave out what it cannot trace, and backward."""
    torch.compiler.reset()
    return eager(torch.compile(layer, backend="eager"), at)


def compiled_whole(layer: Map, at: Tensor) -> Tensor:
    """``torch.compile`` without graph breaks, and backward."""
    torch.compiler.reset()
    return eager(torch.compile(layer, fullgraph=True), at)


CHECKS: dict[str, Callable[[Map, Tensor], Tensor]] = {
    "backward": eager,
    "func.grad": lambda layer, at: torch.func.grad(value(layer))(at[0]),
    "jacrev": lambda layer, at: torch.func.jacrev(layer)(at[0]),
    "vmap": lambda layer, at: torch.func.vmap(layer)(at),
    "vmap(grad)": lambda layer, at: torch.func.vmap(torch.func.grad(value(layer)))(at),
    "grad of grad": eager_twice,
    "func.hessian": lambda layer, at: torch.func.hessian(value(layer))(at[0]),
    "compile": compiled,
    FULL_GRAPH: compiled_whole,
}


RIDGE, DESIGN, TARGETS = ridge_problem(5)


def ridge_truth(s: Tensor) -> Tensor:
    """The minimiser of ridge regression in closed form."""
    return torch.linalg.solve(DESIGN.mT @ DESIGN + torch.diag(s.exp()), DESIGN.mT @ TARGETS)


def points(center: Tensor) -> Tensor:
    """Three points near a centre, which is the first."""
    generator = torch.Generator().manual_seed(3)
    return torch.stack([center, *(center + 0.1 * random(generator, *center.shape) for _ in range(2))])


def argmin() -> Map:
    """bigrad's ArgMin."""
    from bigrad.layers import ArgMin

    return ArgMin(RIDGE.objective, torch.zeros(5, dtype=torch.float64))


def slope(w: Tensor, s: Tensor) -> Tensor:
    """The gradient of ridge regression, written down."""
    return DESIGN.mT @ (DESIGN @ w - TARGETS) + s.exp() * w


def root() -> Map:
    """bigrad's Root, of the gradient."""
    from bigrad.layers import Root

    return Root(slope, torch.zeros(5, dtype=torch.float64))


def root_of_grad() -> Map:
    """bigrad's Root, of a gradient that torch.func takes."""
    from bigrad.layers import Root

    return Root(torch.func.grad(RIDGE.objective), torch.zeros(5, dtype=torch.float64))


def fixed_point() -> Map:
    """bigrad's FixedPoint, of a gradient step."""
    from bigrad.layers import FixedPoint

    return FixedPoint(lambda w, s: w - 0.02 * slope(w, s), torch.zeros(5, dtype=torch.float64))


def torchopt_at() -> Map:
    """TorchOpt's layer, which gets the exact minimiser."""
    import torchopt

    rule = torchopt.diff.implicit.custom_root(
        torch.func.grad(RIDGE.objective), argnums=1, solve=torchopt.linear_solve.solve_cg(rtol=1e-10)
    )
    solve = rule(lambda init, s: ridge_truth(s))
    return lambda s: solve(RIDGE.solution, s)


def higher_steps() -> Map:
    """higher, through 500 steps of gradient descent."""
    import higher

    class Weights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))

        def forward(self, s: Tensor) -> Tensor:
            return RIDGE.objective(self.w, s)

    def layer(s: Tensor) -> Tensor:
        model = Weights()
        with higher.innerloop_ctx(model, torch.optim.SGD(model.parameters(), lr=0.05)) as (inner, update):
            for _ in range(500):
                update.step(inner(s))
            return inner.w

    return layer


def torchopt_steps() -> Map:
    """TorchOpt, through 500 steps of gradient descent."""
    import torchopt

    def layer(s: Tensor) -> Tensor:
        optimizer = torchopt.sgd(lr=0.05)
        w = (torch.zeros(5, dtype=torch.float64, requires_grad=True),)
        state = optimizer.init(w)
        for _ in range(500):
            slopes = torch.autograd.grad(RIDGE.objective(w[0], s), w, create_graph=True)
            updates, state = optimizer.update(slopes, state, inplace=False)
            w = torchopt.apply_updates(w, updates, inplace=False)
        return w[0]

    return layer


FOLLOWER = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 3.0]], dtype=torch.float64)
COST = 0.5


def bilevel() -> Map:
    """bigrad's Bilevel: the leader wants the follower near the sine of the input; both answers are linear in it."""
    from bigrad.layers import Bilevel

    def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return ((y - z.sin()) ** 2).sum() / 2 + COST * (x**2).sum() / 2

    def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return y @ FOLLOWER @ y / 2 - x @ y

    zero = torch.zeros(3, dtype=torch.float64)
    layer = Bilevel(leader, follower, init=(zero, zero))
    return lambda z: layer(z)[0]


def bilevel_truth(z: Tensor) -> Tensor:
    """The leader's answer in closed form."""
    response = torch.linalg.inv(FOLLOWER)
    eye = torch.eye(3, dtype=z.dtype)
    return torch.linalg.solve(response.mT @ response + COST * eye, response.mT @ z.sin())


QP = Sizes(1, 6, 6, 2)


def program_of(layer: Callable[..., Tensor]) -> Map:
    """A program whose curvature and bounds move with a vector; without the first the answer would be linear."""
    Q, q, A, b, G, h = programs(QP).data
    return lambda x: layer(Q + torch.diag(0.3 * x.exp()), q, A, b, G, h + 0.05 * x)[0]


SUBJECTS: dict[str, Subject] = {
    **{
        name: Subject(make, ridge_truth, points(RIDGE.theta))
        for name, make in {
            "bigrad ArgMin": argmin,
            "bigrad Root": root,
            "bigrad Root of torch.func.grad": root_of_grad,
            "bigrad FixedPoint": fixed_point,
            "TorchOpt custom_root": torchopt_at,
            "TorchOpt unrolled": torchopt_steps,
            "higher unrolled": higher_steps,
        }.items()
    },
    "bigrad Bilevel": Subject(bilevel, bilevel_truth, points(torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64))),
    **{
        f"{name} QP": Subject(
            lambda make=make: program_of(make(QP)),
            program_of(programs(QP).exact),
            points(torch.full((6,), 0.3, dtype=torch.float64)),
        )
        for name, make in WAYS.items()
    },
}


def check(run: Callable[[Map, Tensor], Tensor], subject: Subject) -> str:
    """One cell of the matrix."""
    truth = (eager if run in (compiled, compiled_whole) else run)(subject.truth, subject.at)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(subject.make(), subject.at)
    except Exception as error:  # noqa: BLE001  # what a package raises is a result
        return f"raises {type(error).__name__}"
    error = relative_error(found.detach(), truth.detach())
    return "pass" if error <= TOLERANCE else f"wrong by {error:.2g}"


def matrix(quick: bool) -> list[Row]:
    """All layers by all transforms."""
    torch.set_default_dtype(torch.float64)
    logging.disable()  # torch.compile tells at length what it leaves out
    rows: list[Row] = []
    for name, subject in SUBJECTS.items():
        cells = {title: check(run, subject) for title, run in CHECKS.items() if not (quick and "compile" in title)}
        passed = sum(cell == "pass" for cell in cells.values())
        row: Row = {"layer": name, **cells, "passed": f"{passed} of {len(cells)}"}
        if name.startswith("bigrad"):
            wanted = [cell for title, cell in cells.items() if title != FULL_GRAPH or "QP" in name]
            row["verdict"] = "pass" if set(wanted) == {"pass"} else "falls short"
        rows.append(row)
    return rows


if __name__ == "__main__":
    report(options(__doc__, "transforms"), {"matrix": matrix})
