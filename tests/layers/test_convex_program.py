"""Convex programs as a layer: feasibility, failures, dtypes, batches, and how it travels."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import cvxpylayers.torch.cvxpylayer
import pytest
import torch
from torch import Tensor

import bigrad
from bigrad import InputError, MissingPackage, SolveWarning, Status, errors
from bigrad.layers import ConvexProgram

from .cases import D, leaf, vector
from .convex_programs import budget, projection, simplex

COSTS, POINT = torch.tensor([1.0, 2.0, 3.0], dtype=D), torch.tensor([1.0, -2.0, 3.0], dtype=D)
NEVER = torch.tensor([-1.0, 2.0, 3.0], dtype=D)  # as a budget


def test_sign_constraints_are_kept() -> None:
    for layer, value, truth in ((simplex(), COSTS, [1.0, 0.0, 0.0]), (projection(), POINT, [1.0, 0.0, 3.0])):
        (y,) = layer(value)
        torch.testing.assert_close(y, torch.tensor(truth, dtype=D), rtol=0, atol=1e-12)
        certificate = layer.certificate
        assert certificate is not None
        assert certificate.feasibility is not None
        assert certificate.feasibility <= 1e-12
        assert int(certificate.status) == Status.CONVERGED


@pytest.mark.parametrize("promise", [{"nonneg": True}, {"bounds": [0, None]}], ids=["nonneg", "bounds"])
def test_promises_of_a_variable_are_constraints(promise: dict[str, Any]) -> None:
    y, cost = cp.Variable(3, **promise), cp.Parameter(3)
    layer = ConvexProgram(cp.Problem(cp.Minimize(cost @ y), [cp.sum(y) == 1]), [cost], [y])
    torch.testing.assert_close(layer(COSTS)[0], torch.tensor([1.0, 0, 0], dtype=D), rtol=0, atol=1e-12)


class Forgetful(cvxpylayers.torch.cvxpylayer.CvxpyLayer):
    """Drops the first constraint."""

    def __init__(self, problem: cp.Problem, *rest: Any, **settings: Any) -> None:
        super().__init__(cp.Problem(problem.objective, problem.constraints[1:]), *rest, **settings)


class Shifting(cvxpylayers.torch.cvxpylayer.CvxpyLayer):
    """Moves its answers."""

    def forward(self, *values: Tensor, **settings: Any) -> tuple[Tensor, ...]:
        return tuple(answer - 1 for answer in super().forward(*values, **settings))


@pytest.mark.parametrize("broken", [Forgetful, Shifting])
@pytest.mark.parametrize("promised", [False, True])
def test_an_answer_outside_the_users_constraints_is_a_failure(
    broken: type, promised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxpylayers.torch.cvxpylayer.CvxpyLayer", broken)
    y, point = cp.Variable(3, name="y", nonneg=promised), cp.Parameter(3)
    constraints = [cp.sum(y) <= 9] if promised else [y >= 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y - point)), constraints)
    if broken is Forgetful and promised:
        assert ConvexProgram(problem, [point], [y])(POINT)[0].amin() >= 0
        return
    layer = ConvexProgram(problem, [point], [y])
    with pytest.raises(errors.Stalled, match=r"violates .*y.* by [12], wanted at most .*Remedy") as caught:
        layer(POINT)
    assert caught.value.certificate.feasibility == (2 if broken is Forgetful else 1)
    assert bool(caught.value.certificate.failed)
    layer.on_failure = "warn"
    with pytest.warns(SolveWarning, match="violates"):
        layer(POINT)


def test_infeasible_and_unbounded_have_their_errors() -> None:
    with pytest.raises(errors.Infeasible, match=r"convex program has no feasible point.*slack") as caught:
        budget()(NEVER)
    assert int(caught.value.certificate.status) == Status.INFEASIBLE
    y, cost = cp.Variable(3), cp.Parameter(3)
    with pytest.raises(errors.Unbounded, match="bound the variables"):
        ConvexProgram(cp.Problem(cp.Minimize(cost @ y), [y <= 0]), [cost], [y])(COSTS)


def test_a_solver_without_steps_says_so() -> None:
    y, x = cp.Variable(4), cp.Parameter(4)
    problem = cp.Problem(cp.Maximize(x @ y + cp.sum(cp.entr(y))), [cp.sum(y) == 1])
    with pytest.raises(errors.NotConverged, match="raise max_steps"):
        ConvexProgram(problem, [x], [y], max_steps=1)(vector(4))


def test_a_batch_survives_its_failures_and_they_give_no_gradient() -> None:
    layer = budget(on_failure="ignore")
    points = torch.stack([COSTS, NEVER, COSTS * torch.nan, COSTS + 1]).requires_grad_()
    (y,) = layer(points)
    certificate = layer.certificate
    assert certificate is not None
    wanted = [Status.CONVERGED, Status.INFEASIBLE, Status.NON_FINITE, Status.CONVERGED]
    assert certificate.status.tolist() == wanted
    good = torch.tensor([True, False, False, True])
    assert torch.equal(y.isfinite().all(-1), good)
    assert certificate.feasibility is not None
    assert torch.equal(certificate.feasibility.isfinite(), good)
    masked = torch.where(good[:, None], y, 0.0).sum()
    (gradient,) = torch.autograd.grad(masked, points, retain_graph=True)
    torch.testing.assert_close(gradient, good[:, None] * torch.tensor([1.0, 0, 0], dtype=D), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(y.sum(), points)
    assert torch.equal(gradient.isfinite().all(-1), good)
    assert certificate.adjoint is not None
    assert certificate.adjoint.status.tolist() == wanted
    layer.on_failure = "warn"
    with pytest.warns(SolveWarning, match="problem 1 of 4"):
        layer(points)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match=r"point has 1 entries.*NaN.*warn"):
        projection()(torch.tensor([1.0, bad, 2.0], dtype=D))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_the_callers(dtype: torch.dtype) -> None:
    point = POINT.to(dtype).requires_grad_()
    (y,) = projection()(point)
    y.sum().backward()
    assert (y.dtype, point.grad.dtype) == (dtype, dtype)
    assert y.tolist() == [1.0, 0.0, 3.0]
    assert point.grad.tolist() == [1.0, 0.0, 1.0]


def test_a_batch_gives_what_its_problems_give_and_shares_what_has_no_batch() -> None:
    y, X, G, h = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter((2, 3)), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.quad_form(y, X) + cp.sum(y)), [G @ y <= h, y >= -1])
    slack = cp.Variable(name="slack")
    problem = cp.Problem(problem.objective + cp.Minimize(slack**2 + slack), problem.constraints)
    layer = ConvexProgram(problem, [h, X, G], [slack, y])
    root, rows, bound = leaf(3, 3), leaf(2, 4, 2, 3, seed=1), leaf(2, 4, seed=2)
    slacks, found = layer(bound, root.mT @ root, rows)
    assert (slacks.shape, found.shape) == ((2, 4), (2, 4, 3))
    assert layer.certificate is not None
    assert layer.certificate.status.shape == (2, 4)
    weight = vector(2, 4, 3, seed=3)
    together = torch.autograd.grad((found * weight).sum(), (root, rows, bound))
    assert layer.certificate.adjoint is not None
    assert layer.certificate.adjoint.status.shape == (2, 4)
    one_by_one = [layer(bound[i, j], root.mT @ root, rows[i, j])[1] for i in range(2) for j in range(4)]
    torch.testing.assert_close(found, torch.stack(one_by_one).reshape(2, 4, 3), rtol=0, atol=1e-12)
    alone = torch.autograd.grad((torch.stack(one_by_one).reshape(2, 4, 3) * weight).sum(), (root, rows, bound))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_certificate_belongs_to_its_call() -> None:
    layer = projection()
    x = leaf(2, 3)
    (y,) = layer(x)
    first = layer.certificate
    assert first is not None
    assert (first.what, first.adjoint) == ("convex program", None)
    assert (first.stationarity <= first.tolerance).all()
    assert (first.steps > 0).all()
    layer(POINT)
    y.sum().backward()
    assert first.adjoint is not None
    assert first.adjoint_residual is not None
    assert (first.adjoint_residual <= 1e-12).all()
    assert layer.certificate is not first
    assert layer.certificate is not None
    assert layer.certificate.adjoint is None


def test_the_users_own_values_are_left_alone() -> None:
    y, point = cp.Variable(3), cp.Parameter(3, value=[7.0, 8.0, 9.0])
    layer = ConvexProgram(cp.Problem(cp.Minimize(cp.sum_squares(y - point)), [y >= 0]), [point], [y])
    layer(POINT)
    assert point.value.tolist() == [7.0, 8.0, 9.0]
    assert y.value is None


@pytest.mark.parametrize("travel", [copy.deepcopy, copy.copy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_the_layer_travels_with_its_certificate(travel: Callable[[ConvexProgram], ConvexProgram]) -> None:
    layer = projection(on_failure="warn", rtol=1e-8)
    x = leaf(3)
    layer(x)[0].sum().backward()
    twin = travel(layer)
    assert repr(twin) == repr(layer)
    assert twin.certificate is not None
    assert twin.certificate.adjoint is not None
    assert torch.equal(twin.certificate.status, layer.certificate.status)
    assert torch.equal(twin(x)[0], layer(x)[0])
    assert twin.certificate is not layer.certificate


def test_the_layer_has_no_state_and_says_what_it_is() -> None:
    layer = torch.nn.Sequential(projection())
    assert not layer.state_dict()
    assert not list(layer.buffers())
    for part in ("point(3,)", "y(3,)", "rtol=1e-09", "feasibility=1e-06", "max_steps=200", "on_failure='raise'"):
        assert part in repr(layer)


def test_without_gradients_nothing_is_recorded() -> None:
    layer = projection()
    with torch.no_grad():
        (y,) = layer(leaf(3))
    assert not y.requires_grad
    assert not layer(vector(3))[0].requires_grad


def test_cvxpy_is_imported_when_a_program_is_made_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ast.parse(inspect.getsource(inspect.getmodule(ConvexProgram)))
    at_once = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert at_once
    assert not any("cvxpy" in ast.unparse(node) for node in at_once)
    monkeypatch.setitem(sys.modules, "cvxpylayers.torch.cvxpylayer", None)
    with pytest.raises(MissingPackage, match=r'cvxpylayers is needed.*pip install "bigrad\[convex\]"'):
        bigrad.layers.ConvexProgram(None, [], [])
