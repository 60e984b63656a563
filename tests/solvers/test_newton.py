"""Newton's method: minima and no other stationary points, in few steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bigrad import Status
from bigrad.equation import Equation, Objective
from bigrad.linear import CG, GMRES, MINRES, Direct, LinearSolver, Operator
from bigrad.solvers import Newton

from .objectives import ANSWERS, D, Kinks, honest, minimise, quadratic, rosenbrock, slope, smooth_maximum, vector
from .roots import network, root, solve

Function = Callable[[Tensor], Tensor]
both = pytest.mark.parametrize("linear", [None, CG()])


def logistic(y: Tensor) -> Tensor:
    """A logistic regression with a small ridge."""
    points, labels = vector(40, y.shape[-1], seed=5).to(y), torch.sign(vector(40, seed=6)).to(y)
    return torch.nn.functional.softplus(-labels * (y @ points.mT)).mean(-1) + 1e-3 * (y**2).sum(-1)


def double_well(y: Tensor) -> Tensor:
    """Minima at ``(0, ±1/sqrt(2))``, a saddle between them."""
    return y[..., 0] ** 2 - y[..., 1] ** 2 + y[..., 1] ** 4


def ripples(y: Tensor) -> Tensor:
    """A maximum at zero and saddles and minima around it, in a bowl."""
    return torch.cos(y).sum(-1) + 0.01 * (y**2).sum(-1)


@both
@pytest.mark.parametrize("kappa", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_quadratic_takes_few_steps(kappa: float, offset: float, linear: LinearSolver | None) -> None:
    function, best = quadratic(kappa, 8)
    _, y = honest(Newton(linear_solver=linear), lambda y: offset + function(y), torch.zeros(8, dtype=D))
    assert (y - best).norm() <= 10 * (1e-10 + 1e-10 * slope(function, torch.zeros(8, dtype=D)).norm())
    _, certificate = minimise(Newton(linear_solver=linear), function, torch.zeros(8, dtype=D))
    assert int(certificate.steps) <= 2


@both
@pytest.mark.parametrize("function", [rosenbrock, smooth_maximum, logistic])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_smooth_objectives(function: Function, dtype: torch.dtype, linear: LinearSolver | None) -> None:
    status, y = honest(Newton(linear_solver=linear), function, torch.full((4,), -1.5, dtype=dtype))
    assert status in ANSWERS
    assert y.isfinite().all()
    if function is rosenbrock and dtype == D:
        torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-8, atol=0)


@pytest.mark.parametrize("function", [smooth_maximum, logistic])
def test_the_digits_double(function: Function) -> None:
    norms = []
    for steps in range(12):
        y, _ = minimise(Newton(rtol=0.0, atol=1e-14, max_steps=steps), function, torch.ones(3, dtype=D))
        norms.append(float(slope(function, y).norm()))
    close = [(a, b) for a, b in itertools.pairwise(norms) if 1e-6 < a < 1e-1]
    assert close
    assert all(b <= 100 * a**2 for a, b in close)
    assert min(norms) <= 1e-13


def test_roots_double_their_digits_too() -> None:
    norms = []
    for steps in range(8):
        y, _ = Newton(rtol=0.0, atol=1e-14, max_steps=steps).solve(root(network()), torch.zeros(20, dtype=D), ())
        norms.append(float(network()(y).norm()))
    close = [(a, b) for a, b in itertools.pairwise(norms) if 1e-6 < a < 1e-1]
    assert close
    assert all(b <= 10 * a**2 for a, b in close)


STARTS = [[0.0, 0.0], [1e-13, 1e-13], [1.0, 0.0], [0.3, 1e-9], [-1e-3, -1e-3]]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_saddle_is_never_an_answer(start: list[float], dtype: torch.dtype) -> None:
    y, certificate = minimise(Newton(), double_well, torch.tensor(start, dtype=dtype))
    assert Status(int(certificate.status)) == Status.CONVERGED
    assert int(certificate.steps) <= 9
    assert abs(abs(float(y[1])) - 0.5**0.5) <= 1e-3


@pytest.mark.parametrize("start", STARTS[3:])
def test_products_alone_leave_a_saddle_that_they_are_not_on(start: list[float]) -> None:
    y, certificate = minimise(Newton(linear_solver=CG()), double_well, torch.tensor(start, dtype=D))
    assert Status(int(certificate.status)) == Status.CONVERGED
    assert abs(abs(float(y[1])) - 0.5**0.5) <= 1e-6


def test_eigenvalues_count_by_their_size() -> None:
    start = torch.tensor([0.3, 0.1], dtype=D)
    step = minimise(Newton(max_steps=1), double_well, start)[0] - start
    promised = -slope(double_well, start) / torch.tensor([2.0, 2 - 12 * 0.1**2], dtype=D)
    torch.testing.assert_close(step / step.norm(), promised / promised.norm())


def test_steps_that_ignore_the_signs_of_the_curvature_end_at_the_saddle() -> None:
    saddle = Equation(lambda y: torch.stack([2 * y[..., 0], -2 * y[..., 1] + 4 * y[..., 1] ** 3], -1), 0)
    y, _ = Newton().solve(saddle, torch.tensor([0.3, 1e-3], dtype=D), ())
    assert y.norm() <= 1e-9


@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [0.0, 3.2, -3.1], [0.1, 0.0, 0.0]])
def test_maxima_and_saddles_of_every_kind_are_left(start: list[float]) -> None:
    y, certificate = minimise(Newton(), ripples, torch.tensor(start, dtype=D))
    assert not certificate.failed
    hessian = torch.autograd.functional.hessian(ripples, y)
    assert torch.linalg.eigvalsh(hessian).min() > 0


@pytest.mark.parametrize("budget", [0, 1000])
def test_a_maximum_that_cannot_be_left_is_named(budget: int) -> None:
    hill = lambda y: -(y**2).sum(-1)  # noqa: E731  # a name for a one-liner
    _, certificate = minimise(Newton(max_steps=budget), hill, torch.zeros(3, dtype=D))
    assert Status(int(certificate.status)) == Status.INDEFINITE


def test_a_flat_minimum_is_one() -> None:
    for function in (lambda y: (y**4).sum(-1), lambda y: (y[..., :1] ** 2).sum(-1), lambda y: 0 * y.sum(-1)):
        _, certificate = minimise(Newton(), function, torch.ones(3, dtype=D))
        assert Status(int(certificate.status)) == Status.CONVERGED


@both
@pytest.mark.parametrize("function", [lambda y: y.sum(), lambda y: -(y**2).sum(), lambda y: (y**3).sum() - y.sum()])
def test_an_objective_without_a_lower_bound_is_a_failure(function: Function, linear: LinearSolver | None) -> None:
    solver = Newton(linear_solver=linear, max_steps=100)
    assert minimise(solver, function, torch.full((2,), -1.0, dtype=D))[1].failed


def test_a_kink_is_a_failure_and_no_rounding_floor() -> None:
    kinks = Kinks(D)
    kinks.judge(*minimise(Newton(max_steps=20), kinks, torch.tensor([0.5, -2.0], dtype=D).expand(28, 2), 1))


@pytest.mark.parametrize("function", [rosenbrock, smooth_maximum])
@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_tolerance_of_zero_ends_at_the_rounding_floor(function: Function, dtype: torch.dtype, offset: float) -> None:
    start = torch.full((3,), -1.2, dtype=dtype)
    status, y = honest(Newton(rtol=0.0, atol=0.0), lambda y: offset + function(y), start)
    assert status in ANSWERS
    assert slope(function, y).norm() <= 1e3 * torch.finfo(dtype).eps * slope(function, start).norm()


def test_a_start_at_the_optimum_takes_no_step() -> None:
    y, _ = minimise(Newton(rtol=0.0, atol=1e-14), logistic, torch.ones(3, dtype=D))
    again, certificate = minimise(Newton(), logistic, y)
    torch.testing.assert_close(again, y, rtol=1e-14, atol=0)
    assert int(certificate.steps) == 0


def test_the_edges_of_what_can_be_asked() -> None:
    start = torch.tensor([-1.2, 1.0], dtype=D)
    y, certificate = minimise(Newton(max_steps=0), rosenbrock, start)
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    assert torch.equal(y, start)
    for shape in ((0, 2), (2, 0)):
        y, certificate = minimise(Newton(), lambda y: (y**2).sum(-1), torch.ones(shape, dtype=D), 1)
        assert y.shape == shape
        assert not certificate.failed.any()
    _, certificate = minimise(Newton(), lambda y: (y - y.log()).sum(-1), torch.tensor([[-1.0], [2.0]], dtype=D), 1)
    assert certificate.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]


def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems() -> None:
    scale, size = torch.logspace(-6, 6, 16, dtype=D), torch.logspace(3, -3, 16, dtype=D)
    centre = size[:, None] * vector(16, 3)

    def function(y: Tensor, rows: int | slice = slice(None)) -> Tensor:
        away = (y - centre[rows]) / size[rows].unsqueeze(-1)
        return scale[rows] * (0.5 * away**2 + torch.log1p(3 * away**2)).sum(-1)

    solver = Newton(atol=0.0)
    y, certificate = minimise(solver, function, torch.zeros(16, 3, dtype=D), 1)
    assert not certificate.failed.any()
    for k in range(16):
        alone, one = minimise(solver, lambda y, k=k: function(y, k), torch.zeros(3, dtype=D))
        assert certificate.steps[k] == one.steps
        assert certificate.status[k] == one.status
        torch.testing.assert_close(y[k], alone, rtol=1e-8, atol=0)


def test_a_failing_problem_leaves_its_neighbours_alone() -> None:
    weight = torch.tensor([1.0, -1.0, torch.nan], dtype=D)
    y, certificate = minimise(Newton(max_steps=50), lambda y: weight * ((y - 3) ** 2).sum(-1), vector(3, 2), 1)
    assert certificate.failed.tolist() == [False, True, True]
    torch.testing.assert_close(y[0], torch.full((2,), 3.0, dtype=D))


def test_the_factor_at_the_answer_is_left_for_the_adjoint() -> None:
    problem = Objective(logistic, 0)
    y, certificate = Newton().solve(problem, torch.ones(5, dtype=D), ())
    b, hessian = vector(5), torch.autograd.functional.hessian(logistic, y)
    torch.testing.assert_close(hessian @ certificate.factor.solve(b, transposed=False), b)
    y, certificate = Newton().solve(root(network()), torch.zeros(20, dtype=D), ())
    jacobian = torch.autograd.functional.jacobian(network(), y)
    operator = Operator(lambda u: jacobian.mT @ u, transposed=True)
    operator.kept.factor = certificate.factor
    b = vector(20)
    u, _ = Direct().solve(operator, b)
    assert operator.kept.factor is certificate.factor  # close enough to be refined
    torch.testing.assert_close(jacobian.mT @ u, b)
    assert Newton(linear_solver=GMRES()).solve(root(network()), torch.zeros(20, dtype=D), ())[1].factor is None


@dataclass(frozen=True)
class Stationary(Equation):
    """A minimum under the constraint that the first unknowns sum to one, with its multiplier last."""

    symmetric = True


def stationarity(z: Tensor) -> Tensor:
    y, multiplier = z[..., :-1], z[..., -1:]
    return torch.cat([y**3 + y - 0.3 + multiplier, y.sum(-1, keepdim=True) - 1], -1)


@pytest.mark.parametrize("linear", [None, MINRES(), GMRES(), Direct()])
def test_a_symmetric_indefinite_system(linear: LinearSolver | None) -> None:
    status, z, _ = solve(Newton(linear_solver=linear), Stationary(stationarity, 0), torch.zeros(6, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(z[:-1], torch.full((5,), 0.2, dtype=D))


LARGE = [Objective(rosenbrock, 0), root(network(size=260)), Stationary(stationarity, 0)]


@pytest.mark.parametrize("problem", LARGE, ids=["minimum", "root", "saddle"])
def test_above_256_unknowns_products_do(problem: Objective | Equation) -> None:
    y, certificate = Newton().solve(problem, torch.full((260,), 0.9 * isinstance(problem, Objective), dtype=D), ())
    assert not certificate.failed
    assert certificate.factor is None
    assert problem.residual(y).norm() <= float(certificate.tolerance) * (1 + 1e-6)


def test_where_the_jacobian_vanishes_there_is_no_direction() -> None:
    assert solve(Newton(), root(lambda y: y**2 - 1), torch.zeros(1, dtype=D))[0] == Status.STALLED


@pytest.mark.parametrize("size", [3, 30])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_each_step_is_the_one_promised(size: int, batch: tuple[int, ...]) -> None:
    weight = vector(size, size) / (2 * size**0.5)
    function = lambda y: y + torch.tanh(y @ weight) - 1  # noqa: E731  # a name for a one-liner
    y = vector(*batch, size)
    bend = 1 - torch.tanh(y @ weight) ** 2
    jacobian = torch.eye(size, dtype=D) + bend.unsqueeze(-1) * weight.mT
    step = torch.linalg.solve(jacobian, -function(y))
    wrong = torch.linalg.solve(jacobian.mT, -function(y))
    found = Newton(max_steps=1).solve(root(function, len(batch)), y, ())[0]
    torch.testing.assert_close(found, y + step)
    assert (found - y - wrong).norm() > 1e-3


class Opaque(torch.autograd.Function):
    """A square that vmap knows nothing of."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y**2

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, cotangent: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]  # set in forward
        return OpaqueProduct.apply(y, cotangent)


class OpaqueProduct(torch.autograd.Function):
    """Its derivative."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, y: Tensor, cotangent: Tensor) -> Tensor:
        return 2 * y * cotangent

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, cotangent: Tensor) -> Tensor:
        raise NotImplementedError


def test_operations_without_a_rule_for_vmap_are_differentiated_one_by_one() -> None:
    status, y, certificate = solve(Newton(), root(lambda y: Opaque.apply(y) - 4), torch.full((30,), 3.0, dtype=D))
    assert status == Status.CONVERGED
    assert int(certificate.steps) <= 6
    torch.testing.assert_close(y, torch.full_like(y, 2.0))
