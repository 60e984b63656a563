"""The argmin under torch.func transforms and torch.compile: the closed form's derivatives, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigrad import InputError, SolveError, UnsupportedError
from bigrad.gradients import Implicit
from bigrad.layers import ArgMin
from bigrad.linear import Direct
from bigrad.solvers import LBFGS

from .cases import CASES, RIDGE, Case, D, flat, ridge, vector

Function = Callable[[Tensor], Tensor]
TIGHT = LBFGS(rtol=0.0, atol=1e-13)

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def pair(case: Case) -> tuple[Function, Function]:
    """The layer and the formula as functions of x, both returning one vector."""
    layer = ArgMin(case.objective, case.init, solver=TIGHT)
    return lambda x: flat(layer(x)), lambda x: flat(case.formula(x))


def weighted(function: Function) -> Function:
    """A number that depends on every entry in its own way."""
    return lambda x: (function(x) * torch.cos(torch.arange(len(function(x).detach()), dtype=D))).sum()


def assert_alike(transform: Callable[[Function], Function], case: Case, scalar: bool, x: Tensor | None = None) -> None:
    found, truth = (transform(weighted(f) if scalar else f)(case.x if x is None else x) for f in pair(case))
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-10)
    assert truth.norm() > 1e-3


@every_case
def test_grad_and_its_grad(case: Case) -> None:
    assert_alike(torch.func.grad, case, scalar=True)
    assert_alike(lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).sin().sum()), case, scalar=True)


@every_case
def test_jacrev(case: Case) -> None:
    assert_alike(torch.func.jacrev, case, scalar=False)


@every_case
@forward_mode
def test_jacfwd(case: Case) -> None:
    assert_alike(torch.func.jacfwd, case, scalar=False)


@every_case
def test_vmap_and_vmap_of_grad(case: Case) -> None:
    many = torch.stack([case.x, case.x.flip(0), 0.5 * case.x])
    assert_alike(torch.func.vmap, case, scalar=False, x=many)
    assert_alike(lambda f: torch.func.vmap(torch.func.grad(f)), case, scalar=True, x=many)
    assert_alike(lambda f: torch.func.grad(lambda x: torch.func.vmap(f)(x).sum()), case, scalar=True, x=many)


@forward_mode
@pytest.mark.parametrize(
    "transform",
    [
        torch.func.hessian,
        lambda f: torch.func.jacrev(torch.func.grad(f)),
        lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
        lambda f: torch.func.jacrev(torch.func.hessian(f)),
        lambda f: torch.func.vmap(torch.func.hessian(f)),
        lambda f: torch.func.vmap(torch.func.vmap(torch.func.grad(f))),
    ],
    ids=["hessian", "jacrev grad", "jacrev jacfwd", "third", "vmap hessian", "vmap vmap grad"],
)
@pytest.mark.parametrize("case", CASES[:3], ids=repr)
def test_nested_transforms(
    transform: Callable[[Function], Function], case: Case, request: pytest.FixtureRequest
) -> None:
    lead = request.node.callspec.id.count("vmap")
    x = case.x * torch.linspace(0.5, 1, 2, dtype=D).unsqueeze(-1) if lead else case.x
    assert_alike(transform, case, scalar=True, x=x.expand(2, *x.shape) if lead == 2 else x)


@forward_mode
def test_a_jacobian_vector_product_and_a_mixed_product() -> None:
    tangent = vector(3, seed=9)
    assert_alike(lambda f: lambda x: torch.func.jvp(f, (x,), (tangent,))[1], RIDGE, scalar=False)
    forward_over_reverse = lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (tangent,))[1]  # noqa: E731
    assert_alike(forward_over_reverse, RIDGE, scalar=True)


@forward_mode
def test_forward_over_forward_is_refused() -> None:
    layer, _ = pair(RIDGE)
    with pytest.raises(UnsupportedError, match="reverse mode"):
        torch.func.jacfwd(torch.func.jacfwd(layer))(RIDGE.x)


@forward_mode
def test_torch_forward_mode_outside_of_torch_func() -> None:
    layer, formula = pair(RIDGE)
    tangent = vector(3, seed=9)
    with torch.autograd.forward_ad.dual_level():
        found = torch.autograd.forward_ad.unpack_dual(layer(torch.autograd.forward_ad.make_dual(RIDGE.x, tangent)))
    assert found.tangent is not None
    torch.testing.assert_close(found.tangent, torch.func.jvp(formula, (RIDGE.x,), (tangent,))[1])


@pytest.mark.parametrize("batched", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_some_inputs_shares_the_others(batched: tuple[int | None, int | None]) -> None:
    layer = ArgMin(lambda y, x, c: ((c * y - x) ** 2).sum() + (y**2).sum(), torch.zeros(3, dtype=D), solver=TIGHT)
    x, c = (vector(*((4,) if dim == 0 else ()), 3, seed=seed) for seed, dim in enumerate(batched))
    found = torch.func.vmap(layer, in_dims=batched)(x, c)
    torch.testing.assert_close(found, c * x / (1 + c**2))
    gradient = torch.func.vmap(torch.func.grad(lambda x, c: layer(x, c).sum(), argnums=(0, 1)), in_dims=batched)(x, c)
    full_x, full_c = x.expand(4, 3), c.expand(4, 3)
    torch.testing.assert_close(gradient[0], full_c / (1 + full_c**2))
    torch.testing.assert_close(gradient[1], full_x * (1 - full_c**2) / (1 + full_c**2) ** 2)


def test_vmap_over_a_trailing_dimension_and_of_a_batch() -> None:
    layer = ArgMin(lambda y, x: ((y - x.sin()) ** 2).sum(-1), torch.zeros(3, dtype=D))
    x = vector(3, 4)
    torch.testing.assert_close(torch.func.vmap(layer, in_dims=1)(x), x.T.sin(), rtol=1e-7, atol=1e-8)
    x = vector(5, 4, 3)
    torch.testing.assert_close(torch.func.vmap(layer)(x), x.sin(), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(torch.func.vmap(layer, in_dims=1)(x), x.transpose(0, 1).sin(), rtol=1e-7, atol=1e-8)


class Weighted(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return ((self.weight * y - x) ** 2).sum(-1) + (y**2).sum(-1)


def test_functional_call_gives_the_gradient_of_the_parameters() -> None:
    layer = ArgMin(Weighted(vector(3)), torch.zeros(3, dtype=D), solver=TIGHT)
    x, other = vector(3, seed=1), vector(3, seed=2)

    def through(weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"objective.weight": weight}, (x,)).sum()

    torch.testing.assert_close(torch.func.grad(through)(other), x * (1 - other**2) / (1 + other**2) ** 2)
    curve = torch.func.grad(lambda w: torch.func.grad(through)(w).sum())(other)
    torch.testing.assert_close(curve, 2 * x * other * (other**2 - 3) / (1 + other**2) ** 3)


def test_an_ensemble_of_parameters_is_one_vmap() -> None:
    members = [ArgMin(Weighted(vector(3, seed=k)), torch.zeros(3, dtype=D), solver=TIGHT) for k in range(4)]
    parameters, buffers = torch.func.stack_module_state(members)
    x = vector(2, 3, seed=9)

    def through(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(members[0], (parameters, buffers), (x,))

    found = torch.func.vmap(through, in_dims=(0, 0, None))(parameters, buffers, x)
    torch.testing.assert_close(found, torch.stack([member(x) for member in members]))
    loss = lambda *call: through(*call).sum()  # noqa: E731  # a name for a one-liner
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)
    weight = torch.stack([vector(3, seed=k) for k in range(4)])
    truth = x.sum(0) * (1 - weight**2) / (1 + weight**2) ** 2
    torch.testing.assert_close(gradient["objective.weight"], truth)


def test_no_certificate_under_a_transform_and_failures_still_raise() -> None:
    layer = ArgMin(ridge, torch.zeros(3, dtype=D))
    layer(RIDGE.x)
    assert layer.certificate is not None
    torch.func.grad(lambda x: layer(x).sum())(RIDGE.x)
    assert layer.certificate is None
    strict = ArgMin(ridge, torch.zeros(3, dtype=D), solver=LBFGS(max_steps=1))
    for transform in (torch.func.grad, torch.func.jacrev, lambda f: torch.func.vmap(f)):
        with pytest.raises(SolveError):
            transform(lambda x: strict(x).sum())(RIDGE.x if transform is not torch.func.vmap else RIDGE.x.expand(2, 3))
    one = torch.ones(2, dtype=D)
    saddle = ArgMin(lambda y, x: y[0] ** 2 * x[0] - y[1] ** 2 + (x[1] * y).sum() * 0, torch.zeros(2, dtype=D))
    with pytest.raises(SolveError):
        torch.func.grad(lambda x: saddle(x).sum())(one)


def test_eager_and_transform_give_one_number_whatever_came_before() -> None:
    layer = ArgMin(ridge, torch.zeros(3, dtype=D), gradient=Implicit(Direct()))
    before = torch.func.grad(lambda x: layer(x).sum())(RIDGE.x)
    x = RIDGE.x.clone().requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, before, rtol=1e-12, atol=0)
    assert torch.equal(torch.func.grad(lambda x: layer(x).sum())(RIDGE.x), before)


def test_a_coupled_batch_is_refused_under_a_transform_too() -> None:
    layer = ArgMin(lambda y, x: ((y - y.mean(0) - x) ** 2).sum(-1) + (y**2).sum(-1), torch.zeros(4, 3, dtype=D))
    for _ in range(2):
        with pytest.raises(InputError, match="depends on the variables of another"):
            torch.func.grad(lambda x: layer(x).sum())(vector(4, 3))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_a_compiled_function_gives_the_same_numbers() -> None:
    theta = vector(3, seed=5).requires_grad_()
    layer = ArgMin(lambda w, x: ridge(w, x) + (theta * w).sum(), torch.zeros(3, dtype=D))
    function = lambda x: layer(2 * x).sin().sum()  # noqa: E731  # a name for a one-liner
    results = []
    for runs in (function, torch.compile(function, backend="eager")):
        x = (0.5 * RIDGE.x).requires_grad_()
        value = runs(x)
        results.append(torch.cat([value.detach()[None], *torch.autograd.grad(value, [x, theta])]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=0)
