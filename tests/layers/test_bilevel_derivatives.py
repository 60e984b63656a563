"""The bilevel layer's derivatives: formulas, finite differences of the full solve, the theorem, wrong variants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from bigrad import SolveError
from bigrad.gradients import Implicit, WarmStart
from bigrad.layers import Bilevel
from bigrad.linear import MINRES, Direct

from .cases import D, derivatives, vector
from .two_levels import ANCHORED, PROGRAMS, TIGHT, Program, both_slopes, error, gradient_of, joined

NX, NY, NZ = 5, 6, 7
CROSS, DRIVE, TARGET = vector(NY, NX), vector(NY, NZ, seed=1), vector(NX, NZ, seed=2)
ROOT, AIM = vector(NY, NY, seed=3), vector(NY, seed=4)
DIRECTIONS = vector(3, NZ, seed=11)  # those of both_slopes
OWN = ROOT @ ROOT.T / NY + torch.eye(NY, dtype=D)


def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    coupled = (y * torch.sin(CROSS @ x)).sum() + (y * (DRIVE @ z)).sum()
    bent = (y**4).sum() / 12 + 0.3 * ((0.5 * y).cosh() * (1 + x[0] ** 2)).sum()
    return 0.5 * (y * (OWN @ y)).sum() - coupled + bent


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    own = 0.5 * (x - torch.tanh(TARGET @ z)).square().sum() + 0.1 * (x**4).sum()
    return own + 0.2 * (y - AIM).square().sum() + 0.05 * (y.sum() + z[0] * x.sum()).cos()


@pytest.fixture(scope="module")
def general() -> tuple[Bilevel, Tensor, Tensor, Tensor]:
    """A general-sum program that is no quadratic: the layer started at its answer, its input, a weight, the answer."""
    z = 0.5 * vector(NZ, seed=5)
    begin = torch.zeros(NX, dtype=D), torch.zeros(NY, dtype=D)
    answer = Bilevel(leader, follower, begin, solver=TIGHT)(z)
    return Bilevel(leader, follower, answer, solver=TIGHT), z, vector(NX + NY, seed=6), joined(answer)


def second(function: Callable[..., Tensor], of: int, then: int, *at: Tensor) -> Tensor:
    matrix: Tensor = torch.func.jacrev(torch.func.jacrev(function, argnums=of), argnums=then)(*at)
    return matrix


def theorem(x: Tensor, y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """``-(d_x L, d_y L) [[d_x F, d_y F], [d_x G, d_y G]]^-1 [d_z F, d_z G]`` with F the leader's reduced slope."""

    def reduced(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        across, own = (second(follower, 0, place, y, x, z) for place in (1, 0))
        slope_x, slope_y = torch.func.grad(leader, argnums=(0, 1))(x, y, z)
        return slope_x - slope_y @ torch.linalg.inv(own) @ across

    def conditions(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.func.grad(follower)(y, x, z)

    rows = [torch.func.jacrev(function, argnums=(0, 1, 2))(x, y, z) for function in (reduced, conditions)]
    matrix = torch.cat([torch.cat(row[:2], 1) for row in rows])
    return -weight @ torch.linalg.inv(matrix) @ torch.cat([row[2] for row in rows])


def decoupled(x: Tensor, y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """The wrong variant: each level differentiated as if the other one stood still."""
    own = torch.linalg.inv(second(leader, 0, 0, x, y, z)) @ second(leader, 0, 2, x, y, z)
    other = torch.linalg.inv(second(follower, 0, 0, y, x, z)) @ second(follower, 0, 2, y, x, z)
    return -weight @ torch.cat([own, other])


def half_coupled(x: Tensor, y: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """The wrong variant: two responses to each other, a leader who does not foresee the follower's."""
    rows = [
        [second(leader, 0, place, x, y, z) for place in (0, 1, 2)],
        [second(follower, 0, place, y, x, z) for place in (1, 0, 2)],
    ]
    matrix = torch.cat([torch.cat(row[:2], 1) for row in rows])
    return -weight @ torch.linalg.inv(matrix) @ torch.cat([row[2] for row in rows])


def test_the_gradient_is_that_of_the_full_solve(general: tuple[Bilevel, Tensor, Tensor, Tensor]) -> None:
    layer, z, weight, answer = general
    x, y = answer.split([NX, NY])
    found, truth = both_slopes(layer, z, weight)
    assert error(found, truth) < 1e-7
    exact = theorem(x, y, z, weight)
    assert error(gradient_of(layer, z, weight), exact) < 1e-12
    assert error(DIRECTIONS @ exact, truth) < 1e-7
    for wrong in (decoupled, half_coupled):
        assert error(DIRECTIONS @ wrong(x, y, z, weight), truth) > 1e-2


@pytest.mark.parametrize("linear_solver", [Direct(), MINRES()], ids=["Direct", "MINRES"])
def test_the_adjoint_system_may_be_solved_from_products_alone(
    general: tuple[Bilevel, Tensor, Tensor, Tensor], linear_solver: Direct | MINRES
) -> None:
    layer, z, weight, _ = general
    start = layer.get_buffer("_init_0"), layer.get_buffer("_init_1")
    other = Bilevel(leader, follower, start, solver=TIGHT, gradient=Implicit(linear_solver))
    assert error(gradient_of(other, z, weight), gradient_of(layer, z, weight)) < 1e-8


@pytest.mark.parametrize("program", PROGRAMS, ids=repr)
def test_three_orders_are_those_of_the_formula(program: Program) -> None:
    layer = program.layer()
    found = derivatives(layer, program.z, 3)
    truth = derivatives(program.formula, program.z, 3)
    for one, other in zip(found, truth, strict=True):
        assert error(one, other) < 1e-9


@pytest.mark.parametrize("program", PROGRAMS, ids=repr)
def test_gradcheck_and_gradgradcheck(program: Program) -> None:
    layer, warm = program.layer(), WarmStart()
    layer(program.z, warm_start=warm)

    def near(z: Tensor) -> Tensor:
        return joined(layer(z, warm_start=WarmStart(warm.solution)))

    z = program.z.clone().requires_grad_()
    assert torch.autograd.gradcheck(near, (z,), fast_mode=True)
    assert torch.autograd.gradgradcheck(near, (z,), fast_mode=True)


def test_the_gradient_reaches_everything_that_the_levels_share() -> None:
    z, scale = ANCHORED.z.clone().requires_grad_(), torch.tensor([1.0], dtype=D, requires_grad=True)
    x, y = Bilevel(
        lambda x, y, z: ANCHORED.leader(x, y, z * scale),
        lambda y, x, z: ANCHORED.follower(y, x, z * scale),
        ANCHORED.init,
    )(z)
    found = torch.autograd.grad(x.sum() + y[0], [z, scale])
    truth = torch.func.grad(lambda z: ANCHORED.formula(z)[0].sum() + ANCHORED.formula(z)[1][0])(ANCHORED.z)
    torch.testing.assert_close(found[0], truth, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], (truth @ ANCHORED.z)[None], rtol=1e-9, atol=1e-12)


def test_a_zero_sum_program_has_no_adjoint_multipliers() -> None:
    matrix = vector(3, 4, seed=7)

    def value(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return 0.5 * x @ x - 0.5 * y @ y + x @ matrix @ y + z[:3] @ x.sin() + z[3:] @ y

    z, warm = 0.5 * vector(7, seed=8), WarmStart()
    begin = torch.zeros(3, dtype=D), torch.zeros(4, dtype=D)
    layer = Bilevel(value, lambda y, x, z: -value(x, y, z), begin, solver=TIGHT)
    x, y = layer(z, warm_start=warm)
    assert warm.solution is not None
    assert warm.solution[7:].abs().max() < 1e-12
    slopes = torch.func.grad(value, argnums=(0, 1))(x, y, z)
    assert torch.cat(slopes).norm() < 1e-12
    # The derivative is that of the saddle point: the blocks of the Hessian of the value.
    rows = [[second(value, of, then, x, y, z) for then in (0, 1, 2)] for of in (0, 1)]
    matrix_at = torch.cat([torch.cat(row[:2], 1) for row in rows])
    weight = vector(7, seed=9)
    truth = -weight @ torch.linalg.inv(matrix_at) @ torch.cat([row[2] for row in rows])
    assert error(gradient_of(layer, z, weight), truth) < 1e-10


def test_a_users_own_solver_is_judged_and_differentiated() -> None:
    z = ANCHORED.z.clone().requires_grad_()
    layer = ANCHORED.layer(solver=lambda init, z: ANCHORED.formula(z))
    assert gradcheck(lambda z: torch.cat(layer(z)), z)
    assert layer.certificate is not None
    assert not layer.certificate.failed
    with pytest.raises(SolveError, match="residual"):
        ANCHORED.layer(solver=lambda init, z: tuple(part + 0.1 for part in ANCHORED.formula(z)))(z)
