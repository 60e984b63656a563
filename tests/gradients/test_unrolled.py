"""Unrolled against descents written out, against finite differences, and against its problems one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bigrad
from bigrad import InputError, SolveError, SolveWarning, UnsupportedError
from bigrad.certificate import Certificate
from bigrad.equation import Equation, Mapping, Objective, Problem
from bigrad.errors import NotConverged
from bigrad.gradients import Implicit, Record, Unrolled
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS, FixedPointIteration, GradientDescent

from ..layers.cases import CASES, ENTROPY, RIDGE, Case, D, Proximal, derivatives, errors, flat, vector
from .paths import DESCENT, Solving, anchor, attached, descending, explicit, outer

ANCHOR = Case(anchor, torch.zeros((), dtype=D), torch.tensor(2.0, dtype=D), lambda x: x / 2, 0.25)
every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def close(found: list[Tensor], truth: list[Tensor], rtol: float = 1e-9) -> None:
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-10)


def hypergradient(layer: ArgMin, at: float) -> tuple[float, float]:
    x = torch.tensor(at, dtype=D, requires_grad=True)
    y = layer(x)
    return float(torch.autograd.grad(outer(y, x), x)[0]), float(y.detach())


@pytest.mark.parametrize(("steps", "slope", "y"), [(1, 0.375, 0.5), (2, 0.40625, 0.75), (5, 0.48486328125, 0.96875)])
def test_the_anchor_after_some_steps(steps: int, slope: float, y: float) -> None:
    assert hypergradient(descending(ANCHOR, Unrolled(), steps), 2.0) == (slope, y)


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 11])
def test_the_anchor_at_a_start_that_is_the_solution(steps: int) -> None:
    truth = (-0.5 * (1 - 2.0**-steps), 0.0)
    assert hypergradient(descending(ANCHOR, Unrolled(last=steps), steps), 0.0) == truth
    solved = ArgMin(anchor, ANCHOR.init, solver=GradientDescent(0.25, rtol=0.0, atol=1e-14), gradient=Unrolled(steps))
    for at in (0.0, 2.0, -3.0):
        slope, y = hypergradient(solved, at)
        assert slope == pytest.approx((at / 2 - 1) * 0.5 * (1 - 2.0**-steps) + at / 4, abs=1e-12)
        assert y == pytest.approx(at / 2, abs=1e-12)


@every_case
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.6, False), (0.6, True)])
def test_three_derivatives_are_those_of_the_descent_written_out(case: Case, momentum: float, nesterov: bool) -> None:
    layer = descending(case, Unrolled(), 7, momentum, nesterov)
    close(derivatives(layer, case.x, 3), derivatives(explicit(case, 7, momentum, nesterov), case.x, 3))


@every_case
@pytest.mark.parametrize("last", [1, 3, 7, 9])
def test_truncation_is_that_of_the_descent_written_out(case: Case, last: int) -> None:
    layer = descending(case, Unrolled(last), 7, 0.6)
    truth = explicit(case, 7, 0.6, last=min(last, 7))
    close(derivatives(layer, case.x, 2), derivatives(truth, case.x, 2))
    if last < 7:  # planted: nothing is cut off
        assert not torch.allclose(derivatives(truth, case.x, 1)[1], derivatives(explicit(case, 7, 0.6), case.x, 1)[1])


@pytest.mark.parametrize("case", CASES[:3], ids=repr)
def test_derivatives_of_a_converged_descent_are_the_closed_form(case: Case) -> None:
    solver = GradientDescent(case.step_size, rtol=0.0, atol=1e-13)
    layer = ArgMin(case.objective, case.init, solver=solver, gradient=Unrolled())
    assert max(errors(layer, case, order=2)) < 1e-7


def test_truncated_derivatives_of_every_order_approach_the_closed_form_at_the_rate_of_the_solver() -> None:
    """The slowest direction of ridge regression has the rate 1 - 0.03 * curvature."""
    curvature = torch.func.jacrev(torch.func.grad(lambda w: RIDGE.objective(w, RIDGE.x)))(RIDGE.formula(RIDGE.x))
    rate = float(1 - RIDGE.step_size * torch.linalg.eigvalsh(curvature)[0])
    solver = GradientDescent(RIDGE.step_size, rtol=0.0, atol=1e-13)
    found = {
        last: errors(ArgMin(RIDGE.objective, RIDGE.init, solver=solver, gradient=Unrolled(last)), RIDGE, order=2)
        for last in (20, 40)
    }
    assert found[40][1] / found[20][1] == pytest.approx(rate**20, rel=0.3)
    assert found[40][2] < 2 * found[20][2] * rate**20


@pytest.mark.parametrize("last", [None, 4])
def test_finite_differences(last: int | None) -> None:
    objective = lambda y, x, c: (y**4 + x.exp() * y**2 - c * y).sum() + (y * y.roll(1) * c).sum()  # noqa: E731
    layer = ArgMin(
        objective,
        torch.full((2,), 0.5, dtype=D),
        solver=GradientDescent(0.05, rtol=0.0, atol=0.0, max_steps=4, momentum=0.5),
        gradient=Unrolled(last),
        on_failure="ignore",
    )
    inputs = [vector(2, seed=k).requires_grad_() for k in (1, 2)]
    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)


STIFF = torch.tensor([0.7, 2.0, 9.0, 0.4], dtype=D)


def stiff(y: Tensor, x: Tensor, stiffness: Tensor) -> Tensor:
    return stiffness * ((y - x.sin()) ** 2 + 0.1 * y**4).sum(-1)


def three(layer: ArgMin, x: Tensor, stiffness: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x, stiffness)
    (first,) = torch.autograd.grad(y.cos().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), x)
    return [y.detach(), first.detach(), second]


@pytest.mark.parametrize("last", [None, 8, 60])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_batch_is_a_loop_through_every_derivative(last: int | None, momentum: float) -> None:
    solver = GradientDescent(0.05, rtol=0.0, atol=1e-2, momentum=momentum)
    layer = ArgMin(stiff, torch.zeros(2, dtype=D), solver=solver, gradient=Unrolled(last))
    x = vector(4, 2, seed=5)
    side_by_side = three(layer, x, STIFF)
    assert layer.certificate is not None
    assert len(layer.certificate.steps.unique()) == 4
    alone = [three(layer, x[k], STIFF[k]) for k in range(4)]
    for place, together in enumerate(side_by_side):
        truth = torch.stack([one[place] for one in alone])
        torch.testing.assert_close(together, truth, rtol=1e-10, atol=1e-13)


class Overrun(Solving):
    """Planted: every problem of the batch is counted with the steps of the slowest."""

    def __call__(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        y, certificate = super().__call__(problem, start, inputs)
        certificate.steps = certificate.steps.max().expand_as(certificate.steps)
        return y, certificate


def test_a_batch_without_its_own_counts_is_told_from_its_problems() -> None:
    solver = GradientDescent(0.04, rtol=0.0, atol=1e-2)
    found = []
    for solve in (Solving(solver), Overrun(solver)):
        x = vector(4, 2, seed=5).requires_grad_()
        y = attached(Unrolled(), Objective(stiff, 1), solve, torch.zeros(4, 2, dtype=D), x, STIFF)
        found.append(torch.autograd.grad(y.sum(), x)[0])
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_roots_and_fixed_points() -> None:
    x = vector(3, seed=2).requires_grad_()
    matrix = (0.3 * vector(3, 3, seed=3)).requires_grad_()
    mapping = Mapping(lambda y, x, m: torch.tanh(m @ y + x), 0)
    root = Equation(lambda y, x, m: y - torch.tanh(m @ y + x), 0)
    found = []
    for problem, solver in (
        (mapping, FixedPointIteration(rtol=0.0, atol=1e-14)),
        (root, GradientDescent(1.0, rtol=0.0, atol=1e-14)),
    ):
        for rule in (Unrolled(), Unrolled(last=80), Implicit()):
            y = attached(rule, problem, solver, torch.zeros(3, dtype=D), x, matrix)
            first = torch.autograd.grad(y.cos().sum(), (x, matrix), create_graph=True)
            second = torch.autograd.grad(first[1].sin().sum(), (x, matrix))
            found.append([y, *first, *second])
    for other in found[1:]:
        close(other, found[0], rtol=1e-8)


def test_parameters_captured_tensors_and_integers_and_nobodys_grad() -> None:
    module = Proximal()
    x, place = vector(3).requires_grad_(), torch.tensor([2, 0, 1])
    scale = torch.tensor(0.7, dtype=D, requires_grad=True)
    others = [x, scale, *module.parameters()]
    objective = lambda y, x, place: scale * module(y, x[place])  # noqa: E731  # a name for a one-liner
    gradients = []
    for rule in (Unrolled(), Implicit()):
        layer = ArgMin(
            objective, torch.zeros(3, dtype=D), solver=GradientDescent(0.2, rtol=0.0, atol=1e-13), gradient=rule
        )
        first = torch.autograd.grad(layer(x, place).cos().sum(), others, create_graph=True)
        gradients.append([*first, *torch.autograd.grad(first[0].sin().sum(), [x, *module.parameters()])])
    close(*gradients, rtol=1e-7)
    assert all(tensor.grad is None for tensor in others)
    owner = ArgMin(
        module, torch.zeros(3, dtype=D), solver=GradientDescent(0.2, rtol=0.0, atol=1e-13), gradient=Unrolled()
    )
    owner(x).sum().backward()
    assert x.grad is not None
    assert all(isinstance(parameter, nn.Parameter) and parameter.grad is not None for parameter in module.parameters())


def test_an_argmin_inside_of_an_argmin_is_differentiated_through_what_it_captures() -> None:
    """Inner: z = (y + x) / 2; outer: y minimises (y - 1)^2 + z^2, so y = (4 - x) / 5."""

    def whole(inner_rule: object, x: Tensor) -> Tensor:
        def objective(y: Tensor) -> Tensor:
            inner = lambda z: (z - y) ** 2 + (z - x) ** 2  # noqa: E731  # a name for a one-liner
            solver = GradientDescent(0.2, rtol=0.0, atol=1e-14)
            z = bigrad.argmin(inner, torch.zeros((), dtype=D), solver=solver, gradient=inner_rule)  # type: ignore[arg-type]
            return (y - 1) ** 2 + z**2

        return bigrad.argmin(objective, torch.zeros((), dtype=D), solver=LBFGS(rtol=0.0, atol=1e-12))  # type: ignore[no-any-return]

    x = torch.tensor(0.3, dtype=D, requires_grad=True)
    y = whole(Unrolled(), x)
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    assert float(y.detach()) == pytest.approx((4 - 0.3) / 5, abs=1e-9)
    assert float(slope.detach()) == pytest.approx(-0.2, abs=1e-9)


def test_the_certificate_is_enforced_and_a_solver_without_steps_is_refused() -> None:
    x = ENTROPY.x.clone().requires_grad_()
    short = GradientDescent(ENTROPY.step_size, max_steps=3)
    layer = ArgMin(ENTROPY.objective, ENTROPY.init, solver=short, gradient=Unrolled())
    with pytest.raises(NotConverged, match="argmin used all its steps"):
        layer(x)
    with pytest.raises(UnsupportedError, match=r"LBFGS.*GradientDescent or FixedPointIteration.*Implicit"):
        ArgMin(ENTROPY.objective, ENTROPY.init, gradient=Unrolled())(x)
    with pytest.raises(UnsupportedError, match="this solver"):
        attached(Unrolled(), Objective(anchor, 0), DESCENT.solve, torch.zeros(1, dtype=D), x)
    for last in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="last"):
            Unrolled(last)  # type: ignore[arg-type]


def test_no_step_is_no_silent_zero() -> None:
    start = torch.tensor([1.0, 5.0], dtype=D)
    x = torch.tensor([2.0, 2.0], dtype=D, requires_grad=True)

    def solve(rule: Unrolled, mode: str) -> Tensor:
        record = Record(mode)  # type: ignore[arg-type]
        problem = Objective(lambda y, x: anchor(y, x.unsqueeze(-1)).sum(-1), 1)
        return attached(rule, problem, GradientDescent(0.25), start.unsqueeze(-1), x, record=record)

    with pytest.raises(SolveError, match=r"1 of 2 problems.*last=k.*Implicit"):
        solve(Unrolled(), "raise")
    with pytest.warns(SolveWarning, match="1 of 2"):
        solve(Unrolled(), "warn")
    gradient = torch.autograd.grad(solve(Unrolled(), "ignore").sum(), x)[0]
    assert gradient[0] == 0
    assert gradient[1] == pytest.approx(0.5)
    gradient = torch.autograd.grad(solve(Unrolled(last=50), "raise").sum(), x)[0]
    torch.testing.assert_close(gradient, torch.full_like(x, 0.5))
    with torch.no_grad():
        assert not solve(Unrolled(), "raise").requires_grad
    x = x.detach()
    assert not solve(Unrolled(), "raise").requires_grad


def test_float32_stays_float32() -> None:
    layer = descending(Case(RIDGE.objective, RIDGE.init, RIDGE.x, RIDGE.formula, 0.03), Unrolled(), 20, 0.5)
    truth = derivatives(layer, RIDGE.x, 2)
    small = ArgMin(
        lambda w, x: RIDGE.objective(w.double(), x.double()).float(),
        torch.zeros(3),
        solver=layer.solver,
        gradient=Unrolled(),
        on_failure="ignore",
    )
    x = RIDGE.x.float().requires_grad_()
    found = flat(small(x))
    for order in (0, 1, 2):
        assert found.dtype == torch.float32
        assert (found - truth[order]).norm() < 1e-4 * truth[order].norm()
        weight = torch.cos(torch.arange(3) + order)
        if order < 2:
            (found,) = torch.autograd.grad((weight * found).sum(), x, create_graph=True)
