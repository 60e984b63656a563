"""Roots and fixed points: values and derivatives of every order against closed forms, and refusals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import bigrad
from bigrad import InputError, SolveError, UnsupportedError
from bigrad.gradients import Implicit, WarmStart
from bigrad.layers import FixedPoint, Root
from bigrad.linear import GMRES, BiCGStab, Direct
from bigrad.solvers import Anderson, Broyden, Newton

from .cases import D, derivatives, flat, vector

forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
UNEVEN = torch.tensor([[2.0, 1.0, 0.0], [-1.0, 3.0, 0.5], [0.3, -0.7, 2.5]], dtype=D)
SIDE = vector(3, seed=7)


@dataclass(frozen=True)
class Known:
    """A layer in ``x`` and its answer as a formula."""

    name: str
    layer: Any
    formula: Callable[[Tensor], Any]
    x: Tensor

    def __repr__(self) -> str:
        return self.name


def cubic(x: Tensor) -> Tensor:
    """The real root of y + y^3 = x."""
    return 2 / 3**0.5 * torch.sinh(torch.asinh(1.5 * 3**0.5 * x) / 3)


def uneven(y: Tensor, x: Tensor) -> Tensor:
    return ((UNEVEN + torch.diag_embed(x.exp())) @ y.unsqueeze(-1)).squeeze(-1) - SIDE


def uneven_formula(x: Tensor) -> Tensor:
    return torch.linalg.inv(UNEVEN + torch.diag(x.exp())) @ SIDE


def contraction(y: Tensor, x: Tensor) -> Tensor:
    return 0.2 * y @ UNEVEN + x.sin()


def tree(y: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    return {"a": y["a"] - x * y["b"], "b": y["b"] + y["b"] ** 3 - x}


SCALES = torch.tensor([1e-4, 1.0, 1e4], dtype=D)


def scaled(y: Tensor, x: Tensor) -> Tensor:
    return SCALES.unsqueeze(-1) * (y + y**3 - SCALES.log10().unsqueeze(-1) * x)


KNOWN = [
    Known("cubic", Root(lambda y, x: y + y**3 - x, torch.zeros(3, dtype=D)), cubic, vector(3)),
    Known("uneven", Root(uneven, torch.zeros(3, dtype=D)), uneven_formula, vector(3, seed=1)),
    Known(
        "nested",
        Root(tree, {"a": torch.zeros(2, dtype=D), "b": torch.zeros(2, dtype=D)}),
        lambda x: {"a": x * cubic(x), "b": cubic(x)},
        vector(2, seed=2),
    ),
    Known(
        "batch of mixed scales",
        Root(scaled, torch.zeros(2, dtype=D), batch_dims=1),
        lambda x: cubic(SCALES.log10().unsqueeze(-1) * x),
        vector(2, seed=3),
    ),
    Known(
        "contraction",
        FixedPoint(contraction, torch.zeros(3, dtype=D)),
        lambda x: torch.linalg.inv(torch.eye(3, dtype=D) - 0.2 * UNEVEN.T) @ x.sin(),
        vector(3, seed=4),
    ),
    Known(
        "square root", FixedPoint(lambda y, x: (y + x / y) / 2, torch.ones(3, dtype=D)), torch.sqrt, 1 + vector(3).abs()
    ),
    Known("constant", FixedPoint(lambda y, x: x.exp(), torch.zeros(3, dtype=D)), torch.exp, vector(3)),
]
every = pytest.mark.parametrize("known", KNOWN, ids=repr)


@every
def test_three_derivatives_agree_with_the_formula(known: Known) -> None:
    for found, truth in zip(derivatives(known.layer, known.x, 3), derivatives(known.formula, known.x, 3), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-9)


@every
def test_gradcheck_and_gradgradcheck(known: Known) -> None:
    function = lambda x: flat(known.layer(x))  # noqa: E731  # a name for a one-liner
    x = known.x.clone().requires_grad_()
    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@every
@forward_mode
@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "vmap", "vmap grad", "hessian"])
def test_transforms(known: Known, transform: str) -> None:
    def number(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
        return lambda x: (flat(function(x)) * torch.cos(torch.arange(flat(known.formula(known.x)).numel()))).sum()

    apply: dict[str, Callable[[Callable[[Tensor], Any]], Callable[[Tensor], Tensor]]] = {
        "grad": lambda f: torch.func.grad(number(f)),
        "jacrev": lambda f: torch.func.jacrev(lambda x: flat(f(x))),
        "jacfwd": lambda f: torch.func.jacfwd(lambda x: flat(f(x))),
        "vmap": lambda f: torch.func.vmap(lambda x: flat(f(x))),
        "vmap grad": lambda f: torch.func.vmap(torch.func.grad(number(f))),
        "hessian": lambda f: torch.func.hessian(number(f)),
    }
    x = torch.stack([known.x, 0.8 * known.x]) if transform.startswith("vmap") else known.x
    found, truth = (apply[transform](f)(x) for f in (known.layer, known.formula))
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-8)


@forward_mode
def test_forward_over_forward_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="reverse mode"):
        torch.func.jacfwd(torch.func.jacfwd(KNOWN[0].layer))(KNOWN[0].x)


@pytest.mark.parametrize("linear_solver", [Direct(), GMRES(), BiCGStab()], ids=repr)
@pytest.mark.parametrize(
    "solver", [Newton(rtol=0, atol=1e-13), Broyden(rtol=0, atol=1e-13), Anderson(rtol=0, atol=1e-13)], ids=repr
)
def test_every_solver_with_every_linear_solver(solver: Any, linear_solver: Any) -> None:
    def residual(y: Tensor, x: Tensor) -> Tensor:
        return y - contraction(y, x) + 0.1 * y**3

    layer = Root(residual, torch.zeros(3, dtype=D), solver=solver, gradient=Implicit(linear_solver))
    x = vector(3, seed=4).requires_grad_()
    assert gradcheck(layer, x)
    assert gradgradcheck(layer, x)


def test_the_untransposed_adjoint_is_caught() -> None:
    """The wrong variant that a symmetric problem would hide."""
    known = KNOWN[1]
    x = known.x.clone().requires_grad_()
    y = known.layer(x)
    weight = vector(3, seed=9)
    (right,) = torch.autograd.grad(y, x, weight)
    matrix = UNEVEN + torch.diag(x.detach().exp())
    truth = -x.detach().exp() * y.detach() * (torch.linalg.inv(matrix.T) @ weight)
    wrong = -x.detach().exp() * y.detach() * (torch.linalg.inv(matrix) @ weight)
    torch.testing.assert_close(right, truth, rtol=1e-9, atol=1e-12)
    assert (wrong - truth).norm() > 0.1 * truth.norm()


def test_a_batch_is_its_problems_one_by_one() -> None:
    layer = Root(lambda y, x: y + y**3 - x, torch.zeros(2, dtype=D), batch_dims=1)
    x = (vector(5, 2) * torch.logspace(-3, 3, 5, dtype=D).unsqueeze(-1)).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, cubic(x), rtol=1e-9, atol=1e-10)
    assert layer.certificate is not None
    assert layer.certificate.steps.shape == (5,)
    assert len(set(layer.certificate.steps.tolist())) > 1
    assert layer(x[:0]).shape == (0, 2)


def test_a_coupled_batch_raises() -> None:
    for layer in (
        Root(lambda y, x: y - y.mean(0) / 2 - x, torch.zeros(2, dtype=D), batch_dims=1),
        FixedPoint(lambda y, x: y.mean(0) / 2 + x, torch.zeros(2, dtype=D), batch_dims=1),
    ):
        with pytest.raises(InputError, match="independent problems"):
            layer(vector(4, 2))


def test_gradients_reach_parameters_and_captured_tensors() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4, dtype=D)

        def forward(self, y: Tensor, x: Tensor) -> Tensor:
            return 0.5 * torch.tanh(self.inner(y) + x)

    torch.manual_seed(0)
    cell, x, shift = Cell(), vector(3, 4), vector(4, seed=2).requires_grad_()
    layer = FixedPoint(cell, torch.zeros(4, dtype=D), batch_dims=1)
    assert set(layer.state_dict()) == {"mapping.inner.weight", "mapping.inner.bias"}

    def total(weight: Tensor, shift: Tensor) -> Tensor:
        def mapping(y: Tensor, x: Tensor) -> Tensor:
            return 0.5 * torch.tanh(y @ weight.T + cell.inner.bias + x + shift)

        return bigrad.fixed_point(mapping, torch.zeros(4, dtype=D), x, batch_dims=1).sum()

    layer(x).sum().backward()
    weight = cell.inner.weight.detach().clone().requires_grad_()
    zero = torch.zeros(4, dtype=D, requires_grad=True)
    found, on_shift = torch.autograd.grad(total(weight, zero), [weight, zero])
    torch.testing.assert_close(cell.inner.weight.grad, found)
    torch.testing.assert_close(cell.inner.bias.grad, on_shift)
    assert gradcheck(total, (weight, shift))
    with pytest.raises(InputError, match="transform"):
        torch.func.grad(lambda x: bigrad.root(lambda y, x: y - x * shift, torch.zeros(4, dtype=D), x).sum())(x[0])


def test_a_residual_that_is_itself_a_transform() -> None:
    def residual(y: Tensor, x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: (0.5 * (y - x) ** 2 + 0.25 * y**4 - 0.5 * y**2 + 0.5 * y**2).sum())(y)

    function = lambda x: bigrad.root(residual, torch.zeros(3, dtype=D), x)  # noqa: E731  # a name for a one-liner
    x = vector(3)
    torch.testing.assert_close(torch.func.jacrev(function)(x), torch.func.jacrev(cubic)(x))
    torch.testing.assert_close(torch.func.vmap(function)(x.expand(2, 3))[0], cubic(x))
    assert gradcheck(function, x.requires_grad_())


def test_a_warm_start_saves_steps_and_changes_nothing() -> None:
    layer = Root(lambda y, x: y + y**3 - x, torch.zeros(3, dtype=D), solver=Broyden())
    warm, x = WarmStart(), vector(3).requires_grad_()
    first = layer(x, warm_start=warm)
    assert layer.certificate is not None
    cold = int(layer.certificate.steps)
    again = layer(x * 1.0001, warm_start=warm)
    assert int(layer.certificate.steps) < cold
    torch.testing.assert_close(again, cubic(x * 1.0001), rtol=1e-8, atol=1e-9)
    again.sum().backward()
    assert warm.adjoint is not None
    with pytest.raises(InputError, match="warm start"):
        Root(lambda y, x: y - x, torch.zeros(2, dtype=D))(x[:2], warm_start=warm)
    with pytest.raises(UnsupportedError, match="warm start"):
        torch.func.vmap(lambda x: layer(x, warm_start=warm))(x.detach().expand(2, 3))
    assert first.shape == (3,)


def test_a_users_solver_is_checked_before_it_is_trusted() -> None:
    x = vector(3).requires_grad_()
    layer = Root(lambda y, x: y + y**3 - x, torch.zeros(3, dtype=D), solver=lambda init, x: cubic(x))
    assert gradcheck(layer, x)
    assert gradgradcheck(layer, x)
    torch.testing.assert_close(torch.func.vmap(layer)(x.detach().expand(2, 3))[1], cubic(x))
    with pytest.raises(SolveError, match="residual"):
        Root(lambda y, x: y + y**3 - x, torch.zeros(3, dtype=D), solver=lambda init, x: x + 1)(x)


def test_float32_copies_and_repr() -> None:
    layer = Root(lambda y, x: y + y**3 - x, torch.zeros(3))
    x = vector(3).float().requires_grad_()
    y = layer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, cubic(x), rtol=1e-4, atol=1e-5)
    y.sum().backward()
    twin = copy.deepcopy(layer)
    assert repr(twin.certificate) == repr(layer.certificate)
    torch.testing.assert_close(twin(x), y)
    kept = pickle.loads(pickle.dumps(Root(uneven, torch.zeros(3, dtype=D))))  # our own bytes
    torch.testing.assert_close(kept(KNOWN[1].x), uneven_formula(KNOWN[1].x))
    assert repr(kept).startswith("Root(uneven, solver=Newton(")


def test_autocast_lowers_no_solve() -> None:
    layer = FixedPoint(lambda y, x: torch.tanh(0.3 * y + x), torch.zeros_like, batch_dims=1)
    model = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(model(vector(2, 4).float()))
        y.sum().backward()
    assert y.dtype == torch.float32
    assert layer.certificate is not None
    assert float(layer.certificate.stationarity.max()) < 1e-4
    assert model.weight.grad is not None


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_compile_with_graph_breaks() -> None:
    layer = KNOWN[4].layer
    x = KNOWN[4].x.clone().requires_grad_()
    compiled = torch.compile(lambda x: layer(x.sin()).square().sum(), backend="eager")
    (found,) = torch.autograd.grad(compiled(x), x)
    (truth,) = torch.autograd.grad(layer(x.sin()).square().sum(), x)
    torch.testing.assert_close(found, truth)
