"""Gradients of convex programs against finite differences, closed forms and the optimality conditions."""

from __future__ import annotations

import cvxpy as cp
import pytest
import torch
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor

from bigrad import Status, errors
from bigrad.layers import ConvexProgram

from .cases import D, leaf, vector
from .convex_programs import Program, catalogue, projection, quadratic, simplex

STEP = 1e-5


def leaves(values: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    return [value.clone().requires_grad_() for value in values]


def weighted(answers: tuple[Tensor, ...]) -> Tensor:
    """A number that depends on every entry in its own way."""
    return torch.stack([(answer * vector(*answer.shape, seed=7)).sum() for answer in answers]).sum()


@pytest.mark.parametrize("program", catalogue(), ids=repr)
def test_the_gradient_of_every_parameter_against_central_differences(program: Program) -> None:
    values = leaves(program.values)
    gradients = torch.autograd.grad(weighted(program.layer(*values)), values)
    certificate = program.layer.certificate
    assert certificate is not None
    assert certificate.stationarity < 1e-13
    assert certificate.feasibility is not None
    assert certificate.feasibility < 1e-9
    assert certificate.adjoint_residual is not None
    assert certificate.adjoint_residual < 1e-12
    for place, gradient in enumerate(gradients):
        direction = vector(*gradient.shape, seed=11)
        if gradient.ndim == 2 and torch.equal(gradient, gradient.mT):
            direction = direction + direction.mT
        ends = []
        for sign in (1, -1):
            moved = list(program.values)
            moved[place] = moved[place] + sign * STEP * direction
            ends.append(weighted(program.layer(*moved)))
        difference = (ends[0] - ends[1]) / (2 * STEP)
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=2e-7, atol=1e-9)


def test_the_derivative_with_respect_to_a_symmetric_parameter_is_symmetric() -> None:
    program = next(it for it in catalogue() if it.name == "SDP")
    values = leaves(program.values)
    gradient = torch.autograd.grad(weighted(program.layer(*values)), values[0])[0]
    assert torch.equal(gradient, gradient.mT)
    assert gradient.norm() > 0.1


def by_conditions(values: list[Tensor], y: Tensor) -> list[Tensor]:
    """The gradients of the dense quadratic program, from its conditions with the active constraints as equalities."""
    R, q, G, h, A, b = values = leaves(values)
    active = (G @ y - h).abs() < 1e-9
    assert 10 < int(active.sum()) < 40
    rows = torch.cat([G[active], A])
    corner = torch.zeros(len(rows), len(rows), dtype=D)
    system = torch.cat([torch.cat([R.mT @ R, rows.mT], 1), torch.cat([rows, corner], 1)])
    solution = torch.linalg.solve(system, torch.cat([-q, h[active], b]))[: len(q)]
    torch.testing.assert_close(solution, y, rtol=0, atol=1e-12)
    return list(torch.autograd.grad(weighted((solution,)), values))


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # cvxpylayers hands numpy a tensor
def test_the_dense_quadratic_program_is_exact_where_the_default_of_cvxpylayers_is_not() -> None:
    problem, parameters, variable, numbers = quadratic()

    def error(layer: torch.nn.Module) -> float:
        values = leaves(numbers)
        gradients = torch.autograd.grad(weighted(layer(*values)), values)
        return max(float((a - b).norm() / b.norm()) for a, b in zip(gradients, truth, strict=True))

    ours = ConvexProgram(problem, parameters, [variable])
    truth = by_conditions(numbers, ours(*numbers)[0])
    assert error(ours) < 1e-12
    assert error(CvxpyLayer(problem, parameters, [variable])) > 1e-2


def test_the_values_of_a_linear_program_differentiate_as_its_multipliers() -> None:
    program = next(it for it in catalogue() if it.name == "LP")
    cost, rows, bounds = leaves(program.values)
    y = program.layer(cost, rows, bounds)[0]
    gradients = torch.autograd.grad(cost.detach() @ y, (cost, rows, bounds))
    active = (rows @ y - bounds).abs().detach() < 1e-9
    multipliers = torch.zeros_like(bounds)
    multipliers[active] = -torch.linalg.solve(rows[active].mT, cost).detach()
    assert (multipliers >= 0).all()
    assert not gradients[0].any()
    torch.testing.assert_close(gradients[1], multipliers[:, None] * y.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients[2], -multipliers, rtol=1e-9, atol=1e-12)


def test_softmax_as_a_program_with_entropy() -> None:
    y, x = cp.Variable(4), cp.Parameter(4)
    layer = ConvexProgram(cp.Problem(cp.Maximize(x @ y + cp.sum(cp.entr(y))), [cp.sum(y) == 1]), [x], [y])
    scores = leaf(4)
    found = torch.autograd.functional.jacobian(lambda x: layer(x)[0], scores)
    torch.testing.assert_close(layer(scores)[0], scores.softmax(0), rtol=0, atol=1e-12)
    soft = scores.detach().softmax(0)
    torch.testing.assert_close(found, torch.diag(soft) - soft.outer(soft), rtol=0, atol=1e-12)


def test_an_eigenvector_as_a_semidefinite_program() -> None:
    X, C = cp.Variable((4, 4), PSD=True), cp.Parameter((4, 4), symmetric=True)
    layer = ConvexProgram(cp.Problem(cp.Maximize(cp.trace(C @ X)), [cp.trace(X) == 1]), [C], [X])
    values = leaves([vector(4, 4) + vector(4, 4).mT])
    weight = vector(4, 4, seed=1)
    leading = torch.linalg.eigh(values[0])[1][:, -1]
    (truth,) = torch.autograd.grad((weight * leading.outer(leading)).sum(), values)
    (found,) = torch.autograd.grad((weight * layer(*values)[0]).sum(), values)
    torch.testing.assert_close(found, (truth + truth.mT) / 2, rtol=1e-9, atol=1e-10)


def test_the_projection_onto_a_ball_inside_and_outside() -> None:
    y, x = cp.Variable(3), cp.Parameter(3)
    layer = ConvexProgram(cp.Problem(cp.Minimize(cp.sum_squares(y - x)), [cp.norm(y) <= 1]), [x], [y])
    for point in (torch.tensor([0.1, 0.2, 0.3], dtype=D), torch.tensor([1.0, 2.0, 3.0], dtype=D)):
        found = torch.autograd.functional.jacobian(lambda x: layer(x)[0], point)
        truth = torch.autograd.functional.jacobian(lambda x: x / x.norm().clamp_min(1), point)
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-10)


def test_a_weakly_active_constraint_shows_in_the_margin() -> None:
    layer = projection()
    point = torch.tensor([1.0, 0.0, -1.0], dtype=D, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(point)[0].sum(), point)
    assert layer.certificate is not None
    assert layer.certificate.margin is not None
    assert layer.certificate.margin < 1e-6
    assert 0 <= gradient[1] <= 1
    assert gradient[0] == 1
    assert gradient[2] == 0
    layer(torch.tensor([1.0, -2.0, 3.0], dtype=D))
    torch.testing.assert_close(layer.certificate.margin, torch.tensor(1.0, dtype=D))


def duplicate(*bounds: cp.Expression) -> tuple[cp.Variable, list[cp.Constraint]]:
    y = cp.Variable(2)
    return y, [y >= bound for bound in bounds]


def test_a_constraint_written_twice_does_no_harm() -> None:
    x = cp.Parameter(2)
    y, constraints = duplicate(x, x)
    layer = ConvexProgram(cp.Problem(cp.Minimize(cp.sum(y)), constraints), [x], [y])
    found = torch.autograd.functional.jacobian(lambda x: layer(x)[0], vector(2))
    torch.testing.assert_close(found, torch.eye(2, dtype=D), rtol=0, atol=1e-12)


def test_two_constraints_that_meet_have_no_derivative_unless_nobody_asks() -> None:
    x, other, cost = cp.Parameter(2), cp.Parameter(2), cp.Parameter(2)
    y, constraints = duplicate(x, other)
    layer = ConvexProgram(cp.Problem(cp.Minimize(cost @ y), constraints), [x, other, cost], [y])
    meeting, weights = leaf(2), torch.ones(2, dtype=D, requires_grad=True)
    with pytest.raises(errors.Singular, match="adjoint solve has no unique solution"):
        layer(meeting, meeting, weights)[0].sum().backward()
    (gradient,) = torch.autograd.grad(layer(meeting.detach(), meeting.detach(), weights)[0].sum(), weights)
    assert not gradient.any()


def test_an_answer_that_is_not_unique_has_no_derivative_where_it_is_free() -> None:
    y, x = cp.Variable(2), cp.Parameter(2)
    layer = ConvexProgram(cp.Problem(cp.Minimize(x[0] * y[0]), [y >= 0, y <= x[1]]), [x], [y])
    point = torch.tensor([1.0, 2.0], dtype=D, requires_grad=True)
    with pytest.raises(errors.Singular, match="Remedy"):
        layer(point)[0][1].backward()
    assert layer.certificate is not None
    assert layer.certificate.adjoint is not None
    assert int(layer.certificate.adjoint.status) == Status.SINGULAR
    layer(point)[0][0].backward()
    assert not point.grad.any()
    assert int(layer.certificate.adjoint.status) == Status.CONVERGED


def test_programs_in_a_chain() -> None:
    first, second = simplex(), projection()
    y, x = cp.Variable(3), cp.Parameter(3)
    smooth = ConvexProgram(cp.Problem(cp.Minimize(cp.sum_squares(y - x)), [cp.sum(y) == 1, y >= 0]), [x], [y])

    def chain(x: Tensor) -> Tensor:
        return second(smooth(x.sin())[0] * x - 0.1)[0] + first(x)[0]

    x_value = torch.tensor([0.3, 0.9, 0.5], dtype=D, requires_grad=True)
    found = torch.autograd.functional.jacobian(chain, x_value)
    columns = [
        (chain(x_value.detach() + STEP * unit) - chain(x_value.detach() - STEP * unit)) / (2 * STEP)
        for unit in torch.eye(3, dtype=D)
    ]
    torch.testing.assert_close(found, torch.stack(columns, 1), rtol=1e-7, atol=1e-9)
    assert found.norm() > 0.1
