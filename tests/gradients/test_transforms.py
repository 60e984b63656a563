"""The rules under torch.func transforms and torch.compile: the same numbers as what they stand for, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.errors import NotConverged
from bigrad.gradients import FirstOrder, GradientRule, OneStep, Unrolled
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS, GradientDescent

from ..layers.cases import CASES, ENTROPY, RIDGE, Case, D, flat, vector
from .paths import FORWARD_MODE, descending, explicit

Function = Callable[[Tensor], Tensor]
pytestmark = pytest.mark.filterwarnings(FORWARD_MODE)
every_case = pytest.mark.parametrize("case", CASES, ids=repr)


def weighted(function: Function) -> Function:
    """A number that depends on every entry in its own way."""
    return lambda x: (function(x) * torch.cos(torch.arange(len(function(x).detach()), dtype=D))).sum()


def stacked(x: Tensor) -> Tensor:
    return torch.stack([x, x.flip(0), 0.5 * x])


FIRST = {
    "grad": (torch.func.grad, True, False),
    "jacrev": (torch.func.jacrev, False, False),
    "vmap": (torch.func.vmap, False, True),
    "vmap grad": (lambda f: torch.func.vmap(torch.func.grad(f)), True, True),
    "grad vmap": (lambda f: torch.func.grad(lambda x: torch.func.vmap(f)(x).sum()), True, True),
}
FORWARD = {
    "jacfwd": (torch.func.jacfwd, False, False),
    "vmap jacfwd": (lambda f: torch.func.vmap(torch.func.jacfwd(f)), False, True),
}
SECOND = {
    "hessian": (torch.func.hessian, True, False),
    "jacrev grad": (lambda f: torch.func.jacrev(torch.func.grad(f)), True, False),
    "jacrev jacfwd": (lambda f: torch.func.jacrev(torch.func.jacfwd(f)), True, False),
    "jacfwd jacfwd": (lambda f: torch.func.jacfwd(torch.func.jacfwd(f)), True, False),
    "vmap hessian": (lambda f: torch.func.vmap(torch.func.hessian(f)), True, True),
}


def assert_alike(kind: tuple, case: Case, layer: Function, truth: Function, rtol: float = 1e-9) -> None:
    transform, scalar, many = kind
    x = stacked(case.x) if many else case.x
    functions = [lambda x, f=f: flat(f(x)) for f in (layer, truth)]
    found, wanted = (transform(weighted(f) if scalar else f)(x) for f in functions)
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=rtol)
    assert wanted.norm() > 1e-4


@every_case
@pytest.mark.parametrize("kind", [*FIRST, *FORWARD])
@pytest.mark.parametrize(("last", "momentum"), [(None, 0.0), (3, 0.5)])
def test_unrolled_first_derivatives(case: Case, kind: str, last: int | None, momentum: float) -> None:
    layer = descending(case, Unrolled(last), 5, momentum)
    assert_alike((FIRST | FORWARD)[kind], case, layer, explicit(case, 5, momentum, last=last))


@pytest.mark.parametrize("case", CASES[:3], ids=repr)
@pytest.mark.parametrize("kind", SECOND)
def test_unrolled_second_derivatives(case: Case, kind: str) -> None:
    assert_alike(SECOND[kind], case, descending(case, Unrolled(), 4, 0.5), explicit(case, 4, 0.5))


@pytest.mark.parametrize("last", [None, 6])
def test_unrolled_counts_the_steps_of_each_problem_under_vmap(last: int | None) -> None:
    """A stopping test of its own for each: a vmap is a loop of eager calls."""
    layer = ArgMin(ENTROPY.objective, ENTROPY.init, solver=GradientDescent(0.2, atol=1e-3), gradient=Unrolled(last))
    many = ENTROPY.x * torch.tensor([[0.1], [0.7], [1.3]], dtype=D)
    steps, slopes = [], []
    for x in many:
        free = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(layer(free).sin().sum(), free)[0])
        assert layer.certificate is not None
        steps.append(int(layer.certificate.steps))
    assert len(set(steps)) == 3
    found = torch.func.vmap(torch.func.grad(lambda x: layer(x).sin().sum()))(many)
    torch.testing.assert_close(found, torch.stack(slopes), rtol=1e-10, atol=1e-12)


@every_case
@pytest.mark.parametrize("kind", FIRST)
def test_first_order(case: Case, kind: str) -> None:
    layer = ArgMin(case.objective, case.init, gradient=FirstOrder())
    assert_alike(FIRST[kind], case, layer, case.formula, rtol=1e-4)


@pytest.mark.parametrize("case", CASES[:3], ids=repr)
@pytest.mark.parametrize("kind", [*FIRST, *FORWARD])
def test_one_step(case: Case, kind: str) -> None:
    """An unrolled last step is differentiated as plain operations, one step is not."""
    solver = GradientDescent(case.step_size, atol=1e-9)
    layer, unrolled = (
        ArgMin(case.objective, case.init, solver=solver, gradient=rule) for rule in (OneStep(), Unrolled(last=1))
    )
    assert_alike((FIRST | FORWARD)[kind], case, layer, unrolled, rtol=1e-6)


@pytest.mark.parametrize("rule", [Unrolled(), Unrolled(last=4), OneStep(), FirstOrder()], ids=repr)
def test_vmap_over_some_inputs_shares_the_others(rule: GradientRule) -> None:
    solver = LBFGS() if isinstance(rule, FirstOrder) else GradientDescent(0.1, atol=1e-9)
    layer = ArgMin(
        lambda y, x, c: ((y - c * x) ** 2 + x.exp() * y**2).sum(), torch.zeros(3, dtype=D), solver=solver, gradient=rule
    )
    x, c = vector(4, 3), vector(3, seed=1)
    loss = lambda x, c: layer(x, c).sin().sum()  # noqa: E731  # a name for a one-liner
    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(x, c)
    for k in range(4):
        pair = [x[k].clone().requires_grad_(), c.clone().requires_grad_()]
        truth = torch.autograd.grad(loss(*pair), pair)
        for one, other in zip(found, truth, strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", [Unrolled(), Unrolled(last=4), OneStep()], ids=repr)
def test_torch_forward_mode_outside_of_torch_func(rule: GradientRule) -> None:
    layer = ArgMin(ENTROPY.objective, ENTROPY.init, solver=GradientDescent(0.2), gradient=rule)
    tangent = vector(3, seed=9)
    with torch.autograd.forward_ad.dual_level():
        found = torch.autograd.forward_ad.unpack_dual(layer(torch.autograd.forward_ad.make_dual(ENTROPY.x, tangent)))
    jacobian = torch.autograd.functional.jacobian(layer, ENTROPY.x)
    assert found.tangent is not None
    torch.testing.assert_close(found.tangent, jacobian @ tangent, check_dtype=False)


@pytest.mark.parametrize("rule", [Unrolled(), OneStep(), FirstOrder()], ids=repr)
def test_failures_raise_under_transforms_too(rule: GradientRule) -> None:
    layer = ArgMin(RIDGE.objective, RIDGE.init, solver=GradientDescent(0.03, max_steps=2), gradient=rule)
    for transform, x in ((torch.func.grad, RIDGE.x), (torch.func.vmap, RIDGE.x.expand(2, 3))):
        with pytest.raises(NotConverged):
            transform(lambda x: layer(x).sum())(x)
    loose = ArgMin(RIDGE.objective, RIDGE.init, solver=LBFGS(rtol=0.0, atol=0.5, finish=None), gradient=FirstOrder())
    with pytest.raises(NotConverged, match="relative error"):
        torch.func.vmap(torch.func.grad(lambda x: loose(x).sum()))(RIDGE.x.expand(2, 3))


def test_a_captured_tensor_is_refused_under_a_transform() -> None:
    theta = vector(3).requires_grad_()
    layer = ArgMin(lambda y, x: ((y - theta * x) ** 2).sum(), torch.zeros(3, dtype=D), gradient=FirstOrder())
    with pytest.raises(InputError, match="pass it as an input"):
        torch.func.grad(lambda x: layer(x).sum())(vector(3))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
@pytest.mark.parametrize("rule", [Unrolled(), Unrolled(last=4), OneStep(), FirstOrder()], ids=repr)
def test_a_compiled_function_gives_the_same_numbers(rule: GradientRule) -> None:
    theta = vector(3, seed=5).requires_grad_()
    solver = LBFGS() if isinstance(rule, FirstOrder) else GradientDescent(0.2, atol=1e-6)
    layer = ArgMin(
        lambda w, x: ENTROPY.objective(w, x) + 0.1 * (theta * w).sum(), ENTROPY.init, solver=solver, gradient=rule
    )
    function = lambda x: layer(2 * x).sin().sum()  # noqa: E731  # a name for a one-liner
    results = []
    for runs in (function, torch.compile(function, backend="eager")):
        x = (0.5 * ENTROPY.x).requires_grad_()
        value = runs(x)
        results.append(torch.cat([value.detach()[None], *torch.autograd.grad(value, [x, theta])]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=0)
