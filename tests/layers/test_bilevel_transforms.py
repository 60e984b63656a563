"""The bilevel layer under torch.func transforms and torch.compile: the formula's derivatives, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import Constraints, InputError, SolveError, UnsupportedError
from bigrad.gradients import WarmStart
from bigrad.layers import Bilevel
from bigrad.solvers import Stackelberg

from .cases import D, vector
from .two_levels import ANCHORED, CUT_OFF, PROGRAMS, TIGHT, Program, joined

Function = Callable[[Tensor], Tensor]

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=repr)


def pair(program: Program) -> tuple[Function, Function]:
    """The layer and the formula as functions of z, both returning one vector."""
    layer = program.layer(init=program.formula(program.z))
    return lambda z: joined(layer(z)), lambda z: joined(program.formula(z))


def weighted(function: Function) -> Function:
    """A number that depends on every entry in its own way."""

    def number(z: Tensor) -> Tensor:
        value = function(z)
        return (value * torch.cos(torch.arange(value.shape[-1], dtype=D))).sum()

    return number


def assert_alike(
    transform: Callable[[Function], Function], program: Program, *, scalar: bool, z: Tensor | None = None
) -> None:
    found, truth = (transform(weighted(f) if scalar else f)(program.z if z is None else z) for f in pair(program))
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-9)


@every_program
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd], ids=lambda f: f.__name__)
@forward_mode
def test_first_derivatives(transform: Callable[[Function], Function], program: Program) -> None:
    assert_alike(transform, program, scalar=transform is torch.func.grad)


@every_program
def test_vmap_and_vmap_of_grad(program: Program) -> None:
    many = program.z * torch.tensor([[1.0], [0.95]], dtype=D)
    assert_alike(torch.func.vmap, program, scalar=False, z=many)
    assert_alike(lambda f: torch.func.vmap(torch.func.grad(f)), program, scalar=True, z=many)


@forward_mode
@every_program
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: torch.func.grad(lambda z: torch.func.grad(f)(z).sin().sum()),
        torch.func.hessian,
        lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    ],
    ids=["grad grad", "hessian", "jacrev jacfwd"],
)
def test_second_derivatives(transform: Callable[[Function], Function], program: Program) -> None:
    assert_alike(transform, program, scalar=True)


@forward_mode
def test_deeper_transforms() -> None:
    assert_alike(lambda f: torch.func.jacrev(torch.func.hessian(f)), ANCHORED, scalar=True)
    many = ANCHORED.z.expand(2, 3) * torch.tensor([[1.0], [0.8]], dtype=D)
    assert_alike(lambda f: torch.func.vmap(torch.func.hessian(f)), ANCHORED, scalar=True, z=many)
    assert_alike(
        lambda f: torch.func.vmap(torch.func.vmap(torch.func.grad(f))), ANCHORED, scalar=True, z=many.expand(2, 2, 3)
    )
    tangent = vector(3, seed=9)
    assert_alike(lambda f: lambda z: torch.func.jvp(torch.func.grad(f), (z,), (tangent,))[1], ANCHORED, scalar=True)


@forward_mode
def test_forward_over_forward_is_refused() -> None:
    layer, _ = pair(ANCHORED)
    with pytest.raises(UnsupportedError, match="reverse mode"):
        torch.func.jacfwd(torch.func.jacfwd(layer))(ANCHORED.z)


def test_vmap_over_some_inputs_shares_the_others() -> None:
    begin = torch.zeros(2, dtype=D), torch.zeros(2, dtype=D)
    cap = Constraints(inequality=lambda y, x, z, c: y - c)
    layer = Bilevel(
        lambda x, y, z, c: (x - z).square().sum(-1) + 0.5 * y.square().sum(-1),
        lambda y, x, z, c: (y - x).square().sum(-1),
        begin,
        follower_constraints=cap,
        solver=TIGHT,
    )
    z, c = torch.tensor([[0.3, 0.9], [1.5, -0.6], [-0.2, 0.1]], dtype=D), torch.tensor([0.4, 0.5], dtype=D)
    # The leader's free wish is x = z / 1.5, and past the cap x = z.
    x, y = torch.func.vmap(layer, in_dims=(0, None))(z, c)
    free = z / 1.5
    torch.testing.assert_close(x, torch.where(free < c, free, z), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(y, torch.minimum(x, c), rtol=1e-10, atol=1e-11)
    slope = torch.func.vmap(torch.func.grad(lambda z, c: layer(z, c)[1].sum(), argnums=(0, 1)), in_dims=(0, None))(z, c)
    torch.testing.assert_close(slope[0], (free < c).to(D) / 1.5, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(slope[1], (free >= c).to(D), rtol=1e-9, atol=1e-10)


def test_no_certificate_and_no_warm_start_under_a_transform_and_failures_still_raise() -> None:
    layer = ANCHORED.layer()
    layer(ANCHORED.z)
    assert layer.certificate is not None
    torch.func.grad(lambda z: joined(layer(z)).sum())(ANCHORED.z)
    assert layer.certificate is None
    with pytest.raises(UnsupportedError, match="warm start"):
        torch.func.grad(lambda z: joined(layer(z, warm_start=WarmStart())).sum())(ANCHORED.z)
    strict = CUT_OFF.layer(solver=Stackelberg(max_steps=1))
    with pytest.raises(SolveError):
        torch.func.grad(lambda z: joined(strict(z)).sum())(CUT_OFF.z)
    with pytest.raises(SolveError):
        torch.func.vmap(strict)(CUT_OFF.z.expand(2, 4))


def test_a_coupled_batch_is_refused_under_a_transform_too() -> None:
    start = torch.full((4, 2), 0.1, dtype=D), torch.full((4, 2), 0.2, dtype=D)
    layer = Bilevel(
        lambda x, y, z: (x - z).square().sum(-1) + y.square().sum(-1),
        lambda y, x, z: (y - x - y.mean(0)).square().sum(-1) + y.square().sum(-1),
        start,
    )
    for _ in range(2):
        with pytest.raises(InputError, match="depends on the variables of another"):
            torch.func.grad(lambda z: joined(layer(z)).sum())(vector(4, 2))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_a_compiled_function_gives_the_same_numbers() -> None:
    layer = ANCHORED.layer()
    function = lambda z: joined(layer(2 * z)).sin().sum()  # noqa: E731  # a name for a one-liner
    results = []
    for runs in (function, torch.compile(function, backend="eager")):
        z = (0.5 * ANCHORED.z).requires_grad_()
        value = runs(z)
        results.append(torch.cat([value.detach()[None], *torch.autograd.grad(value, z)]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=0)
