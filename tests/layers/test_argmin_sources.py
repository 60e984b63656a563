"""Everything an argmin depends on gets its gradient, or the call raises: never a silent zero."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import bigrad
from bigrad import InputError
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS

from .cases import D, leaf, vector

TIGHT = LBFGS(rtol=0.0, atol=1e-13)


def layer(objective: object, size: int = 3) -> ArgMin:
    return ArgMin(objective, torch.zeros(size, dtype=D), solver=TIGHT)  # type: ignore[arg-type]  # callable


def formula(x: Tensor, theta: Tensor) -> Tensor:
    """The minimiser of :func:`pull`."""
    return x * theta / (1 + theta**2)


def pull(y: Tensor, x: Tensor, theta: Tensor) -> Tensor:
    return ((theta * y - x) ** 2).sum() + (y**2).sum()


def assert_same_derivatives(found: Tensor, truth: Tensor, *sources: Tensor) -> None:
    """Equal in value and in two derivatives with respect to each source, mixed ones included."""
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-11)
    one, other = (torch.autograd.grad(y.cos().sum(), sources, create_graph=True) for y in (found, truth))
    for found_first, true_first in zip(one, other, strict=True):
        assert true_first.norm() > 1e-3
        torch.testing.assert_close(found_first, true_first, rtol=1e-8, atol=1e-10)
    seconds = [
        torch.autograd.grad(sum(g.sin().sum() for g in first), sources, retain_graph=True) for first in (one, other)
    ]
    for found_second, true_second in zip(*seconds, strict=True):
        assert true_second.norm() > 1e-3
        torch.testing.assert_close(found_second, true_second, rtol=1e-7, atol=1e-9)


class Pull(nn.Module):
    """``pull`` as a module that owns ``theta``."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return pull(y, x, self.theta)


def test_a_captured_leaf() -> None:
    x, theta = leaf(3), leaf(3, seed=1)
    assert_same_derivatives(layer(lambda y, x: pull(y, x, theta))(x), formula(x, theta), x, theta)


def test_a_captured_result_of_other_computations() -> None:
    x, theta = leaf(3), leaf(3, seed=1)
    bent = torch.sinh(theta)
    assert_same_derivatives(layer(lambda y, x: pull(y, x, bent))(x), formula(x, bent), x, theta)


def test_a_tensor_both_passed_and_captured() -> None:
    theta = leaf(3, seed=1)
    found = layer(lambda y, x: pull(y, x, theta))(theta)
    assert_same_derivatives(found, formula(theta, theta), theta)


def test_a_tensor_passed_twice_and_a_result_with_its_own_source() -> None:
    x = leaf(3)
    assert_same_derivatives(layer(pull)(x, x), formula(x, x), x)
    assert_same_derivatives(layer(pull)(x, 2 * x), formula(x, 2 * x), x)


def test_only_a_captured_tensor_and_no_input_at_all() -> None:
    theta = leaf(3, seed=1)
    one = torch.ones(3, dtype=D)
    assert_same_derivatives(layer(lambda y: pull(y, one, theta))(), formula(one, theta), theta)


def test_inputs_inside_nested_structures_and_beside_other_things() -> None:
    x, theta = leaf(3), leaf(3, seed=1)

    def objective(y: Tensor, data: dict[str, object], kind: str, extra: object) -> Tensor:
        assert kind == "pull"
        assert extra is None
        return pull(y, data["x"], data["rest"][1])  # type: ignore[arg-type, index]

    assert_same_derivatives(
        layer(objective)({"x": x, "rest": [torch.arange(3), theta]}, "pull", None), formula(x, theta), x, theta
    )


def test_an_integer_input_is_passed_on() -> None:
    x, theta = leaf(3), leaf(5, seed=1)
    index = torch.tensor([4, 0, 2])
    found = layer(lambda y, x, theta, index: pull(y, x, theta[index]))(x, theta, index)
    assert_same_derivatives(found, formula(x, theta[index]), x, theta)


@pytest.mark.parametrize("how", ["module", "bound method", "partial", "closure"])
def test_the_parameters_of_a_module(how: str) -> None:
    x, module = leaf(3), Pull(vector(3, seed=1))
    objective = {
        "module": module,
        "bound method": module.forward,
        "partial": functools.partial(pull, theta=module.theta),
        "closure": lambda y, x: module(y, x),
    }[how]
    found = layer(objective)(x)
    assert_same_derivatives(found, formula(x, module.theta), x, module.theta)


def test_a_module_whose_layers_share_a_parameter() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False, dtype=D)
            self.second = nn.Linear(3, 3, bias=False, dtype=D)
            self.second.weight = self.first.weight

        def forward(self, y: Tensor, x: Tensor) -> Tensor:
            return ((self.first(y) + self.second(y) - x) ** 2).sum() + (y**2).sum()

    module, x = Shared(), leaf(3)
    weight = 2 * module.first.weight
    truth = torch.linalg.solve(weight.T @ weight + torch.eye(3, dtype=D), weight.T @ x)
    assert_same_derivatives(layer(module)(x), truth, x, module.first.weight)


def test_a_frozen_parameter_stays_frozen() -> None:
    module, x = Pull(vector(3, seed=1)), leaf(3)
    module.theta.requires_grad_(False)
    layer(module)(x).sum().backward()
    assert module.theta.grad is None
    torch.testing.assert_close(x.grad, module.theta / (1 + module.theta**2))


def test_the_parameters_of_the_objective_are_those_of_the_layer() -> None:
    assert [name for name, _ in layer(Pull(vector(3))).named_parameters()] == ["objective.theta"]


@pytest.mark.parametrize("how", ["captured", "passed", "module", "result"])
def test_an_argmin_inside_the_objective(how: str) -> None:
    x, theta = leaf(3), leaf(3, seed=1)
    if how == "module":
        module = Pull(theta.detach())
        theta = module.theta
    twice = 2 * theta

    def objective(y: Tensor, x: Tensor) -> Tensor:
        inner = {
            "captured": lambda: layer(lambda z, y: pull(z, y, theta))(y),
            "passed": lambda: layer(pull)(y, theta),
            "module": lambda: layer(module)(y),
            "result": lambda: layer(lambda z, y: pull(z, y, 0.5 * twice))(y),
        }[how]()
        return ((inner - x) ** 2).sum() + (y**2).sum()

    factor = theta / (1 + theta**2)
    assert_same_derivatives(layer(objective)(x), formula(x, factor), x, theta)


def test_gradients_of_users_are_never_touched_by_forward() -> None:
    x, theta, module = leaf(3), leaf(3, seed=1), Pull(vector(3, seed=2))
    sources = [x, theta, module.theta]
    for tensor in sources:
        tensor.grad = torch.full_like(tensor, 7.0)
    y = layer(module)(x * theta)
    z = layer(lambda y, x: pull(y, x, theta))(x)
    torch.autograd.grad(y.sum() + z.sum(), sources)
    assert all(torch.equal(tensor.grad, torch.full_like(tensor, 7.0)) for tensor in sources)


def test_without_grad_mode_nothing_is_attached() -> None:
    theta = leaf(3, seed=1)
    with torch.no_grad():
        y = layer(lambda y, x: pull(y, x, theta))(leaf(3))
    assert not y.requires_grad
    torch.testing.assert_close(y, formula(vector(3), theta.detach()))


def test_a_detached_tensor_is_a_constant() -> None:
    x, theta = leaf(3), leaf(3, seed=1)
    y = layer(lambda y, x: pull(y, x, theta.detach()))(x)
    y.sum().backward()
    assert theta.grad is None or not theta.grad.any()


class Triple(torch.autograd.Function):
    """A step that torch's function modes do not see in eager mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: object, cotangent: Tensor) -> Tensor:
        return 3 * cotangent


@pytest.mark.parametrize("made", [False, True])
def test_a_captured_tensor_that_cannot_be_traced_raises(made: bool) -> None:
    theta = leaf(3, seed=1)
    hidden = 2 * theta if made else theta
    objective = lambda y, x: pull(y, x, Triple.apply(hidden))  # noqa: E731  # a name for a one-liner
    with pytest.raises(InputError, match="cannot be traced"):
        layer(objective)(leaf(3))
    passed = layer(lambda y, x, theta: pull(y, x, Triple.apply(theta)))(x := leaf(3), theta)
    torch.testing.assert_close(passed, formula(x, 3 * theta))


@pytest.mark.parametrize("hide", [lambda theta: theta, Triple.apply])
def test_a_captured_tensor_of_a_transform_raises(hide: object) -> None:
    x = vector(3)

    def through(theta: Tensor) -> Tensor:
        return layer(lambda y, x: pull(y, x, hide(theta)))(x).sum()  # type: ignore[operator]

    for transform in (torch.func.grad, torch.func.jacrev, torch.func.vmap):
        with pytest.raises(InputError, match="pass it as an input"):
            transform(through)(vector(3, seed=1) if transform is not torch.func.vmap else vector(2, 3))


def test_a_captured_parameter_under_a_transform_raises() -> None:
    module = Pull(vector(3, seed=1))
    with pytest.raises(InputError, match="make the objective"):
        torch.func.grad(lambda x: layer(lambda y, x: module(y, x))(x).sum())(vector(3))
    torch.func.grad(lambda x: layer(module)(x).sum())(vector(3))


def test_an_outer_transform_is_not_hidden_by_an_inner_one() -> None:
    def outer(theta: Tensor) -> Tensor:
        return torch.func.grad(lambda x: layer(lambda y, x: pull(y, x, theta))(x).sum())(vector(3)).sum()

    with pytest.raises(InputError, match="pass it as an input"):
        torch.func.grad(outer)(vector(3, seed=1))


def test_the_function_door_is_the_same() -> None:
    x, theta = leaf(3), leaf(3, seed=1)
    found = bigrad.argmin(lambda y, x: pull(y, x, theta), torch.zeros(3, dtype=D), x, solver=TIGHT)
    assert_same_derivatives(found, formula(x, theta), x, theta)
