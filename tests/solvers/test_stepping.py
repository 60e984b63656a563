"""Solvers made of one differentiable step: their steps, momentum, and what replaying them gives."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status
from bigrad.equation import Mapping, Objective, Problem
from bigrad.linear import GMRES
from bigrad.solvers import (
    LBFGS,
    Anderson,
    Broyden,
    FixedPointIteration,
    GradientDescent,
    Newton,
    Solver,
    Stepping,
    TorchOptimizer,
)

from .objectives import ANSWERS, D, honest, minimise, quadratic, rosenbrock, slope, vector

CENTRE = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=D)
BOWLS = Objective(lambda y, c: ((y - c) ** 2 * torch.tensor([1.0, 3.0], dtype=D)).sum(-1), 1)
TURNS = Mapping(lambda y, c: 0.8 * torch.sin(y + c.flip(-1)), 1)
STEPPING: list[tuple[Stepping, Problem]] = [
    (GradientDescent(0.1), BOWLS),
    (GradientDescent(0.1, momentum=0.6), BOWLS),
    (GradientDescent(0.1, momentum=0.6, nesterov=True), BOWLS),
    (FixedPointIteration(), TURNS),
    (FixedPointIteration(damping=0.7), TURNS),
    (GradientDescent(0.5, momentum=0.2), TURNS),
]
stepping = pytest.mark.parametrize(("solver", "problem"), STEPPING)


def replayed(solver: Stepping, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...], steps: Tensor) -> Tensor:
    """Each problem's own number of steps."""
    y, state = start, solver.begin(problem, start, inputs)
    for taken in range(int(steps.max())):
        moving = (taken < steps).unsqueeze(-1)
        moved, state = solver.step(problem, y, state, inputs)
        y = torch.where(moving, moved, y)
    return y


@stepping
@pytest.mark.parametrize("budget", [1, 7, 10_000])
def test_the_steps_lead_where_solve_does(solver: Stepping, problem: Problem, budget: int) -> None:
    solver = copy.copy(solver)
    object.__setattr__(solver, "max_steps", budget)
    start = vector(2, 2)
    y, certificate = solver.solve(problem, start, (CENTRE,))
    assert certificate.steps.max() == budget or not certificate.failed.any()
    again = replayed(solver, problem, start, (CENTRE,), certificate.steps)
    torch.testing.assert_close(again, y, rtol=1e-13, atol=1e-13)


@stepping
def test_the_steps_are_differentiable_in_everything(solver: Stepping, problem: Problem) -> None:
    steps = torch.tensor([3, 5])

    def answer(start: Tensor, centre: Tensor) -> Tensor:
        return replayed(solver, problem, start, (centre,), steps)

    arguments = (vector(2, 2).requires_grad_(), CENTRE.clone().requires_grad_())
    assert torch.autograd.gradcheck(answer, arguments)
    reverse = torch.func.jacrev(lambda c: answer(arguments[0].detach(), c).sum(0))(CENTRE)
    eager = torch.autograd.functional.jacobian(lambda c: answer(arguments[0].detach(), c).sum(0), CENTRE)
    torch.testing.assert_close(reverse, eager)


@stepping
def test_the_steps_can_be_vmapped(solver: Stepping, problem: Problem) -> None:
    centres = torch.stack([CENTRE, 2 * CENTRE, -CENTRE])
    start, steps = vector(2, 2), torch.tensor([4, 4])
    many = torch.func.vmap(lambda c: replayed(solver, problem, start, (c,), steps))(centres)
    for one, centre in zip(many, centres, strict=True):
        torch.testing.assert_close(one, replayed(solver, problem, start, (centre,), steps))


def test_the_heavy_ball_and_its_relatives() -> None:
    function, _ = quadratic(10.0, 3)
    start, step, keep = torch.ones(3, dtype=D), 0.05, 0.7
    g = slope(function, start)
    first = start - step * g
    second = first - step * slope(function, first) + keep * (first - start)
    heavy = GradientDescent(step, momentum=keep, max_steps=2)
    torch.testing.assert_close(minimise(heavy, function, start)[0], second)
    for wrong in (second - 2 * keep * (first - start), second - keep * (first - start)):  # a wrong sign, none at all
        assert (minimise(heavy, function, start)[0] - wrong).norm() > 1e-2
    for nesterov in (False, True):
        leaf = torch.nn.Parameter(start.clone())
        reference = torch.optim.SGD([leaf], lr=step, momentum=keep, nesterov=nesterov)
        for _ in range(5):
            leaf.grad = slope(function, leaf.detach())
            reference.step()
        solver = GradientDescent(step, momentum=keep, nesterov=nesterov, max_steps=5)
        torch.testing.assert_close(minimise(solver, function, start)[0], leaf.detach())


def test_momentum_pays() -> None:
    function, best = quadratic(100.0, 6)
    tuned = GradientDescent(4 / 11**2, rtol=1e-8, atol=0.0, momentum=(9 / 11) ** 2)
    few, many = (
        minimise(solver, function, torch.zeros(6, dtype=D))[1].steps
        for solver in (tuned, GradientDescent(2 / 101, rtol=1e-8, atol=0.0))
    )
    assert 4 * few < many < 1500
    status, y = honest(tuned, function, torch.zeros(6, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y, best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_momentum_ends_at_the_rounding_floor(dtype: torch.dtype) -> None:
    function, best = quadratic(10.0, 3)
    solver = GradientDescent(0.1, momentum=0.5, rtol=0.0, atol=0.0)
    status, y = honest(solver, function, torch.zeros(3, dtype=dtype))
    assert status in ANSWERS
    assert (y.to(D) - best).norm() <= 100 * torch.finfo(dtype).eps * best.norm()


def test_slow_but_steady_progress_is_not_given_up() -> None:
    function, _ = quadratic(1e4, 4)
    _, certificate = minimise(GradientDescent(1e-4, max_steps=1001), function, torch.zeros(4, dtype=D))
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    # Off a ridge the slope grows for a long time while the value falls.
    ridge = lambda y: (y**2 - 1).square().sum(-1)  # noqa: E731  # a name for a one-liner
    y, certificate = minimise(GradientDescent(5e-3), ridge, torch.full((1,), 1e-6, dtype=D))
    assert int(certificate.steps) > 1000
    assert Status(int(certificate.status)) == Status.CONVERGED
    torch.testing.assert_close(y, torch.ones_like(y))


def test_progress_that_has_ended_is_given_up() -> None:
    _, certificate = minimise(GradientDescent(0.5), lambda y: y.abs().sum(-1), torch.full((2,), 0.2, dtype=D))
    assert Status(int(certificate.status)) == Status.STALLED
    assert int(certificate.steps) <= 1000


@pytest.mark.parametrize(("setting", "value"), [("momentum", -0.1), ("momentum", 1.0), ("momentum", torch.nan)])
def test_settings_that_make_no_sense(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        GradientDescent(0.1, **{setting: value})  # type: ignore[arg-type]  # one of them


@pytest.mark.parametrize(
    "solver",
    [
        *(
            Anderson(history=3),
            Broyden(history=7),
            FixedPointIteration(damping=0.3),
            GradientDescent(0.1, momentum=0.9),
        ),
        *(LBFGS(), Newton(linear_solver=GMRES()), TorchOptimizer(torch.optim.Adam, lr=0.1, max_steps=3)),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_a_solver_can_be_copied_sent_and_read(solver: Solver) -> None:
    for twin in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert repr(twin) == repr(solver)
        assert twin == solver
    assert type(solver).__name__ in repr(solver)


def test_nothing_outside_is_touched() -> None:
    start = torch.tensor([-1.2, 1.0], dtype=D)
    x = torch.ones(2, dtype=D, requires_grad=True)
    kept, state = start.clone(), torch.random.get_rng_state()
    for solver in (
        *(GradientDescent(1e-4, momentum=0.5, max_steps=5), Newton(max_steps=5), Broyden(max_steps=5)),
        *(Anderson(max_steps=5), FixedPointIteration(max_steps=5), TorchOptimizer(torch.optim.Adam, max_steps=5)),
    ):
        y, _ = solver.solve(Objective(lambda y: rosenbrock(y * x), 0), start, ())
        assert torch.equal(start, kept)
        assert not y.requires_grad
        assert x.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)
