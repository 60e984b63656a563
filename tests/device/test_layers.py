"""Every layer on the pretend device: forward, backward and double backward mix no devices and agree with the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bigrad.layers
from bigrad import Certificate, InputError
from bigrad.gradients import Implicit
from bigrad.layers import ArgMin, SoftBellman, SoftResponse
from bigrad.linear import CG, Direct, Operator
from bigrad.mdp import LeastSquaresCritic, Rollouts, Segments, Trace
from bigrad.solvers import LBFGS, GradientDescent

from .pretend import count_syncs

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


def numbers(*shape: int) -> Tensor:
    """Fixed numbers without a pattern."""
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=D) ** 1.5).reshape(shape)


def moved(make: Callable[[], torch.nn.Module], *inputs: Tensor) -> Callable[[torch.device], tuple[Tensor, ...]]:
    """Value, gradients and second derivatives of a layer, computed on a device and brought back."""

    def run(device: torch.device) -> tuple[Tensor, ...]:
        layer = make().to(device)
        free = [tensor.to(device).requires_grad_() for tensor in inputs]
        out = layer(*free)
        parts = list(out) if isinstance(out, tuple) else [out]
        assert all(part.device == free[0].device for part in parts)
        leaves = [*free, *layer.parameters()]
        first = torch.autograd.grad(sum(part.pow(2).sum() for part in parts), leaves, create_graph=True)
        second = torch.autograd.grad(sum(part.pow(2).sum() for part in first), leaves)
        assert all(tensor.device == leaf.device for tensor, leaf in zip((*first, *second), leaves * 2, strict=True))
        if isinstance(layer, ArgMin | SoftBellman):
            assert layer.certificate is not None
            assert layer.certificate.status.device.type == "cpu"
        return tuple(tensor.detach().cpu() for tensor in (*parts, *first, *second))

    return run


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
    "soft bellman": (
        "SoftBellman",
        moved(lambda: SoftBellman(transition(), discount=0.9, temperature=0.5), numbers(3, 4, 2)),
    ),
    "soft response": ("SoftResponse", response),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_stays_on_its_device_and_agrees_with_the_cpu(name: str, device: torch.device) -> None:
    _, run = CASES[name]
    for here, there in zip(run(torch.device("cpu")), run(device), strict=True):
        assert torch.allclose(here, there, rtol=1e-9, atol=1e-11)


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_a_layer_on_a_gpu_agrees_with_the_cpu(name: str) -> None:
    _, run = CASES[name]
    for here, there in zip(run(torch.device("cpu")), run(torch.device("cuda")), strict=True):
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
        def solve(self, operator: Operator, b: Tensor) -> tuple[Tensor, Certificate]:
            return super().solve(operator, b + torch.zeros(b.shape, dtype=b.dtype))

    x = numbers(3).to(device).requires_grad_()
    layer = ArgMin(ridge, torch.zeros(3, dtype=D), gradient=Implicit(Forgetful())).to(device)
    with pytest.raises(RuntimeError, match="same device"):
        layer(x, numbers(3, 3).to(device)).sum().backward()


def test_a_layer_left_on_the_cpu_says_so(device: torch.device) -> None:
    with pytest.raises(InputError, match="move one with"):
        ArgMin(ridge, torch.zeros(3, dtype=D))(numbers(3).to(device), numbers(3, 3).to(device))
    with pytest.raises(InputError, match="move one with"):
        SoftBellman(transition(), discount=0.9, temperature=0.5)(numbers(4, 2).to(device))


def test_a_copied_layer_moves_alone(device: torch.device) -> None:
    layer = ArgMin(Owner(), torch.zeros(3, dtype=D))
    twin = copy.deepcopy(layer).to(device)
    assert twin(numbers(3).to(device)).device.type == device.type
    assert layer(numbers(3)).device.type == "cpu"


def test_a_step_of_the_solvers_synchronises_a_bounded_number_of_times(device: torch.device) -> None:
    """L-BFGS asks the host once whether any problem is live, once a trial, and once whether any is doubtful."""
    x, design = numbers(4, 3).to(device), numbers(3, 3).to(device)
    layer = ArgMin(ridge, torch.zeros(3, dtype=D)).to(device)
    layer(x, design)
    with count_syncs() as syncs:
        layer(x, design)
    assert layer.certificate is not None
    assert int(syncs) <= 6 * int(layer.certificate.steps.max()) + 20
