"""How often the host waits for the pretend device: a fixed number of times a step, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad.equation import Mapping, Objective, Problem
from bigrad.layers import ArgMin, FixedPoint, QuadraticProgram, Root
from bigrad.linear import CG, GMRES, MINRES, BiCGStab, Diagonal, Neumann, Operator
from bigrad.solvers import LBFGS, Anderson, Broyden, FixedPointIteration, GradientDescent, TorchOptimizer

from .pretend import count_syncs
from .test_layers import D, numbers, ridge
from .test_methods import bowl, contraction, definite, equation


def waits(run: Callable[[int], None], few: int = 4, many: int = 8) -> float:
    """How often the host waits for the device in each step of a solve, measured between two budgets of steps."""
    counts = []
    for steps in (few, many):
        with count_syncs() as syncs:
            run(steps)
        assert syncs.uploads == []
        counts.append(int(syncs))
    return (counts[1] - counts[0]) / (many - few)


@pytest.mark.parametrize("kind", [CG, MINRES, GMRES, BiCGStab, Neumann])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_linear_solver_waits_once_a_step(kind: Any, preconditioned: bool, device: torch.device) -> None:
    A, b = definite(size=40).to(device), numbers(3, 40).to(device)
    operator = Operator(lambda u: (A @ u.unsqueeze(-1)).squeeze(-1), symmetric=True)
    settings: dict[str, Any] = {"preconditioner": Diagonal(A.diagonal(dim1=-2, dim2=-1))} if preconditioned else {}
    if kind is Neumann:
        settings["step_size"] = 0.1
    assert waits(lambda steps: kind(rtol=0.0, max_steps=steps, **settings).solve(operator, b)) == 1


@pytest.mark.parametrize(("preconditioned", "wanted"), [(False, 2), (True, 3)])
def test_one_problem_alone_waits_for_its_scalars(preconditioned: bool, wanted: int, device: torch.device) -> None:
    """Conjugate gradients without a batch: for the direction's products, and for the residual's."""
    A, b = definite(1, size=40)[0].to(device), numbers(40).to(device)
    solver = CG(rtol=0.0, preconditioner=Diagonal(A.diagonal()) if preconditioned else None)
    counts = []
    for steps in (4, 8):
        with count_syncs() as syncs:
            replace(solver, max_steps=steps).solve(Operator(lambda u: A @ u, symmetric=True), b)
        counts.append(int(syncs))
    assert counts[1] - counts[0] == 4 * wanted


def hard(y: Tensor, x: Tensor) -> Tensor:
    return (torch.linspace(0.1, 5, 30, dtype=y.dtype, device=y.device) * (y - x) ** 2).sum(-1) + 0.01 * (y**4).sum(-1)


def slow(y: Tensor, x: Tensor) -> Tensor:
    return torch.linspace(0.5, 0.95, 30, dtype=y.dtype, device=y.device) * y.sin() + x


STEPS: dict[str, tuple[Any, Problem, float]] = {
    "LBFGS": (lambda steps: LBFGS(0.0, 0.0, steps, finish=None), Objective(hard, 1), 2),
    "gradient descent": (lambda steps: GradientDescent(0.05, 0.0, 0.0, steps), Objective(hard, 1), 1),
    "Anderson": (lambda steps: Anderson(0.0, 0.0, steps), Mapping(slow, 1), 1),
    "Broyden": (lambda steps: Broyden(0.0, 0.0, steps), Mapping(slow, 1), 3),
    "fixed-point iteration": (lambda steps: FixedPointIteration(0.0, 0.0, steps), Mapping(slow, 1), 1),
    "SGD": (
        lambda steps: TorchOptimizer(torch.optim.SGD, lr=0.05, rtol=0.0, atol=0.0, max_steps=steps),
        Objective(hard, 1),
        1,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_solver_waits_a_fixed_number_of_times_a_step(name: str, device: torch.device) -> None:
    make, problem, wanted = STEPS[name]
    start, x = torch.zeros(4, 30, dtype=D, device=device), numbers(4, 30).to(device)
    assert waits(lambda steps: make(steps).solve(problem, start, (x,))) <= wanted


def test_a_call_of_a_layer_uploads_what_its_certificate_decides_and_no_more(device: torch.device) -> None:
    """Numbers made on the host and sent to the device in a loop would make it wait at each step."""
    x = numbers(4, 3).to(device).requires_grad_()
    eye, start = torch.eye(3, dtype=D, device=device), torch.zeros(4, 3, dtype=D, device=device)
    calls: list[Callable[[], Tensor]] = [
        lambda: Root(equation, start, batch_dims=1)(x),
        lambda: FixedPoint(contraction, start, batch_dims=1)(x),
        lambda: QuadraticProgram()(eye, x, None, None, eye, x.detach().abs()),
        lambda: ArgMin(bowl, start)(x),
    ]
    for call, most in zip(calls, (0, 0, 0, 4), strict=True):
        with count_syncs() as syncs:
            torch.autograd.grad(call().sum(), x)
        assert len(syncs.uploads) <= most


def test_a_call_of_a_layer_waits_a_bounded_number_of_times(device: torch.device) -> None:
    """L-BFGS asks once a trial, and once whether any problem is live or doubtful; Newton's method finishes it."""
    x, design = numbers(4, 3).to(device), numbers(3, 3).to(device)
    layer = ArgMin(ridge, torch.zeros(3, dtype=D)).to(device)
    layer(x, design)
    with count_syncs() as syncs:
        layer(x, design)
    assert layer.certificate is not None
    assert int(syncs) <= 6 * int(layer.certificate.steps.max()) + 20
