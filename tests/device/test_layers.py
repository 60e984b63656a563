"""Every layer on the pretend device: forward, backward and double backward mix no devices and agree with the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bigrad.layers
from bigrad import Certificate, Constraints, InputError
from bigrad.gradients import Implicit
from bigrad.layers import (
    ArgMin,
    Bilevel,
    ConvexProgram,
    FixedPoint,
    QuadraticProgram,
    Root,
    SoftBellman,
    SoftResponse,
)
from bigrad.linear import CG, Direct, Operator
from bigrad.mdp import LeastSquaresCritic, Rollouts, Segments, Trace
from bigrad.solvers import LBFGS, GradientDescent

from .games import games
from .solutions import numbers, paths

D = torch.float64


def ridge(y: Tensor, x: Tensor, design: Tensor) -> Tensor:
    """A smooth strictly convex objective of each row of ``y``."""
    return ((y @ design.mT - x) ** 2).sum(-1) + 0.1 * (y**4).sum(-1) + (x.exp() * y**2).sum(-1)


class Owner(torch.nn.Module):
    """An objective with a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 1.0, 3, dtype=D))
        self.register_buffer("target", torch.ones(3, dtype=D))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return (self.weight * (y - self.target - x) ** 2).sum() + (y**4).sum()


class Bent(torch.nn.Module):
    """A contraction with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, dtype=D)
        with torch.no_grad():
            self.linear.weight.copy_(0.2 * numbers(3, 3))
            self.linear.bias.copy_(numbers(3))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.linear(y).tanh() + x


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return ((y - z) ** 2).sum(-1) + 0.5 * ((x - 1) ** 2).sum(-1)


def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return ((y - x * z.exp()) ** 2).sum(-1) + 0.1 * (y**4).sum(-1)


PAIR = (torch.zeros(3, dtype=D), torch.zeros(3, dtype=D))
BOUNDS = {
    "leader_constraints": Constraints(equality=lambda x, y, z: x.sum(-1, keepdim=True) - 1),
    "follower_constraints": Constraints(upper=0.5),
}


def projection() -> ConvexProgram:
    """The nearest non-negative vector."""
    import cvxpy

    y, point = cvxpy.Variable(3), cvxpy.Parameter(3)
    return ConvexProgram(cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(y - point)), [y >= 0]), [point], [y])


class Features(torch.nn.Module):
    """A reward model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 1, dtype=D)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.3, -0.2, 0.5]], dtype=D))
            self.linear.bias.zero_()

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.linear(torch.cat([observation, action], -1)).squeeze(-1).tanh()


def moved(
    make: Callable[[], torch.nn.Module], *inputs: Tensor, order: int = 2
) -> Callable[[torch.device], tuple[Tensor, ...]]:
    """Value, gradients and second derivatives of a layer, computed on a device and brought back."""

    def run(device: torch.device) -> tuple[Tensor, ...]:
        layer = make().to(device)
        free = [tensor.to(device).requires_grad_() for tensor in inputs]
        out = layer(*free)
        parts = list(out) if isinstance(out, tuple) else [out]
        assert all(part.device == free[0].device for part in parts)
        leaves = [*free, *layer.parameters()]
        first = torch.autograd.grad(sum(part.pow(2).sum() for part in parts), leaves, create_graph=order > 1)
        second = torch.autograd.grad(sum(part.pow(2).sum() for part in first), leaves) if order > 1 else ()
        assert all(tensor.device == leaf.device for tensor, leaf in zip((*first, *second), leaves * order, strict=True))
        assert isinstance(layer.certificate, Certificate)
        assert_on_the_host(layer.certificate)
        return tuple(tensor.detach().cpu() for tensor in (*parts, *first, *second))

    return run


def assert_on_the_host(certificate: Certificate) -> None:
    """A certificate is read where the decisions are made."""
    assert certificate.factor is None
    spectrum = (*(certificate.ritz or ()), *(certificate.triangle or ()))
    numbers = (certificate.status, certificate.stationarity, certificate.tolerance, certificate.steps)
    for tensor in (*numbers, certificate.feasibility, certificate.margin, certificate.condition, *spectrum):
        assert tensor is None or tensor.device.type == "cpu"
    assert repr(certificate)
    assert certificate.message()
    if certificate.adjoint is not None:
        assert_on_the_host(certificate.adjoint)


def transition() -> Tensor:
    chance = numbers(4, 2, 4).abs() + 0.1
    return chance / chance.sum(-1, keepdim=True)


def response(device: torch.device) -> tuple[Tensor, ...]:
    """SoftResponse with each estimator; it has no second derivative."""
    found = []
    observation, action = numbers(5, 4, 2).to(device), numbers(5, 4, 1).to(device)
    rollouts = Rollouts(numbers(5, 4, 3, 6, 2).to(device), numbers(5, 4, 3, 6, 1).to(device))
    weighted = Rollouts(rollouts.observation, rollouts.action, numbers(5, 4, 3, 6).abs().to(device))
    tail = Rollouts(numbers(5, 7, 2).to(device), numbers(5, 7, 1).to(device), torch.ones(5, 7, dtype=D).to(device))
    segments = Segments(observation, action, numbers(5, 4).to(device), rollouts, weighted, tail)
    features = numbers(30, 6).to(device)
    critic = LeastSquaresCritic.fit(
        numbers(30, 2).to(device),
        numbers(30, 1).to(device),
        features,
        0.5 * features.flip(0),
        numbers(5, 4, 6).to(device),
        0.9,
        1e-2,
    )
    for estimator in (None, Trace(), Trace(horizon=3), critic):
        layer = SoftResponse(Features(), temperature=0.5, discount=0.9, estimator=estimator).to(device)
        logp = layer(segments)
        first = torch.autograd.grad((logp * numbers(5, 4).to(device)).sum(), list(layer.parameters()))
        found += [logp.detach(), *first]
    assert all(tensor.device.type == device.type for tensor in found)
    return tuple(tensor.cpu() for tensor in found)


CASES: dict[str, tuple[str, Callable[[torch.device], tuple[Tensor, ...]]]] = {
    "argmin": ("ArgMin", moved(lambda: ArgMin(ridge, torch.zeros(3, dtype=D)), numbers(3), numbers(3, 3))),
    "argmin, batch": ("ArgMin", moved(lambda: ArgMin(ridge, torch.zeros(3, dtype=D)), numbers(4, 3), numbers(3, 3))),
    "argmin, module": ("ArgMin", moved(lambda: ArgMin(Owner(), torch.zeros(3, dtype=D)), numbers(3))),
    "argmin, gradient descent": (
        "ArgMin",
        moved(
            lambda: ArgMin(ridge, torch.zeros(3, dtype=D), solver=GradientDescent(0.05), gradient=Implicit(CG())),
            numbers(3),
            numbers(3, 3),
        ),
    ),
    "argmin, direct": (
        "ArgMin",
        moved(
            lambda: ArgMin(ridge, torch.zeros(3, dtype=D), solver=LBFGS(history=2), gradient=Implicit(Direct(1e-9))),
            numbers(4, 3),
            numbers(3, 3),
        ),
    ),
    "fixed point": ("FixedPoint", moved(lambda: FixedPoint(Bent(), torch.zeros(3, dtype=D)), numbers(3))),
    "fixed point, batch": (
        "FixedPoint",
        moved(lambda: FixedPoint(Bent(), torch.zeros(4, 3, dtype=D), batch_dims=1), numbers(4, 3)),
    ),
    "root": ("Root", moved(lambda: Root(lambda y, x: y**3 + y - x, torch.zeros(3, dtype=D)), numbers(3))),
    "root, batch": (
        "Root",
        moved(lambda: Root(lambda y, x: y**3 + y - x, torch.zeros(4, 3, dtype=D), batch_dims=1), numbers(4, 3)),
    ),
    "bilevel": ("Bilevel", moved(lambda: Bilevel(leader, follower, PAIR), numbers(3))),
    "bilevel, batch, constraints": (
        "Bilevel",
        moved(lambda: Bilevel(leader, follower, PAIR, **BOUNDS), 0.3 * numbers(2, 3)),
    ),
    "quadratic program": ("QuadraticProgram", moved(QuadraticProgram, torch.eye(3, dtype=D), numbers(4, 3))),
    "quadratic program, constraints": (
        "QuadraticProgram",
        moved(
            QuadraticProgram,
            torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=D)) + 0.1,
            numbers(4, 3),
            torch.ones(1, 3, dtype=D),
            torch.ones(1, dtype=D),
            torch.cat([-torch.eye(3, dtype=D), torch.eye(3, dtype=D)]),
            torch.tensor([0.0] * 3 + [0.7] * 3, dtype=D),
        ),
    ),
    "convex program": ("ConvexProgram", moved(projection, numbers(4, 3), order=1)),
    "soft bellman": (
        "SoftBellman",
        moved(lambda: SoftBellman(transition(), discount=0.9, temperature=0.5), numbers(3, 4, 2)),
    ),
    "soft response": ("SoftResponse", response),
    "combinatorial": ("Combinatorial", paths),
    "bilevel combinatorial": ("BilevelCombinatorial", games),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_stays_on_its_device_and_agrees_with_the_cpu(name: str, device: torch.device) -> None:
    _, run = CASES[name]
    for here, there in zip(run(torch.device("cpu")), run(device), strict=True):
        assert torch.allclose(here, there, rtol=1e-9, atol=1e-11)


def test_every_layer_is_covered() -> None:
    assert {layer for layer, _ in CASES.values()} == set(bigrad.layers.__all__)


def test_a_planted_mix_in_an_objective_is_caught(device: torch.device) -> None:
    def forgetful(y: Tensor, x: Tensor) -> Tensor:
        return ((torch.eye(3, dtype=D) @ y - x) ** 2).sum()

    layer = ArgMin(forgetful, torch.zeros(3, dtype=D)).to(device)
    with pytest.raises(RuntimeError, match="same device"):
        layer(numbers(3).to(device))


def test_a_planted_mix_in_a_linear_solver_is_caught(device: torch.device) -> None:
    class Forgetful(CG):
        def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
            return super().solve(operator, b + torch.zeros(b.shape, dtype=b.dtype), start)

    x = numbers(3).to(device).requires_grad_()
    layer = ArgMin(ridge, torch.zeros(3, dtype=D), gradient=Implicit(Forgetful())).to(device)
    with pytest.raises(RuntimeError, match="same device"):
        layer(x, numbers(3, 3).to(device)).sum().backward()


def test_a_layer_left_on_the_cpu_says_so(device: torch.device) -> None:
    with pytest.raises(InputError, match="move one with"):
        ArgMin(ridge, torch.zeros(3, dtype=D))(numbers(3).to(device), numbers(3, 3).to(device))
    with pytest.raises(InputError, match="move one with"):
        SoftBellman(transition(), discount=0.9, temperature=0.5)(numbers(4, 2).to(device))
    with pytest.raises(InputError, match="move one with"):
        FixedPoint(Bent(), torch.zeros(3, dtype=D, device=device))(numbers(3).to(device))
    with pytest.raises(InputError, match="move one with"):
        Bilevel(leader, follower, PAIR)(numbers(3).to(device))
    with pytest.raises(InputError, match="move one with"):
        QuadraticProgram()(torch.eye(3, dtype=D), numbers(3).to(device))


def test_a_copied_layer_moves_alone(device: torch.device) -> None:
    layer = ArgMin(Owner(), torch.zeros(3, dtype=D))
    twin = copy.deepcopy(layer).to(device)
    assert twin(numbers(3).to(device)).device.type == device.type
    assert layer(numbers(3)).device.type == "cpu"
