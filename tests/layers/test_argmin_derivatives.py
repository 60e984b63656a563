"""Derivatives of the argmin against closed forms and finite differences; known wrong variants are caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad.equation import Problem
from bigrad.gradients import GradientRule, Implicit, Record
from bigrad.layers import ArgMin
from bigrad.linear import CG, Direct, LinearSolver
from bigrad.solvers import LBFGS, GradientDescent, Solver

from .cases import CASES, DESIGN, ENTROPY, MIXED, RIDGE, Case, D, errors, flat, ridge, vector

every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def exact(case: Case, solver: str, linear_solver: LinearSolver) -> ArgMin:
    """The layer of a case, its solver as close as rounding lets it."""
    tight: Solver = (
        LBFGS(rtol=0.0, atol=1e-13) if solver == "L-BFGS" else GradientDescent(case.step_size, rtol=0.0, atol=1e-13)
    )
    return ArgMin(case.objective, case.init, solver=tight, gradient=Implicit(linear_solver))


@every_case
@pytest.mark.parametrize("linear_solver", [CG(), Direct()], ids=["CG", "Direct"])
def test_three_derivatives_equal_the_closed_form(case: Case, linear_solver: LinearSolver) -> None:
    value, first, second, third = errors(exact(case, "L-BFGS", linear_solver), case)
    assert value < 1e-10
    assert first < 1e-10
    assert second < 1e-9
    assert third < 1e-8


@pytest.mark.parametrize("case", [case for case in CASES if case is not MIXED], ids=repr)
def test_the_solver_makes_no_difference(case: Case) -> None:
    assert max(errors(exact(case, "descent", CG()), case, order=2)) < 1e-9


@every_case
def test_the_default_settings_are_good_to_six_digits(case: Case) -> None:
    assert max(errors(ArgMin(case.objective, case.init), case, order=2)) < 1e-6


class NewtonStep(GradientRule):
    """Wrong variants: the derivative of one step ``y - M F(y, x)`` from the solution, with ``y`` and ``M`` held fixed.

    With ``M`` the inverse Jacobian the first derivative is right and the second is that of a saved ``y`` detached from
    ``x``; with its negative the adjoint has lost its minus sign; with a multiple of the identity it is one unrolled
    step of descent.
    """

    def __init__(self, sign: float, step_size: float | None = None) -> None:
        self.sign, self.step_size = sign, step_size

    def attach(
        self, problem: Problem, solve: object, start: Tensor, inputs: tuple[Tensor, ...], record: Record
    ) -> Tensor:
        fixed = tuple(x.detach() for x in inputs)
        y, record.certificate = solve(problem, start, fixed)  # type: ignore[operator]
        jacobian = torch.autograd.functional.jacobian(lambda free: problem.residual(free, *fixed), y)
        step = (
            torch.linalg.inv(jacobian) if self.step_size is None else self.step_size * torch.eye(y.shape[-1], dtype=D)
        )
        return y - self.sign * step @ problem.residual(y, *inputs)


def variant(case: Case, rule: GradientRule) -> list[float]:
    return errors(ArgMin(case.objective, case.init, solver=LBFGS(rtol=0.0, atol=1e-13), gradient=rule), case, order=2)


@pytest.mark.parametrize("case", [RIDGE, ENTROPY], ids=repr)
def test_known_wrong_variants_are_caught(case: Case) -> None:
    value, first, second = variant(case, NewtonStep(1.0))
    assert value < 1e-10
    assert first < 1e-10
    assert second > 0.1
    value, first, _ = variant(case, NewtonStep(-1.0))
    assert value < 1e-10
    assert first > 1
    assert variant(case, NewtonStep(1.0, step_size=0.01))[1] > 0.1


def logistic(w: Tensor, x: Tensor) -> Tensor:
    label = torch.sign(vector(8, seed=7))
    return torch.nn.functional.softplus(-label * (DESIGN @ w)).sum() + 0.5 * (x.exp() * w**2).sum()


def log_sum_exp(y: Tensor, x: Tensor) -> Tensor:
    return torch.logsumexp(DESIGN @ y * x.sum(-1, keepdim=True), -1) + 0.5 * ((y - x) ** 2).sum(-1)


@pytest.mark.parametrize("objective", [logistic, log_sum_exp])
@pytest.mark.parametrize(
    ("solver", "linear_solver"), [("L-BFGS", CG()), ("L-BFGS", Direct()), ("descent", CG())], ids=lambda it: str(it)[:6]
)
def test_smooth_objectives_agree_with_finite_differences(
    objective: Callable[..., Tensor], solver: str, linear_solver: LinearSolver
) -> None:
    case = Case(objective, torch.zeros(3, dtype=D), vector(3, seed=8), lambda x: x, 0.2)
    layer = exact(case, solver, linear_solver)
    x = case.x.clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, x, eps=1e-5, atol=1e-8, rtol=1e-6)
    if solver == "L-BFGS":
        assert torch.autograd.gradgradcheck(layer, x, eps=1e-5, atol=1e-7, rtol=1e-6)


def test_several_inputs_at_once_agree_with_finite_differences() -> None:
    def objective(w: Tensor, X: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
        return ((X @ w - y) ** 2).sum() + penalty.exp() * (w**2).sum()

    layer = ArgMin(objective, torch.zeros(2, dtype=D), solver=LBFGS(rtol=0.0, atol=1e-13))
    inputs = [vector(4, 2).requires_grad_(), vector(4, seed=1).requires_grad_(), vector().requires_grad_()]
    assert torch.autograd.gradcheck(layer, inputs, eps=1e-5, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(layer, inputs, eps=1e-5, atol=1e-7, rtol=1e-6)


@every_case
def test_a_start_at_the_optimum_changes_nothing(case: Case) -> None:
    at_optimum = ArgMin(case.objective, case.formula(case.x), solver=LBFGS())
    assert max(errors(at_optimum, case, order=2)) < 1e-8
    certificate = at_optimum.certificate
    assert certificate is not None
    assert int(certificate.steps.max()) == 0
    x = case.x.clone().requires_grad_()
    assert flat(at_optimum(x, init=case.formula(x))).requires_grad


@every_case
@pytest.mark.parametrize("factor", [10.0, 1e-3])
def test_a_multiple_of_the_objective_has_the_same_answer_and_derivatives(case: Case, factor: float) -> None:
    scaled = Case(lambda y, x: factor * case.objective(y, x), case.init, case.x, case.formula, case.step_size)
    assert max(errors(exact(scaled, "L-BFGS", CG()), scaled, order=2)) < 1e-9


def test_a_batch_is_a_loop_through_every_derivative() -> None:
    x = vector(4, 2, seed=5)
    weight = torch.tensor([1e-3, 1.0, 1e3, 30.0], dtype=D)
    objective = lambda y, x, weight: weight * ((y - x.sin()) ** 2 + x**2 * y**4).sum(-1)  # noqa: E731  # a one-liner
    layer = ArgMin(objective, torch.zeros(2, dtype=D), solver=LBFGS(rtol=0.0, atol=1e-13))

    def three(x: Tensor, weight: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        y = layer(x, weight)
        (first,) = torch.autograd.grad(y.cos().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sin().sum(), x)
        return [y.detach(), first.detach(), second]

    side_by_side = three(x, weight)
    alone = [three(x[k], weight[k]) for k in range(4)]
    for place, together in enumerate(side_by_side):
        torch.testing.assert_close(together, torch.stack([one[place] for one in alone]), rtol=1e-9, atol=1e-11)


def test_float32_stays_float32_in_both_directions() -> None:
    layer = ArgMin(lambda w, x: ridge(w.double(), x.double()).float(), torch.zeros(3))
    x = RIDGE.x.float().requires_grad_()
    y = layer(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert {y.dtype, first.dtype, second.dtype} == {torch.float32}
    exact_x = RIDGE.x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(RIDGE.formula(exact_x).sum(), exact_x, create_graph=True)
    (curve,) = torch.autograd.grad(truth.sum(), exact_x)
    assert (first.double() - truth).norm() < 1e-3 * truth.norm()
    assert (second.double() - curve).norm() < 1e-2 * curve.norm()
