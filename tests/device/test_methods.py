"""Every solver, linear solver, preconditioner and gradient rule on the pretend device, against the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import bigrad.gradients
import bigrad.linear
import bigrad.solvers
from bigrad.equation import Equation, Mapping, Objective, Problem
from bigrad.gradients import FirstOrder, GradientRule, Implicit, OneStep, Unrolled, WarmStart
from bigrad.layers import ArgMin, FixedPoint
from bigrad.linear import (
    CG,
    GMRES,
    LU,
    MINRES,
    BiCGStab,
    Cholesky,
    Diagonal,
    Direct,
    Kept,
    LinearSolver,
    Neumann,
    Nystrom,
    Operator,
    Preconditioner,
)
from bigrad.solvers import (
    LBFGS,
    Anderson,
    Broyden,
    Custom,
    FixedPointIteration,
    GradientDescent,
    Newton,
    Solver,
    TorchOptimizer,
)

from .memory import NAME
from .test_layers import Bent, D, assert_on_the_host, moved, numbers

SIZE = 6


def definite(batch: int = 3, size: int = SIZE) -> Tensor:
    root = numbers(batch, size, size) / size**0.5
    return root @ root.mT + torch.diag(torch.linspace(2, 5, size, dtype=D))


def indefinite() -> Tensor:
    return definite() - 3.5 * torch.eye(SIZE, dtype=D)


def skewed() -> Tensor:
    tilt = 0.5 * numbers(3, SIZE, SIZE) / SIZE**0.5
    return definite() + tilt - tilt.mT


SYSTEMS: dict[str, tuple[LinearSolver, Callable[[], Tensor]]] = {
    "CG": (CG(), definite),
    "CG, diagonal": (CG(preconditioner=Diagonal()), definite),
    "CG, estimated diagonal": (CG(preconditioner=Diagonal(probes=4)), definite),
    "CG, Nystrom": (CG(preconditioner=Nystrom(3)), definite),
    "MINRES": (MINRES(), indefinite),
    "MINRES, diagonal": (MINRES(preconditioner=Diagonal()), indefinite),
    "GMRES": (GMRES(), skewed),
    "GMRES, restarted, diagonal": (GMRES(restart=5, preconditioner=Diagonal()), skewed),
    "BiCGStab": (BiCGStab(), skewed),
    "BiCGStab, Nystrom": (BiCGStab(preconditioner=Nystrom(3)), skewed),
    "Neumann": (Neumann(step_size=0.2), definite),
    "Neumann, diagonal": (Neumann(step_size=0.5, preconditioner=Diagonal(probes=4)), definite),
    "Direct, definite": (Direct(), definite),
    "Direct, indefinite": (Direct(1e-9), skewed),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("bad", [False, True], ids=["sound", "with a singular and a NaN problem"])
def test_a_linear_solver_stays_on_its_device(name: str, bad: bool, device: torch.device) -> None:
    solver, make = SYSTEMS[name]
    matrix, b = make(), numbers(3, SIZE)
    if bad:
        solver = replace(solver, max_steps=20) if not isinstance(solver, Direct) else solver
        matrix[1], b[2, 0] = matrix[1] * torch.ones(SIZE, dtype=D).index_fill(0, torch.tensor(0), 0.0), torch.nan
        matrix[1, 0] = 0.0
    ends = []
    for place in (torch.device("cpu"), device):
        A, kept = matrix.to(place), Kept()
        symmetric = make is not skewed
        operator = Operator(
            lambda u, A=A: (A @ u.unsqueeze(-1)).squeeze(-1),
            symmetric,
            make is definite,
            kept=kept,
            written=lambda A=A: A,
        )
        u, certificate = solver.solve(operator, b.to(place))
        again, warm = solver.solve(operator, b.to(place), 0.9 * u)
        assert u.device == again.device == b.to(place).device
        assert_on_the_host(certificate)
        assert_on_the_host(warm)
        if kept.factor is not None:
            assert kept.factor.solve(b.to(place), transposed=True).device == u.device
        assert bool(certificate.failed.any()) == bad
        answers = ((u.cpu(), certificate), (again.cpu(), warm))
        if device.type == NAME:
            ends.append([part for found, it in answers for part in (found, it.status)])
        else:  # another arithmetic than the CPU's, and what failed is what its roundings made of it
            ends.append([part for found, it in answers for part in (found[~it.failed], it.failed)])
    for here, there in zip(*ends, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-8, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("kind", [LU, Cholesky])
def test_a_factor_stays_on_its_device(kind: Any, device: torch.device) -> None:
    factor = kind.of(definite().to(device))
    b = numbers(2, 3, SIZE).to(device)
    torch.testing.assert_close(factor.apply(factor.solve(b, transposed=True), transposed=True).cpu(), b.cpu())
    assert factor.extremes.device.type == "cpu"


def bowl(y: Tensor, x: Tensor) -> Tensor:
    """A convex objective of each row of ``y``."""
    return ((y - x) ** 2).sum(-1) + 0.1 * (y**4).sum(-1) + 0.3 * y.prod(-1)


def equation(y: Tensor, x: Tensor) -> Tensor:
    return y + 0.1 * y**3 + 0.2 * y.roll(1, -1) - x


def contraction(y: Tensor, x: Tensor) -> Tensor:
    return 0.5 * (y.roll(1, -1) + x).tanh()


OBJECTIVE: Problem = Objective(bowl, 1)
EQUATION: Problem = Equation(equation, 1)
MAPPING: Problem = Mapping(contraction, 1)
SOLVES: dict[str, tuple[Solver, list[Problem]]] = {
    "LBFGS": (LBFGS(), [OBJECTIVE]),
    "LBFGS alone": (LBFGS(finish=None, history=3), [OBJECTIVE]),
    "Newton": (Newton(), [OBJECTIVE, EQUATION, MAPPING]),
    "Newton, damped": (Newton(linear_solver=Direct(1e-3)), [OBJECTIVE, EQUATION]),
    "Newton, products": (Newton(linear_solver=GMRES()), [OBJECTIVE, EQUATION, MAPPING]),
    "Newton, CG": (Newton(linear_solver=CG()), [OBJECTIVE]),
    "gradient descent": (GradientDescent(0.3, 1e-4), [OBJECTIVE, EQUATION]),
    "momentum": (GradientDescent(0.1, 1e-4, momentum=0.5), [OBJECTIVE]),
    "Nesterov": (GradientDescent(0.1, 1e-4, momentum=0.5, nesterov=True), [OBJECTIVE]),
    "Adam": (TorchOptimizer(torch.optim.Adam, lr=0.1, atol=0.1), [OBJECTIVE]),
    "SGD": (TorchOptimizer(torch.optim.SGD, lr=0.3, rtol=1e-4), [OBJECTIVE]),
    "Anderson": (Anderson(), [EQUATION, MAPPING]),
    "plain Anderson": (Anderson(history=0), [MAPPING]),
    "Broyden": (Broyden(), [EQUATION, MAPPING]),
    "full Broyden": (Broyden(history=2), [EQUATION]),
    "fixed-point iteration": (FixedPointIteration(1e-6), [MAPPING]),
}
SPECIAL = {"Custom", "InteriorPoint", "Stackelberg"}  # below, and in the quadratic and the bilevel program


@pytest.mark.parametrize("spoilt", [False, True], ids=["sound", "with a NaN problem"])
@pytest.mark.parametrize("name", SOLVES)
def test_a_solver_stays_on_its_device(name: str, spoilt: bool, device: torch.device) -> None:
    solver, problems = SOLVES[name]
    x = numbers(4, 3)
    if spoilt:
        x[1, 0] = torch.nan
    for problem in problems:
        (here, one), (there, other) = (
            solver.solve(problem, torch.zeros_like(x, device=place), (x.to(place),)) for place in ("cpu", device)
        )
        assert there.device == device
        assert_on_the_host_but_for_a_factor(other)
        assert bool(one.failed.any()) == spoilt
        torch.testing.assert_close(here, there.cpu(), rtol=1e-7, atol=1e-8, equal_nan=True)
        assert torch.equal(one.status, other.status)


def assert_on_the_host_but_for_a_factor(certificate: bigrad.Certificate) -> None:
    certificate.factor = None
    assert_on_the_host(certificate)


def test_saddles_and_stalls_stay_on_the_device(device: torch.device) -> None:
    """What is left of a descent at a saddle, at a kink and out of steps takes paths of its own."""
    saddle = Objective(lambda y, x: (x * y**2).sum(-1) + 0.25 * (y**4).sum(-1), 1)
    kink = Objective(lambda y, x: (y - x).abs().sum(-1), 1)
    x = torch.tensor([[1.0, -1.0], [1.0, 2.0]], dtype=D)
    short = Newton(max_steps=4)
    for problem, solver in (
        (saddle, Newton()),
        (saddle, LBFGS(finish=short)),
        (kink, short),
        (kink, LBFGS(0.0, 0.0, 5)),
    ):
        ends = [solver.solve(problem, torch.zeros_like(x, device=place), (x.to(place),)) for place in ("cpu", device)]
        assert torch.equal(ends[0][1].status, ends[1][1].status)
        torch.testing.assert_close(ends[0][0], ends[1][0].cpu())


RULES: dict[str, tuple[GradientRule, Solver, int]] = {
    "implicit": (Implicit(), LBFGS(), 2),
    "implicit, CG": (Implicit(CG()), LBFGS(), 2),
    "implicit, MINRES": (Implicit(MINRES()), Newton(), 2),
    "implicit, GMRES": (Implicit(GMRES()), Newton(), 2),
    "implicit, BiCGStab": (Implicit(BiCGStab()), Newton(), 2),
    "implicit, Neumann": (Implicit(Neumann(step_size=0.3)), Newton(), 2),
    "implicit, direct": (Implicit(Direct()), Newton(), 2),
    "unrolled": (Unrolled(), GradientDescent(0.25, 1e-4, momentum=0.1), 2),
    "truncated": (Unrolled(last=3), GradientDescent(0.3, 1e-4), 2),
    "one step": (OneStep(), GradientDescent(0.3, 1e-4), 1),
    "first order": (FirstOrder(), LBFGS(), 1),
    "first order, one-sided": (FirstOrder(two_sided=False), LBFGS(), 1),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_stays_on_its_device(name: str, device: torch.device) -> None:
    rule, solver, order = RULES[name]
    run = moved(lambda: ArgMin(bowl, torch.zeros(3, dtype=D), solver=solver, gradient=rule), numbers(4, 3), order=order)
    for here, there in zip(run(torch.device("cpu")), run(device), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("rule", [Implicit(), Unrolled(last=20), OneStep()], ids=lambda it: type(it).__name__)
def test_a_rule_for_fixed_points_stays_on_its_device(rule: GradientRule, device: torch.device) -> None:
    solver = FixedPointIteration(1e-6)
    run = moved(lambda: FixedPoint(Bent(), torch.zeros(3, dtype=D), solver=solver, gradient=rule), numbers(3), order=1)
    for here, there in zip(run(torch.device("cpu")), run(device), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-8, atol=1e-9)


def test_warm_starts_and_solvers_of_the_user_stay_on_their_device(device: torch.device) -> None:
    nearest = Custom(lambda init, x: x.clone(), atol=1e-3)
    layer = ArgMin(lambda y, x: ((y - x) ** 2).sum(-1), torch.zeros(3, dtype=D), solver=nearest).to(device)
    warm = WarmStart()
    for turn in range(2):
        x = (numbers(4, 3) + turn).to(device).requires_grad_()
        y = layer(x, warm_start=warm)
        y.sum().backward()
        assert layer.certificate is not None
        assert_on_the_host(layer.certificate)
        assert warm.solution is not None
        assert warm.adjoint is not None
        assert warm.solution.device == warm.adjoint.device == x.grad.device == device
        torch.testing.assert_close(x.grad.cpu(), torch.ones(4, 3, dtype=D))


def test_every_method_is_covered() -> None:
    def names(room: Any, base: type) -> set[str]:
        found = {name: getattr(room, name) for name in room.__all__}
        concrete = {name for name, it in found.items() if isinstance(it, type) and issubclass(it, base)}
        return {name for name in concrete if not getattr(found[name], "__abstractmethods__", None)}

    solvers = {type(solver).__name__ for solver, _ in SOLVES.values()} | SPECIAL
    assert names(bigrad.solvers, Solver) == solvers
    assert names(bigrad.linear, LinearSolver) == {type(solver).__name__ for solver, _ in SYSTEMS.values()}
    used = {type(getattr(solver, "preconditioner", None)).__name__ for solver, _ in SYSTEMS.values()}
    assert names(bigrad.linear, Preconditioner) == used - {"NoneType"}
    assert names(bigrad.gradients, GradientRule) == {type(rule).__name__ for rule, _, _ in RULES.values()}
