"""One step from the solution: its own derivative, its bias, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bigrad import UnsupportedError
from bigrad.equation import Equation, Mapping, Objective, Problem
from bigrad.errors import NotConverged
from bigrad.gradients import Implicit, OneStep, Unrolled
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS, FixedPointIteration, GradientDescent, Solver

from ..layers.cases import CASES, ENTROPY, RIDGE, Case, D, derivatives, errors, start, stretched, vector
from .paths import FORWARD_MODE, Solving, anchor, attached, outer

every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def test_the_anchor() -> None:
    solver = GradientDescent(0.25, rtol=0.0, atol=1e-14)
    layer = ArgMin(anchor, torch.zeros((), dtype=D), solver=solver, gradient=OneStep())
    x = torch.tensor(0.0, dtype=D, requires_grad=True)
    assert torch.autograd.grad(outer(layer(x), x), x)[0] == -0.25


@every_case
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_is_the_last_step_of_an_unrolled_solve(case: Case, momentum: float) -> None:
    solver = GradientDescent(case.step_size, rtol=0.0, atol=1e-9, max_steps=20_000, momentum=momentum)
    if case.objective.__name__ == "mixed":
        solver = GradientDescent(case.step_size, rtol=0.0, atol=0.0, max_steps=20, momentum=momentum)
    layers = [
        ArgMin(case.objective, case.formula(case.x), solver=solver, gradient=rule, on_failure="ignore")
        for rule in (OneStep(), Unrolled(last=1))
    ]
    found, truth = (derivatives(layer, case.x, 1) for layer in layers)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_error_is_the_rate_of_the_solver() -> None:
    layer = ArgMin(stretched, start(), solver=GradientDescent(0.004, atol=1e-6), gradient=OneStep())
    x = vector(3).requires_grad_()
    y = layer(x)
    jacobian = torch.stack([torch.autograd.grad(y[place], x, retain_graph=True)[0] for place in range(3)])
    rates = 1 - 0.004 * torch.tensor([2.0, 20.0, 200.0], dtype=D)
    torch.testing.assert_close(torch.eye(3, dtype=D) - jacobian, torch.diag(rates))


@dataclass(frozen=True)
class Newton(Solver):
    """Full Newton steps, as differentiable operations."""

    def begin(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return ()

    def step(
        self, problem: Problem, y: Tensor, state: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        jacobian = torch.func.jacrev(lambda free: problem.residual(free, *inputs))(y)
        return y - torch.linalg.solve(jacobian, problem.residual(y, *inputs)), ()

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]):  # noqa: ANN201  # as its base
        return LBFGS(rtol=0.0, atol=1e-13).solve(problem, start, inputs)


@pytest.mark.parametrize("case", [RIDGE, ENTROPY], ids=repr)
def test_a_newton_step_is_exact(case: Case) -> None:
    layer = ArgMin(case.objective, case.init, solver=Newton(), gradient=OneStep())
    assert max(errors(layer, case, order=1)) < 1e-9


def test_fixed_points_and_roots() -> None:
    x, m = vector(3, seed=2).requires_grad_(), (0.1 * vector(3, 3, seed=3)).requires_grad_()
    for problem in (
        Mapping(lambda y, x, m: torch.tanh(m @ y + x), 0),
        Equation(lambda y, x, m: y - torch.tanh(m @ y + x), 0),
    ):
        solver = FixedPointIteration(atol=1e-14)
        y, truth = (attached(rule, problem, solver, torch.zeros(3, dtype=D), x, m) for rule in (OneStep(), Implicit()))
        found = torch.autograd.grad(y.sum(), (x, m), retain_graph=True)
        slope = 1 - y.detach() ** 2
        torch.testing.assert_close(found[0], slope)
        torch.testing.assert_close(found[1], slope.outer(y.detach()))
        exact = torch.autograd.grad(truth.sum(), (x, m))
        error = (found[0] - exact[0]).norm() / exact[0].norm()
        assert 1e-3 < error < torch.linalg.matrix_norm(m.detach(), 2)


@pytest.mark.filterwarnings(FORWARD_MODE)
def test_a_second_derivative_is_refused_in_every_mode() -> None:
    layer = ArgMin(ENTROPY.objective, ENTROPY.init, solver=GradientDescent(0.2), gradient=OneStep())
    x = ENTROPY.x.clone().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"OneStep.*first derivatives only.*Implicit"):
        torch.autograd.grad(first.sum(), x)
    scalar = lambda x: layer(x).sin().sum()  # noqa: E731  # a name for a one-liner
    for transform in (
        torch.func.hessian,
        lambda f: torch.func.jacrev(torch.func.grad(f)),
        lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
        lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
    ):
        with pytest.raises(UnsupportedError, match="OneStep"):
            transform(scalar)(ENTROPY.x)


def test_failures_and_solvers_without_steps() -> None:
    x = ENTROPY.x.clone().requires_grad_()
    short = GradientDescent(0.2, max_steps=3)
    with pytest.raises(NotConverged):
        ArgMin(ENTROPY.objective, ENTROPY.init, solver=short, gradient=OneStep())(x)
    with pytest.raises(UnsupportedError, match="LBFGS"):
        ArgMin(ENTROPY.objective, ENTROPY.init, gradient=OneStep())(x)


def test_a_batch_of_mixed_scales_is_a_loop() -> None:
    stiffness = torch.tensor([0.7, 2.0, 9.0, 0.4], dtype=D)
    problem = lambda dims: Objective(lambda y, x, s: s * ((y - x.sin()) ** 2 + y**4).sum(-1), dims)  # noqa: E731
    solve = Solving(GradientDescent(0.02, atol=1e-8))
    x = vector(4, 2).requires_grad_()
    y = attached(OneStep(), problem(1), solve, torch.zeros(4, 2, dtype=D), x, stiffness)
    (found,) = torch.autograd.grad(y.cos().sum(), x)
    for k in range(4):
        y = attached(OneStep(), problem(0), solve, torch.zeros(2, dtype=D), x[k], stiffness[k])
        torch.testing.assert_close(found[k], torch.autograd.grad(y.cos().sum(), x)[0][k], rtol=1e-6, atol=1e-8)
