"""The layers inside what people build around them: every layer, one table."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bigrad import InputError
from bigrad.gradients import FirstOrder, GradientRule, Implicit, OneStep, Unrolled
from bigrad.layers import ArgMin, Bilevel, FixedPoint, QuadraticProgram, Root
from bigrad.linear import GMRES
from bigrad.solvers import LBFGS, GradientDescent, Newton, Solver

from .cases import D, vector
from .models import BATCH, INPUT, LAYERS, ZERO, Objective, leader, model

RULES: dict[str, tuple[GradientRule, Solver]] = {
    "Newton": (Implicit(), Newton()),
    "GMRES": (Implicit(GMRES()), Newton()),
    "Unrolled": (Unrolled(), GradientDescent(0.1)),
    "OneStep": (OneStep(), GradientDescent(0.1)),
    "FirstOrder": (FirstOrder(), LBFGS()),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def gradients(run: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], x: Tensor = INPUT) -> list[Tensor]:
    """The value, and what ``backward`` leaves in the input and the parameters."""
    x = x.clone().requires_grad_()
    for parameter in parameters:
        parameter.grad = None
    value = run(x)
    weight = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
    (weight * value).sum().backward()
    found = [value.detach(), x.grad, *(parameter.grad for parameter in parameters)]
    assert all(tensor is not None and bool(tensor.abs().max() > 1e-6) for tensor in found)
    return found


def assert_same(found: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-10) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.to(other), other, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@every_layer
@pytest.mark.usefixtures("process_group")
def test_data_parallel_training(name: str) -> None:
    bare, twin = model(name), model(name)
    parallel = DistributedDataParallel(twin)
    for _ in range(2):  # the buckets are rebuilt after the first step
        assert_same(
            gradients(parallel, list(twin.parameters())),
            gradients(bare, list(bare.parameters())),
        )


def under_autocast(layer: nn.Module, inside: bool) -> list[Tensor]:
    """As :func:`gradients`, with a forward pass under autocast, and the backward pass ``inside`` or after it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = INPUT.float().requires_grad_()
        assert (x @ x.mT).dtype == torch.bfloat16
        value = layer(x)
        assert value.dtype == torch.float32
        loss = (torch.cos(torch.arange(value.numel())).reshape(value.shape) * value).sum()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return [value.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


@every_layer
@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
def test_autocast_costs_no_accuracy(name: str, inside: bool) -> None:
    exact = LAYERS[name]()
    wanted = gradients(exact, list(exact.parameters()))
    assert_same(under_autocast(LAYERS[name]().float(), inside), wanted, 3e-5)


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("name", RULES)
def test_autocast_costs_no_accuracy_whatever_the_rule(name: str, inside: bool) -> None:
    rule, solver = RULES[name]
    layer = ArgMin(Objective().float(), torch.zeros(BATCH, 3), solver=solver, gradient=rule)
    found, plain = under_autocast(layer, inside), copy.deepcopy(layer)
    assert_same(found, gradients(plain, list(plain.parameters()), INPUT.float()), 1e-6)


@every_layer
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_compiled_with_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    bare = model(name)
    compiled = torch.compile(bare, backend="eager")
    for _ in range(2):
        assert_same(gradients(compiled, list(bare.parameters())), gradients(bare, list(bare.parameters())))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own machinery
def test_a_quadratic_program_in_a_model_compiles_as_one_graph() -> None:
    torch.compiler.reset()
    bare = model("QuadraticProgram")
    compiled = torch.compile(bare, backend="eager", fullgraph=True)
    assert_same(gradients(compiled, list(bare.parameters())), gradients(bare, list(bare.parameters())))


CAPTURING: dict[str, Callable[[Tensor], Callable[[Tensor], Any]]] = {
    "ArgMin": lambda t: ArgMin(lambda y, x: ((y - x * t) ** 2).sum(), ZERO),
    "FixedPoint": lambda t: FixedPoint(lambda y, x: 0.5 * y.sin() + x * t, ZERO),
    "Root": lambda t: Root(lambda y, x: y**3 + y - x * t, ZERO),
    "Bilevel, leader": lambda t: Bilevel(
        lambda x, y, z: leader(x, y, z * t), lambda y, x, z: ((y - x) ** 2).sum(), (ZERO, ZERO)
    ),
    "Bilevel, follower": lambda t: Bilevel(leader, lambda y, x, z: ((y - x * t) ** 2).sum(), (ZERO, ZERO)),
}


@pytest.mark.parametrize("name", CAPTURING)
def test_a_captured_tensor_gets_its_gradient_and_raises_under_a_transform(name: str) -> None:
    def value(theta: Tensor) -> Tensor:
        found = CAPTURING[name](theta)(INPUT[0])
        return (torch.cat(found) if isinstance(found, tuple) else found).sum()

    theta = vector(3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(value, theta, atol=1e-5)
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(InputError, match="pass it as an input"):
            transform(value)(theta.detach())
    with pytest.raises(InputError, match="pass it as an input"):
        torch.func.vmap(value)(theta.detach().expand(2, 3))


@every_layer
def test_copies_and_state(name: str) -> None:
    original = model(name)
    before = gradients(original, list(original.parameters()))
    twins = [copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    loaded = model(name)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    loaded.load_state_dict(torch.load(file))
    for twin in (*twins, loaded):
        assert_same(gradients(twin, list(twin.parameters())), before, 0.0)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(0.5)
    assert_same(gradients(original, list(original.parameters())), before, 0.0)


@every_layer
def test_gradients_accumulate_and_forward_leaves_them_alone(name: str) -> None:
    layer = model(name)
    parameters = list(layer.parameters())
    once = gradients(layer, parameters)[2:]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    value = layer(INPUT)
    assert all(bool((parameter.grad == 7).all()) for parameter in parameters)
    weight = torch.cos(torch.arange(value.numel(), dtype=D)).reshape(value.shape)
    (weight * value).sum().backward(retain_graph=True)
    (weight * value).sum().backward()
    assert_same([parameter.grad for parameter in parameters], [7 + 2 * gradient for gradient in once])


@every_layer
def test_without_grad_mode_there_is_no_graph(name: str) -> None:
    layer = model(name)
    with torch.no_grad():
        value = layer(INPUT)
    assert not value.requires_grad
    torch.testing.assert_close(value, layer(INPUT).detach(), rtol=1e-9, atol=1e-10)
    frozen = model(name).requires_grad_(False)
    assert not frozen(INPUT).requires_grad


def nested_argmin(x: Tensor, theta: Tensor) -> Tensor:
    """A fixed point of which each application solves an argmin."""
    inner = ArgMin(lambda z, y, theta: ((z - 0.4 * y.sin()) ** 2).sum() + 0.1 * ((theta * z) ** 4).sum(), ZERO)
    found: Tensor = FixedPoint(lambda y, x, theta: inner(y, theta) + x, ZERO)(x, theta)
    return found


def nested_program(x: Tensor, theta: Tensor) -> Tensor:
    """An argmin over the levels of a quadratic program, captured values included."""
    program, eye = QuadraticProgram(), torch.eye(3, dtype=D)

    def objective(y: Tensor, x: Tensor) -> Tensor:
        answer = program(eye + torch.diag(theta**2), -y, None, None, eye[:1], y[:1] - 1)
        return ((answer - x) ** 2).sum() + 0.1 * (y**2).sum()

    found: Tensor = ArgMin(objective, ZERO)(x)
    return found


def nested_equilibrium(x: Tensor, theta: Tensor) -> Tensor:
    """A quadratic program at a root of an equation."""
    level = Root(lambda y, x, theta: y + theta.cosh() * y**3 - x, ZERO)(x, theta)
    eye = torch.eye(3, dtype=D)
    found: Tensor = QuadraticProgram()(eye, -x, torch.ones(1, 3, dtype=D), level.sum()[None])
    return found


@pytest.mark.parametrize("function", [nested_argmin, nested_program, nested_equilibrium], ids=lambda it: it.__name__)
def test_nested_layers(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    given = [INPUT[0].clone().requires_grad_(), vector(3, seed=3).requires_grad_()]
    assert torch.autograd.gradcheck(function, given, eps=1e-5, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, eps=1e-4, atol=1e-4, fast_mode=True)
