"""Constraints on either level: closed forms, finite differences, kinks, and what cannot be met."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import Constraints, InputError, SolveError, Status, errors
from bigrad.gradients import WarmStart
from bigrad.layers import Bilevel

from .cases import D, vector
from .two_levels import TIED, TIGHT, both_slopes, error, gradient_of, joined, tied_formula, weights

ZEROS = torch.zeros(3, dtype=D), torch.zeros(3, dtype=D)


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * ((x - z).square().sum(-1) + (y - 1).square().sum(-1)) + 0.1 * (x**4).sum(-1)


def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return (0.6 * y.cosh() - y * x.sin()).sum(-1) + 0.2 * (y.sum(-1) - z.sum(-1)).square()


def test_equalities_that_depend_on_the_input_in_every_spelling() -> None:
    z = vector(3, seed=3) * 0.5
    x, y = TIED.formula(z)
    one = torch.ones(1, 3, dtype=D)
    pairs = {
        "leader_constraints": Constraints(equality=(one, z[1:2])),
        "follower_constraints": Constraints(equality=(weights(z)[None], z[:1] ** 2)),
    }
    closures = {
        "leader_constraints": Constraints(equality=lambda x, y, _: (x.sum() - z[1])[None]),
        "follower_constraints": Constraints(equality=lambda y, x, _: ((weights(z) * y).sum() - z[0] ** 2)[None]),
    }
    for constraints in (TIED.constraints, pairs, closures):
        found = TIED.layer(**constraints)(z)
        torch.testing.assert_close(found, (x, y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spelling", ["functions", "closures", "pairs"])
def test_the_input_moves_the_answer_through_the_equalities_too(spelling: str) -> None:
    z, weight = (vector(3, seed=3) * 0.5).requires_grad_(), vector(6, seed=4)
    truth = torch.func.grad(lambda z: weight @ joined(tied_formula(z)))(z.detach())
    if spelling == "functions":
        layer = TIED.layer()
    elif spelling == "closures":
        layer = TIED.layer(
            leader_constraints=Constraints(equality=lambda x, y, _: (x.sum() - z[1])[None]),
            follower_constraints=Constraints(equality=lambda y, x, _: ((weights(z) * y).sum() - z[0] ** 2)[None]),
        )
    else:
        layer = TIED.layer(
            leader_constraints=Constraints(equality=(torch.ones(1, 3, dtype=D), z[1:2])),
            follower_constraints=Constraints(equality=(weights(z)[None], z[:1] ** 2)),
        )
    (found,) = torch.autograd.grad(weight @ joined(layer(z)), z)
    assert error(found, truth) < 1e-11
    # The wrong variant: the constraints are taken for constants.
    held = TIED.layer(
        leader_constraints=Constraints(equality=(torch.ones(1, 3, dtype=D), z[1:2].detach())),
        follower_constraints=Constraints(equality=(weights(z)[None].detach(), z[:1].detach() ** 2)),
    )
    (wrong,) = torch.autograd.grad(weight @ joined(held(z)), z)
    assert error(wrong, truth) > 1e-2


def test_a_pair_may_be_batched() -> None:
    z = vector(4, 3, seed=5) * 0.5
    sides = (0.3 * z[:, :1].clone()).requires_grad_()
    matrices = (torch.ones(4, 1, 3, dtype=D) + 0.2 * vector(4, 1, 3)).requires_grad_()
    constraints = Constraints(equality=(matrices, sides))
    x, y = Bilevel(leader, follower, ZEROS, solver=TIGHT, follower_constraints=constraints)(z)
    torch.testing.assert_close((matrices @ y.unsqueeze(-1)).squeeze(-1), sides, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad((y * x.cos()).sum(), [matrices, sides])
    for place in range(4):
        matrix, side = (part[place].detach().requires_grad_() for part in (matrices, sides))
        alone = Constraints(equality=(matrix, side))
        x, y = Bilevel(leader, follower, ZEROS, solver=TIGHT, follower_constraints=alone)(z[place])
        for many, one in zip(grads, torch.autograd.grad((y * x.cos()).sum(), [matrix, side]), strict=True):
            torch.testing.assert_close(many[place], one, rtol=1e-9, atol=1e-11)


def test_an_equality_of_the_leader_may_tie_it_to_the_follower() -> None:
    z, weight = torch.tensor([0.3, 0.8, -0.4], dtype=D), vector(6, seed=6)
    tie = Constraints(equality=lambda x, y, z: (x.sum() + y.sum() - z.prod())[None])
    layer = Bilevel(leader, follower, ZEROS, solver=TIGHT, leader_constraints=tie)
    x, y = layer(z)
    torch.testing.assert_close(x.sum() + y.sum(), z.prod(), rtol=0, atol=1e-12)
    assert error(*both_slopes(layer, z, weight)) < 1e-7


BALL = Constraints(inequality=lambda own, other, z: own.square().sum(-1, keepdim=True) - 0.2 - 0.1 * z[..., :1] ** 2)
MET = Constraints(inequality=lambda own, other, z: own.square().sum(-1, keepdim=True) - 100)
BOX = Constraints(lower=-0.1, upper=0.2)
ROOM = Constraints(lower=-0.15, upper=0.35)
BOTH = Constraints(
    equality=lambda own, other, z: own.sum(-1, keepdim=True) - 0.1 * z[..., :1],
    inequality=lambda own, other, z: own[..., :2] - 0.3 * z[..., :2].cos() - 0.1 * other[..., :2],
    lower=-0.5,
)


@pytest.mark.parametrize(
    ("on_leader", "on_follower"),
    [(None, BALL), (BALL, BALL), (None, BOX), (ROOM, BOX), (BOTH, BOX)],
    ids=["-/ball", "ball/ball", "-/box", "box/box", "mixed/box"],
)
def test_the_gradient_under_inequalities(on_leader: Constraints | None, on_follower: Constraints | None) -> None:
    z, weight = torch.tensor([0.9, 0.1, -0.7], dtype=D), vector(6, seed=7)
    layer = Bilevel(
        leader, follower, ZEROS, solver=TIGHT, leader_constraints=on_leader, follower_constraints=on_follower
    )
    found, truth = both_slopes(layer, z, weight)
    assert layer.certificate is not None
    assert layer.certificate.feasibility is not None
    assert layer.certificate.margin is not None
    assert layer.certificate.feasibility < 1e-12
    assert layer.certificate.margin > 1e-4
    assert error(found, truth) < 1e-7


def test_constraints_that_are_met_change_nothing() -> None:
    z, weight = torch.tensor([0.9, 0.1, -0.7], dtype=D), vector(6, seed=7)
    free = Bilevel(leader, follower, ZEROS, solver=TIGHT)
    bound = Bilevel(leader, follower, ZEROS, solver=TIGHT, leader_constraints=MET, follower_constraints=MET)
    torch.testing.assert_close(bound(z), free(z), rtol=1e-11, atol=1e-12)
    assert error(gradient_of(bound, z, weight), gradient_of(free, z, weight)) < 1e-10


def test_bounds_that_need_gradients() -> None:
    z = torch.tensor([0.9, 0.1, -0.7], dtype=D)
    lower, upper = (torch.full((3,), value, dtype=D, requires_grad=True) for value in (-0.15, 0.1))
    layer = Bilevel(leader, follower, ZEROS, solver=TIGHT, follower_constraints=Constraints(lower=lower, upper=upper))
    _, y = layer(z)
    low, high = (y - lower).abs() < 1e-9, (y - upper).abs() < 1e-9
    assert low.any()
    assert high.any()
    grads = torch.autograd.grad(y.sum(), [lower, upper])
    for grad, active in zip(grads, (low, high), strict=True):
        assert (grad[active] != 0).all()
        assert (grad[~active] == 0).all()
    # The leader pays for a follower at its bound in its own coordinate only.
    assert (torch.cat(grads) <= 1 + 1e-9).all()


def clipped(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (x - 1).square().sum() + 0.1 * (y - z).square().sum()


def tracking(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return (y - x).square().sum()


@pytest.mark.parametrize("gap", [0.5, 1e-1, 1e-3, 1e-6, -1e-6, -1e-3, -0.5])
def test_near_a_kink_the_answer_is_exact(gap: float) -> None:
    """The bound is ``gap`` above the answer without it: slack on one side, active or a kink on the other."""
    one, free = torch.zeros(1, dtype=D), (1 + 0.1 * 2) / 1.1
    bound = torch.tensor([free + gap], dtype=D, requires_grad=True)
    layer = Bilevel(clipped, tracking, (one, one), follower_constraints=Constraints(upper=bound), solver=TIGHT)
    x, y = layer(torch.tensor([2.0], dtype=D))
    # Below the bound the leader stops where the follower stops to follow, and at 1 where that would be too early.
    wanted, slope = (free, 0.0) if gap > 0 else (free + gap, 1.0) if free + gap > 1 else (1.0, 0.0)
    torch.testing.assert_close(
        joined((x, y)).detach(), torch.tensor([wanted, min(wanted, free + gap)], dtype=D), rtol=1e-12, atol=0
    )
    (found,) = torch.autograd.grad(x.sum(), bound)
    assert abs(float(found) - slope) < 1e-9
    assert layer.certificate is not None
    assert layer.certificate.margin is not None
    if 0 < abs(gap) < 0.01:
        assert 0.1 * abs(gap) < layer.certificate.margin < 10 * abs(gap)


def test_a_weakly_active_constraint_is_told_by_the_margin() -> None:
    one = torch.zeros(1, dtype=D)
    free = Constraints(upper=1.0)
    for constraints in ({"leader_constraints": free}, {"follower_constraints": free}):
        layer = Bilevel(lambda x, y, z: (x - z).square().sum() + 0 * y.sum(), tracking, (one, one), **constraints)
        x, y = layer(torch.ones(1, dtype=D))
        torch.testing.assert_close(joined((x, y)), torch.ones(2, dtype=D))
        assert layer.certificate is not None
        assert layer.certificate.margin is not None
        assert layer.certificate.margin < 1e-6


def test_a_limit_price_is_a_kink() -> None:
    """The leader sells just enough to keep a follower of high cost out of the market."""
    one = torch.ones(1, dtype=D)
    cost = torch.tensor([5.0, 45.0], dtype=D, requires_grad=True)

    def profit(own: Tensor, other: Tensor, cost: Tensor) -> Tensor:
        return ((100 - own - other - cost) * own).sum()

    layer = Bilevel(
        lambda x, y, c: -profit(x, y, c[0]),
        lambda y, x, c: -profit(y, x, c[1]),
        (one, one),
        follower_constraints=Constraints(lower=0.0),
        solver=TIGHT,
    )
    x, y = layer(cost)
    # Entry pays while 100 - x > cost: at x = 55 the leader's slope is 100 - 5 - 110 < 0 outside, and inside
    # (100 - 5 - x - (55 - x) / 2 - x / 2) = 67.5 - x > 0.
    torch.testing.assert_close(joined((x, y)).detach(), torch.tensor([55.0, 0.0], dtype=D), rtol=1e-12, atol=1e-12)
    assert layer.certificate is not None
    assert layer.certificate.margin is not None
    assert layer.certificate.margin > 1
    (found,) = torch.autograd.grad(x.sum(), cost)
    torch.testing.assert_close(found, torch.tensor([0.0, -1.0], dtype=D), rtol=1e-12, atol=1e-12)


CONTRADICTION = Constraints(lower=1.0, upper=-1.0)


@pytest.mark.parametrize(
    "constraints",
    [
        {"leader_constraints": CONTRADICTION},
        {"follower_constraints": CONTRADICTION},
        {"follower_constraints": Constraints(inequality=lambda y, x, z: (y.square().sum() + 1)[None])},
        {"leader_constraints": Constraints(equality=(torch.zeros(1, 3, dtype=D), torch.ones(1, dtype=D)))},
    ],
    ids=["leader", "follower", "nonlinear", "equality"],
)
def test_what_cannot_be_met_is_infeasible(constraints: dict[str, Constraints]) -> None:
    layer = Bilevel(leader, follower, ZEROS, **constraints)
    with pytest.raises(errors.Infeasible, match=r"bilevel program has no feasible point.*Remedy") as caught:
        layer(torch.ones(3, dtype=D))
    assert int(caught.value.certificate.status) == Status.INFEASIBLE


def test_redundant_constraints_have_no_unique_multipliers() -> None:
    twice = Constraints(equality=(torch.ones(2, 3, dtype=D), torch.ones(2, dtype=D)))
    with pytest.raises(SolveError):
        Bilevel(leader, follower, ZEROS, follower_constraints=twice)(torch.ones(3, dtype=D))


@pytest.mark.parametrize("start", [5.0, -0.1])
def test_no_start_has_to_be_feasible(start: float) -> None:
    z = torch.tensor([0.9, 0.1, -0.7], dtype=D)
    begin = torch.full((3,), start, dtype=D)
    layers = [
        Bilevel(leader, follower, init, leader_constraints=ROOM, follower_constraints=BOX)
        for init in ((begin, begin), ZEROS)
    ]
    torch.testing.assert_close(layers[0](z), layers[1](z), rtol=1e-9, atol=1e-9)


def test_a_warm_start_takes_fewer_steps_to_the_same_answer() -> None:
    z, warm = torch.tensor([0.9, 0.1, -0.7], dtype=D), WarmStart()
    layer = Bilevel(leader, follower, ZEROS, leader_constraints=ROOM, follower_constraints=BALL)
    first = layer(z, warm_start=warm)
    assert layer.certificate is not None
    cold = layer.certificate.steps
    again = layer(z, warm_start=warm)
    assert layer.certificate.steps == 0
    torch.testing.assert_close(again, first, rtol=1e-11, atol=1e-12)
    layer(z + 1e-3, warm_start=warm)
    assert layer.certificate.steps < 0.3 * cold
    # Far from where it was, another set of constraints is active: the warm start must not mislead.
    far = layer(-2 * z, warm_start=warm)
    torch.testing.assert_close(far, layer(-2 * z), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constraints(equality=3),  # type: ignore[arg-type]
        lambda: Constraints(equality=(torch.ones(1, 3),)),  # type: ignore[arg-type]
        lambda: Constraints(inequality=torch.ones(3)),  # type: ignore[arg-type]
        lambda: Bilevel(leader, follower, ZEROS, leader_constraints=BOX.lower),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_constraint_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()
