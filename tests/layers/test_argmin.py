"""The argmin layer as a citizen: certificates, failures, saving, repr, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bigrad
from bigrad import SolveError, SolveWarning, Status, errors
from bigrad.gradients import Implicit
from bigrad.layers import ArgMin
from bigrad.linear import CG, Direct
from bigrad.solvers import LBFGS, GradientDescent

from .cases import RIDGE, D, Proximal, leaf, ridge, start, stretched, vector


@pytest.mark.parametrize("lead", [(), (4,)])
def test_the_certificate_tells_what_happened(lead: tuple[int, ...]) -> None:
    layer = ArgMin(stretched, start())
    x = leaf(*lead, 3)
    y = layer(x)
    certificate = layer.certificate
    assert certificate is not None
    assert certificate.what == "argmin"
    free = y.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(stretched(free, x.detach()).sum(), free)
    torch.testing.assert_close(certificate.stationarity, slope.norm(dim=-1))
    at_start = (torch.tensor([2.0, 20.0, 200.0], dtype=D) * x.detach()).norm(dim=-1)
    torch.testing.assert_close(certificate.tolerance, 1e-10 + 1e-10 * at_start)
    assert (certificate.stationarity <= certificate.tolerance).all()
    assert (certificate.status == Status.CONVERGED).all()
    assert (certificate.steps > 0).all()
    assert certificate.adjoint is None
    assert certificate.adjoint_residual is None
    assert certificate.condition is None
    y.sum().backward()
    assert certificate.adjoint is not None
    assert certificate.adjoint.what == "adjoint solve"
    assert certificate.adjoint_residual is not None
    assert (certificate.adjoint_residual <= 1.01e-12 * 3**0.5).all()
    assert certificate.condition is not None
    assert certificate.condition.shape == lead
    assert ((certificate.condition >= 100 / 3) & (certificate.condition <= 101)).all()


def test_a_certificate_belongs_to_its_call() -> None:
    layer = ArgMin(stretched, start())
    x, other = leaf(3), vector(2, 3)
    y = layer(x)
    first = layer.certificate
    layer(other)
    assert layer.certificate is not first
    y.sum().backward()
    assert first is not None
    assert first.adjoint is not None
    assert layer.certificate is not None
    assert layer.certificate.adjoint is None


def test_a_failed_call_leaves_no_certificate_of_another() -> None:
    layer = ArgMin(stretched, start(), solver=LBFGS(max_steps=2))
    layer(torch.zeros(3, dtype=D))
    with pytest.raises(errors.NotConverged) as caught:
        layer(vector(3))
    assert int(caught.value.certificate.status) == Status.MAX_STEPS


def test_the_three_ways_to_fail() -> None:
    broke = LBFGS(max_steps=1)
    with pytest.raises(errors.NotConverged, match=r"argmin used all its steps: residual .*, wanted .*max_steps"):
        ArgMin(stretched, start(), solver=broke)(vector(3))
    warning, silent = (ArgMin(stretched, start(), solver=broke, on_failure=how) for how in ("warn", "ignore"))  # type: ignore[arg-type]
    with pytest.warns(SolveWarning, match="used all its steps"):
        warned = warning(vector(3))
    assert torch.equal(silent(vector(3)), warned)
    assert silent.certificate is not None
    assert bool(silent.certificate.failed)


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        (lambda y, x: (y - x).sum(), errors.Stalled),
        (lambda y, x: ((y - x).abs() + 0.1 * y**2).sum(), SolveError),
        (lambda y, x: (y.log() * x).sum(), errors.Diverged),
    ],
    ids=["unbounded", "kink", "outside"],
)
def test_forward_failures_are_typed(objective: Callable[..., Tensor], kind: type[SolveError]) -> None:
    with pytest.raises(kind, match="Remedy"):
        ArgMin(objective, -torch.ones(2, dtype=D), solver=LBFGS(max_steps=200))(vector(2).abs())


def saddle(y: Tensor, x: Tensor) -> Tensor:
    """Stationary at zero, with curvatures 2 and -2, for every ``x``."""
    return (y[0] ** 2 - y[1] ** 2) * x.exp() + (x - x.detach()) * y.sum()


def trough(y: Tensor, x: Tensor) -> Tensor:
    """Flat along the second variable."""
    return (y[0] - x) ** 2 + (x - x.detach()) * y[1]


@pytest.mark.parametrize("linear_solver", [CG(), Direct()], ids=["CG", "Direct"])
def test_a_trough_has_no_derivative(linear_solver: CG | Direct) -> None:
    x = leaf()
    y = ArgMin(trough, start(2), gradient=Implicit(linear_solver))(x)
    with pytest.raises(errors.Singular, match=r"adjoint solve has no unique solution.*damping"):
        y.sum().backward()


@pytest.mark.parametrize("cotangent", [[1.0, 1.0], [1.0, 0.5], [0.0, 1.0]])
def test_a_saddle_has_no_derivative(cotangent: list[float]) -> None:
    y = ArgMin(saddle, start(2))(leaf())
    with pytest.raises(errors.Indefinite, match=r"adjoint solve .*curvature.*Remedy"):
        (y * torch.tensor(cotangent, dtype=D)).sum().backward()


def test_backward_failures_follow_the_same_three_ways() -> None:
    x = leaf()
    with pytest.warns(SolveWarning, match="curvature"):
        ArgMin(saddle, start(2), on_failure="warn")(x).sum().backward()
    layer = ArgMin(saddle, start(2), on_failure="ignore")
    layer(x).sum().backward()
    assert layer.certificate is not None
    assert layer.certificate.adjoint is not None
    assert bool(layer.certificate.adjoint.failed)


def test_damping_is_a_way_out_of_a_singular_system() -> None:
    x = leaf()
    ArgMin(trough, start(2), gradient=Implicit(CG(damping=1e-6)))(x)[0].backward()
    assert x.grad is not None
    assert abs(float(x.grad) - 1) < 1e-5


def test_a_fourfold_root_has_no_derivative() -> None:
    y = ArgMin(lambda y, x: ((y - x) ** 4).sum(), start(1), on_failure="ignore")(x := leaf(1))
    layer = ArgMin(lambda y, x: ((y - x) ** 4).sum(), y.detach())
    try:
        layer(x).sum().backward()
    except SolveError:
        return
    torch.testing.assert_close(x.grad, torch.ones(1, dtype=D), rtol=1e-6, atol=0)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_layer_travels_with_its_certificate(travel: Callable[[Any], Any]) -> None:
    layer = ArgMin(ridge, {"w": start()}["w"], solver=LBFGS(rtol=1e-12), gradient=Implicit(Direct()))
    layer(RIDGE.x).sum()
    arrived = travel(layer)
    assert arrived.certificate.stationarity == layer.certificate.stationarity  # type: ignore[union-attr]
    assert torch.equal(arrived(RIDGE.x), layer(RIDGE.x))
    assert arrived.solver == layer.solver
    assert arrived.gradient == layer.gradient
    assert repr(arrived) == repr(layer)


def test_a_layer_whose_start_has_a_graph_travels_too() -> None:
    layer = ArgMin(ridge, 2 * leaf(3))
    assert torch.equal(copy.deepcopy(layer)(RIDGE.x), layer(RIDGE.x))


def test_the_start_is_no_state_but_moves_with_the_layer() -> None:
    layer = ArgMin(lambda y, x: ((y["a"] - x) ** 2).sum() + y["b"] ** 2, {"a": start(), "b": start()[0]})
    assert len(layer.state_dict()) == 0
    assert list(layer.parameters()) == []
    layer.load_state_dict({})
    assert layer.float()(torch.ones(3))["b"].dtype == torch.float32


def test_repr_shows_the_settings() -> None:
    text = repr(ArgMin(ridge, start(), solver=GradientDescent(0.5), on_failure="warn"))
    assert text.startswith("ArgMin(ridge, solver=GradientDescent(step_size=0.5")
    assert "gradient=Implicit(linear_solver=None)" in text
    assert "on_failure='warn'" in text
    assert "(objective): Linear" in repr(ArgMin(nn.Linear(3, 1), start()))


def test_a_layer_in_a_network_is_trained() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3, dtype=D), ArgMin(Proximal(), start()), nn.Linear(3, 1, dtype=D))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02)
    x, wanted, losses = vector(6, 2), vector(6, 1), []
    for _ in range(8):
        optimiser.zero_grad()
        loss = ((network(x) - wanted) ** 2).mean()
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_a_result_does_not_depend_on_what_was_called_before() -> None:
    used, x = ArgMin(ridge, start()), RIDGE.x
    used(10 * x)
    torch.random.manual_seed(1)
    again = used(x)
    torch.random.manual_seed(2)
    assert torch.equal(again, ArgMin(ridge, start())(x))
    assert torch.equal(again, used(x))
    assert torch.equal(again, bigrad.argmin(ridge, start(), x))


def test_inputs_and_start_are_left_as_they_were() -> None:
    for begin in (torch.ones(3, dtype=D), RIDGE.formula(RIDGE.x)):
        x, kept = RIDGE.x.clone(), begin.clone()
        y = ArgMin(ridge, begin)(x)
        y += 1
        assert torch.equal(x, RIDGE.x)
        assert torch.equal(begin, kept)
