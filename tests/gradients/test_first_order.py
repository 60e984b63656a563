"""The difference quotient of tilted minimisers: its error, the estimate of it, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, SolveError, SolveWarning, UnsupportedError
from bigrad.certificate import Status
from bigrad.equation import Equation, Mapping, Objective
from bigrad.errors import NotConverged
from bigrad.gradients import FirstOrder, Implicit, Record
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS, FixedPointIteration, GradientDescent

from ..layers.cases import CASES, DESIGN, ENTROPY, MIXED, RIDGE, Case, D, derivatives, vector
from .paths import FORWARD_MODE, anchor, attached, outer

TIGHT = LBFGS(rtol=0.0, atol=1e-13)


def logistic(w: Tensor, x: Tensor) -> Tensor:
    label = torch.sign(vector(8, seed=7))
    return torch.nn.functional.softplus(-label * (DESIGN @ w)).sum() + 0.5 * (x.exp() * w**2).sum()


def log_sum_exp(y: Tensor, x: Tensor) -> Tensor:
    return torch.logsumexp(DESIGN @ y * x.sum(-1, keepdim=True), -1) + 0.5 * ((y - x) ** 2).sum(-1)


def quartic(y: Tensor, x: Tensor) -> Tensor:
    """Odd around its solution at ``x = 0``: the one-sided error has no first-order part there."""
    return (y**2 / 2 + y**4 - x * y).sum(-1)


LOGISTIC = Case(logistic, torch.zeros(3, dtype=D), vector(3, seed=8), lambda x: x, 0.2)
LOG_SUM_EXP = Case(log_sum_exp, torch.zeros(3, dtype=D), vector(3, seed=8), lambda x: x, 0.2)
QUARTIC = Case(quartic, torch.full((2,), 0.5, dtype=D), torch.tensor([0.0, 1.0], dtype=D), lambda x: x, 0.1)


def narrow(y: Tensor, x: Tensor) -> Tensor:
    """Without a minimum where it is tilted by more than 1/2."""
    return (torch.tensor([1.0, 1e4], dtype=D) * ((y - x) ** 2 / 2 + (y - x) ** 3 / 6)).sum()


NARROW = Case(narrow, vector(2), vector(2), lambda x: x, 0.0)
ALL = [*CASES, LOGISTIC, LOG_SUM_EXP, QUARTIC, NARROW]
every_case = pytest.mark.parametrize("case", ALL[:-1], ids=repr)


def layer_of(case: Case, **settings: Any) -> ArgMin:
    return ArgMin(case.objective, case.init, **{"solver": TIGHT, **settings})


@cache
def slope(name: str) -> Tensor:
    (case,) = (case for case in ALL if repr(case) == name)
    return derivatives(layer_of(case), case.x, 1)[1]


def measured(case: Case, rule: FirstOrder, solver: LBFGS = TIGHT) -> tuple[float, float]:
    """The relative error of the first derivative, and the rule's estimate of it."""
    layer = layer_of(case, solver=solver, gradient=rule, on_failure="ignore")
    found, truth = derivatives(layer, case.x, 1)[1], slope(repr(case))
    assert layer.certificate is not None
    assert layer.certificate.adjoint is not None
    return float((found - truth).norm() / truth.norm()), float(layer.certificate.adjoint.stationarity.max())


def test_the_anchor() -> None:
    layer = ArgMin(anchor, torch.zeros((), dtype=D), gradient=FirstOrder())
    for at, slope in ((0.0, -0.5), (2.0, 0.5)):
        x = torch.tensor(at, dtype=D, requires_grad=True)
        assert torch.autograd.grad(outer(layer(x), x), x)[0] == pytest.approx(slope, abs=1e-9)


@every_case
def test_the_default_settings(case: Case) -> None:
    assert measured(case, FirstOrder(), LBFGS())[0] < 1e-5
    assert measured(case, FirstOrder(two_sided=False), LBFGS())[0] < 1e-3


@pytest.mark.parametrize("case", [ENTROPY, LOGISTIC, LOG_SUM_EXP, QUARTIC], ids=repr)
def test_the_error_falls_as_the_step_squared_and_one_sided_as_the_step(case: Case) -> None:
    for two_sided, order, steps in ((True, 2, (3e-3, 1e-3)), (False, 1, (3e-5, 1e-5))):
        coarse, fine = (measured(case, FirstOrder(step, two_sided))[0] for step in steps)
        assert coarse / fine == pytest.approx(3**order, rel=0.3)


@every_case
@pytest.mark.parametrize("two_sided", [True, False])
def test_the_estimate_bounds_the_error_within_a_factor(case: Case, two_sided: bool) -> None:
    for step in (1e-1, 1e-2, 1e-4):
        error, estimate = measured(case, FirstOrder(step, two_sided), LBFGS())
        assert error < 4 * estimate + 1e-12
        assert estimate < 40 * error + 1e-9


def test_a_solution_that_moves_farther_than_its_curvature_says_is_reached_with_a_smaller_tilt() -> None:
    """Curvatures from 1 to 1e4: along the cotangent it is large, the path follows the small one."""
    error, estimate = measured(NARROW, FirstOrder())
    assert error < 1e-5
    assert estimate < 1e-5


def quotient(sign: float, half: float, mean: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The formula on a batch of four with its own ``t = 1e-3`` everywhere, and variants of it that one might write."""

    def pullback(x: Tensor, g: Tensor) -> Tensor:
        t = 1e-3
        tilted = [
            ArgMin(
                lambda y, x, k=k: MIXED.objective(y, x) + sign * k * t * (g * y).sum(-1), MIXED.init, solver=LBFGS()
            )(x)
            for k in (1.0, -1.0)
        ]
        x = x.clone().requires_grad_()
        value = MIXED.objective(tilted[0], x) - MIXED.objective(tilted[1], x)
        value = value.mean() if mean else value.sum()
        return torch.autograd.grad(value, x)[0] / (half * t)

    return pullback


def test_wrong_variants_are_told_from_the_rule() -> None:
    x, g = MIXED.x, vector(4, 2, seed=3) * torch.tensor([1e-3, 1.0, 1e3, 30.0], dtype=D).unsqueeze(-1)
    free = x.clone().requires_grad_()
    truth = torch.autograd.grad((g * MIXED.formula(free)).sum(), free)[0]
    free = x.clone().requires_grad_()
    found = torch.autograd.grad((g * layer_of(MIXED, solver=LBFGS(), gradient=FirstOrder())(free)).sum(), free)[0]
    right = quotient(1.0, 2.0, False)(x, g)
    wrong = [quotient(-1.0, 2.0, False), quotient(1.0, 1.0, False), quotient(1.0, 2.0, True)]
    scale = truth.norm()
    assert (found - truth).norm() < 1e-8 * scale
    assert (right - truth).norm() < 1e-4 * scale
    assert all((variant(x, g) - truth).norm() > 0.4 * scale for variant in wrong)


def test_a_batch_of_mixed_scales_is_a_loop_and_rows_without_a_cotangent_are_zero() -> None:
    stiffness = torch.tensor([1e-2, 1.0, 1e3, 5.0], dtype=D)
    cotangent = vector(4, 2, seed=3) * torch.tensor([1e4, 1.0, 1e-6, 0.0], dtype=D).unsqueeze(-1)

    def run(x: Tensor, stiffness: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        objective = lambda y, x, s: s * ((y - x.sin()) ** 2 + 0.1 * y**4).sum(-1)  # noqa: E731  # a one-liner
        layer = ArgMin(objective, torch.zeros(2, dtype=D), gradient=FirstOrder())
        (slope,) = torch.autograd.grad(layer(x, stiffness), x, g)
        assert layer.certificate is not None
        assert layer.certificate.adjoint is not None
        return slope, layer.certificate.adjoint.stationarity

    x = vector(4, 2)
    found, estimates = run(x, stiffness, cotangent)
    assert (found[3] == 0).all()
    assert estimates[3] == 0
    for k in range(3):
        alone, estimate = run(x[k], stiffness[k], cotangent[k])
        assert (found[k] - alone).norm() < 1e-5 * alone.norm()
        assert 0.2 < estimates[k] / estimate < 5


def test_inputs_that_a_batch_shares_get_the_sum() -> None:
    x, shared = vector(5, 3).requires_grad_(), vector(3, seed=1).requires_grad_()
    objective = lambda y, x, c: ((y - x) ** 2 + c.exp() * y**2 + 0.1 * y**4).sum(-1)  # noqa: E731  # a one-liner
    grads = []
    for rule in (FirstOrder(), Implicit()):
        y = ArgMin(objective, torch.zeros(3, dtype=D), solver=TIGHT, gradient=rule)(x, shared)
        grads.append(torch.autograd.grad(y.sin().sum(), (x, shared)))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_float32() -> None:
    x = ENTROPY.x.float().requires_grad_()
    layer = ArgMin(ENTROPY.objective, torch.zeros(3), gradient=FirstOrder())
    (found,) = torch.autograd.grad(layer(x).sum(), x)
    truth = derivatives(ENTROPY.formula, ENTROPY.x, 0)[0]
    exact = ENTROPY.x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(ENTROPY.formula(exact).sum(), exact)
    assert found.dtype == torch.float32
    assert (found - truth).norm() < 3e-3 * truth.norm()


def test_a_loose_solver_is_caught_by_the_estimate() -> None:
    x = ENTROPY.x.clone().requires_grad_()
    loose = LBFGS(rtol=0.0, atol=1e-2, finish=None)
    layer = layer_of(ENTROPY, solver=loose, gradient=FirstOrder())
    with pytest.raises(NotConverged, match=r"relative error.*wanted 0\.01.*tighten the solver") as caught:
        torch.autograd.grad(layer(x).sum(), x)
    assert caught.value.certificate.failed.all()
    assert layer.certificate is not None
    assert layer.certificate.adjoint is caught.value.certificate
    layer = layer_of(ENTROPY, solver=loose, gradient=FirstOrder(), on_failure="warn")
    with pytest.warns(SolveWarning, match="relative error"):
        torch.autograd.grad(layer(x).sum(), x)
    for rule in (FirstOrder(step=0.1, two_sided=False), FirstOrder(rtol=1e-9)):
        with pytest.raises(NotConverged, match="relative error"):
            torch.autograd.grad(layer_of(ENTROPY, gradient=rule)(x).sum(), x)


def test_a_tilted_solve_that_fails_is_a_failure() -> None:
    x = ENTROPY.x.clone().requires_grad_()
    layer = ArgMin(
        ENTROPY.objective,
        ENTROPY.formula(ENTROPY.x),
        solver=GradientDescent(0.2, max_steps=2),
        gradient=FirstOrder(),
    )
    with pytest.raises(NotConverged, match="tilted argmin used all its steps"):
        torch.autograd.grad(layer(x).sum(), x)
    assert layer.certificate is not None
    assert layer.certificate.adjoint is not None
    assert int(layer.certificate.adjoint.status) == Status.MAX_STEPS
    edge = ArgMin(lambda y, x: (y - x * y.log()).sum(), torch.ones(1, dtype=D), gradient=FirstOrder(step=0.9))
    scale = torch.full((1,), 1e-3, dtype=D, requires_grad=True)
    with pytest.raises(SolveError):
        torch.autograd.grad(edge(scale).sum(), scale)


@pytest.mark.filterwarnings(FORWARD_MODE)
def test_what_it_refuses() -> None:
    x = ENTROPY.x.clone().requires_grad_()
    layer = layer_of(ENTROPY, gradient=FirstOrder())
    (first,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"FirstOrder.*first derivatives only.*Implicit"):
        torch.autograd.grad(first.sum(), x)
    scalar = lambda x: layer(x).sin().sum()  # noqa: E731  # a name for a one-liner
    for transform in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.grad(f))):
        with pytest.raises(UnsupportedError, match="FirstOrder"):
            transform(scalar)(ENTROPY.x)
    with pytest.raises(UnsupportedError, match=r"forward mode.*jacrev.*Implicit"):
        torch.func.jacfwd(layer)(ENTROPY.x)
    for problem in (Equation(lambda y, x: y - x, 0), Mapping(lambda y, x: x, 0)):
        with pytest.raises(UnsupportedError, match=f"{type(problem).__name__} has none.*Implicit"):
            attached(FirstOrder(), problem, FixedPointIteration(), torch.zeros(3, dtype=D), x)
    for settings in ({"step": 0.0}, {"step": -1.0}, {"step": float("nan")}, {"rtol": 0.0}):
        with pytest.raises(InputError, match="FirstOrder"):
            FirstOrder(**settings)


def test_any_solver_of_minima_will_do() -> None:
    x = RIDGE.x.clone().requires_grad_()
    problem = Objective(lambda y, x: RIDGE.objective(y, x), 0)
    grads = []
    for solver, rule in itertools.product((GradientDescent(0.03), TIGHT), (FirstOrder(), Implicit())):
        record = Record()
        y = attached(rule, problem, solver, torch.zeros(3, dtype=D), x, record=record)
        grads.append(torch.autograd.grad(y.sum(), x)[0])
    for one in grads[1:]:
        torch.testing.assert_close(one, grads[0], rtol=1e-6, atol=1e-8)
