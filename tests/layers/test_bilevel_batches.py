"""Batches, structures and sources of tensors: each program of a batch gives what it gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bigrad
from bigrad import Constraints, InputError, SolveError, Status
from bigrad.layers import Bilevel

from .cases import D, vector
from .two_levels import TIGHT, joined

START = torch.zeros(3, dtype=D), torch.zeros(2, dtype=D)
MIX = vector(2, 3, seed=1)
SCALE = torch.tensor([1e-3, 1.0, 1e3, 30.0], dtype=D)


def leader(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    return scale * (0.5 * (x - z).square().sum(-1) + (y - 0.5).square().sum(-1) + 0.1 * (x**4).sum(-1))


def follower(y: Tensor, x: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    return (y.cosh().sum(-1) - (y * (x.sin() @ MIX.T)).sum(-1)) / scale


ON_BOTH = {
    "leader_constraints": Constraints(lower=-0.3, upper=0.8),
    "follower_constraints": Constraints(inequality=lambda y, x, z, scale: y.square().sum(-1, keepdim=True) - 0.1),
}


@pytest.mark.parametrize("constraints", [{}, ON_BOTH], ids=["free", "bound"])
def test_a_batch_of_mixed_sizes_is_a_loop(constraints: dict[str, Constraints]) -> None:
    layer = Bilevel(leader, follower, START, solver=TIGHT, **constraints)  # type: ignore[arg-type]
    z, weight = (0.7 * vector(4, 3, seed=8)).requires_grad_(), vector(5, seed=3)
    together = joined(layer(z, SCALE))
    assert layer.certificate is not None
    assert layer.certificate.status.shape == (4,)
    (found,) = torch.autograd.grad((together * weight).sum(), z)
    for place in (1, 2):
        one = z[place].detach().requires_grad_()
        alone = joined(layer(one, SCALE[place]))
        torch.testing.assert_close(together[place].detach(), alone.detach(), rtol=1e-10, atol=1e-11)
        (truth,) = torch.autograd.grad((alone * weight).sum(), one)
        torch.testing.assert_close(found[place], truth, rtol=1e-7, atol=1e-9)


def test_two_batch_dimensions_and_a_shared_input() -> None:
    z, shared = vector(2, 3, 3, seed=4), torch.tensor(1.5, dtype=D, requires_grad=True)
    layer = Bilevel(leader, follower, START, solver=TIGHT)
    x, y = layer(z, shared)
    assert (x.shape, y.shape) == ((2, 3, 3), (2, 3, 2))
    (found,) = torch.autograd.grad(x.sum() + y.sum(), shared)
    total = torch.zeros((), dtype=D)
    for one in z.reshape(6, 3):
        alone = layer(one, shared)
        total = total + torch.autograd.grad(joined(alone).sum(), shared)[0]
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_a_start_without_a_batch_that_begins_with_the_batch_s_size(size: int) -> None:
    """As long as the batch: ``x`` has three numbers, ``y`` two."""
    z, one = vector(size, 3, seed=4), torch.ones((), dtype=D)
    layer = Bilevel(leader, follower, START, solver=TIGHT)
    x, y = layer(z, one)
    assert (x.shape, y.shape) == ((size, 3), (size, 2))
    alone = torch.stack([joined(layer(row, one)) for row in z])
    torch.testing.assert_close(joined((x, y)), alone, rtol=1e-10, atol=1e-11)
    with pytest.raises(InputError, match=r"ambiguous under torch\.func: expand it"):
        torch.func.grad(lambda z: joined(layer(z, one)).sum())(z)
    wide = tuple(part.expand(size, -1) for part in START)
    slope = torch.func.grad(lambda z: joined(layer(z, one, init=wide)).sum())(z)
    for place in range(size):
        each = torch.func.grad(lambda z: joined(layer(z, one)).sum())(z[place])
        torch.testing.assert_close(slope[place], each, rtol=1e-8, atol=1e-10)


def test_an_empty_batch() -> None:
    z = torch.zeros(0, 3, dtype=D, requires_grad=True)
    for constraints in ({}, ON_BOTH):
        layer = Bilevel(leader, follower, START, **constraints)  # type: ignore[arg-type]
        x, y = layer(z, torch.ones((), dtype=D))
        assert (x.shape, y.shape) == ((0, 3), (0, 2))
        (found,) = torch.autograd.grad(x.sum() + y.sum(), z)
        assert found.shape == z.shape


@pytest.mark.parametrize(
    "coupled",
    [
        {"leader": lambda x, y, z, s: leader(x, y, z, s) + x.mean() ** 2},
        {"follower": lambda y, x, z, s: follower(y, x, z, s) + y.sum() * x[..., 0]},
        {"leader_constraints": Constraints(inequality=lambda x, y, z, s: (x - x.mean(0)).sum(-1, keepdim=True))},
        {"follower_constraints": Constraints(equality=lambda y, x, z, s: (y - y.mean(0)).sum(-1, keepdim=True))},
    ],
    ids=["leader", "follower", "inequality", "equality"],
)
def test_programs_that_are_coupled_are_refused(coupled: dict[str, Any]) -> None:
    start = torch.full((4, 3), 0.1, dtype=D), torch.full((4, 2), 0.2, dtype=D)
    layer = Bilevel(**{"leader": leader, "follower": follower, "init": start, **coupled})
    with pytest.raises(InputError, match="depends on the variables of another"):
        layer(vector(4, 3), torch.ones((), dtype=D))


def test_one_bad_program_does_not_spoil_the_others() -> None:
    good, one = vector(4, 3, seed=2), torch.ones((), dtype=D)
    bad = good.clone()
    bad[1] = torch.nan
    layer = Bilevel(leader, follower, START, solver=TIGHT, on_failure="ignore")
    found = joined(layer(bad, one))
    assert layer.certificate is not None
    assert layer.certificate.status.tolist() == [0, int(Status.NON_FINITE), 0, 0]
    rest = [0, 2, 3]
    torch.testing.assert_close(found[rest], joined(layer(good, one))[rest], rtol=1e-10, atol=1e-11)
    layer.on_failure = "raise"
    with pytest.raises(SolveError, match="problem 1 of 4"):
        layer(bad, one)


def test_one_infeasible_program_does_not_spoil_the_others() -> None:
    upper = torch.tensor([[0.5], [-1.0], [0.2], [0.3]], dtype=D)
    box = Constraints(lower=-0.5, inequality=lambda x, y, z, s: x - upper)
    layer = Bilevel(leader, follower, START, on_failure="ignore", leader_constraints=box)
    layer(vector(4, 3, seed=2), torch.ones((), dtype=D))
    assert layer.certificate is not None
    assert layer.certificate.status.tolist() == [0, int(Status.INFEASIBLE), 0, 0]


Nested = dict[str, Any]


def nested_leader(x: Nested, y: tuple[Tensor, Tensor], z: Nested) -> Tensor:
    own = (x["move"] - z["to"]).square().sum() + (x["turn"][0] - 1).square()
    return own + (y[0].sum() - x["turn"][0]).square() + y[1].square().sum()


def nested_follower(y: tuple[Tensor, Tensor], x: Nested, z: Nested) -> Tensor:
    return (y[0] - x["move"].outer(x["move"])).square().sum() + (y[1] - z["by"] * x["turn"][0]).square().sum()


def test_nested_variables_and_inputs() -> None:
    init = (
        {"move": torch.ones(2, dtype=D), "turn": (torch.zeros((), dtype=D),)},
        (torch.zeros(2, 2, dtype=D), torch.zeros(3, dtype=D)),
    )
    z = {"to": vector(2).requires_grad_(), "by": vector(3, seed=1).requires_grad_(), "name": "kept"}

    def flat_leader(x: Tensor, y: Tensor, to: Tensor, by: Tensor) -> Tensor:
        return nested_leader({"move": x[:2], "turn": (x[2],)}, (y[:4].reshape(2, 2), y[4:]), {"to": to, "by": by})

    def flat_follower(y: Tensor, x: Tensor, to: Tensor, by: Tensor) -> Tensor:
        return nested_follower((y[:4].reshape(2, 2), y[4:]), {"move": x[:2], "turn": (x[2],)}, {"to": to, "by": by})

    x, y = Bilevel(nested_leader, nested_follower, init, solver=TIGHT)(z)
    assert x["move"].shape == (2,)
    assert x["turn"][0].shape == ()
    assert (y[0].shape, y[1].shape) == ((2, 2), (3,))
    begin = torch.tensor([1.0, 1.0, 0.0], dtype=D), torch.zeros(7, dtype=D)
    flat_x, flat_y = Bilevel(flat_leader, flat_follower, begin, solver=TIGHT)(z["to"], z["by"])
    torch.testing.assert_close(torch.cat([x["move"], x["turn"][0][None]]), flat_x, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([y[0].reshape(-1), y[1]]), flat_y, rtol=1e-10, atol=1e-12)
    leaves = [z["to"], z["by"]]
    found = torch.autograd.grad(x["move"].sum() + y[1].sin().sum(), leaves)
    truth = torch.autograd.grad(flat_x[:2].sum() + flat_y[4:].sin().sum(), leaves)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)


def test_a_start_that_depends_on_the_inputs() -> None:
    z, one = vector(4, 3, seed=5), torch.ones((), dtype=D)
    by_call = Bilevel(leader, follower, lambda z, scale: (z, z[..., :2]), solver=TIGHT)
    fixed = Bilevel(leader, follower, START, solver=TIGHT)
    torch.testing.assert_close(by_call(z, one), fixed(z, one), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(fixed(z, one, init=(z, z[..., :2])), fixed(z, one), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("constraints", [{}, ON_BOTH], ids=["free", "bound"])
def test_single_precision(constraints: dict[str, Constraints]) -> None:
    results = []
    for dtype in (D, torch.float32):
        mix, z, scale = (
            MIX.to(dtype),
            (0.7 * vector(4, 3, seed=8)).to(dtype).requires_grad_(),
            torch.ones((), dtype=dtype),
        )

        def level(y: Tensor, x: Tensor, z: Tensor, scale: Tensor, mix: Tensor = mix) -> Tensor:
            return y.cosh().sum(-1) - (y * (x.sin() @ mix.T)).sum(-1)

        start = tuple(part.to(dtype) for part in START)
        answer = joined(Bilevel(leader, level, start, **constraints)(z, scale))  # type: ignore[arg-type]
        assert answer.dtype == dtype
        (gradient,) = torch.autograd.grad((answer * vector(5, seed=3).to(dtype)).sum(), z)
        results.append((answer.detach().double(), gradient.double()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("where", ["leader", "follower", "inequality", "bound"])
def test_captured_tensors_receive_gradients_and_are_refused_under_a_transform(where: str) -> None:
    theta = torch.tensor([0.05, 0.1], dtype=D, requires_grad=True)
    levels: dict[str, Callable[..., Tensor]] = {"leader": leader, "follower": follower}
    settings: dict[str, Any] = {}
    if where == "leader":
        levels["leader"] = lambda x, y, z, s: leader(x, y, z, s) + (theta * y).sum(-1)
    elif where == "follower":
        levels["follower"] = lambda y, x, z, s: follower(y, x, z, s) + (theta * y).sum(-1)
    elif where == "inequality":
        settings["follower_constraints"] = Constraints(inequality=lambda y, x, z, s: y - theta)
    else:
        settings["follower_constraints"] = Constraints(upper=theta)
    z, one = vector(3, seed=6).abs(), torch.ones((), dtype=D)

    def solve() -> Tensor:
        answer = bigrad.bilevel(levels["leader"], levels["follower"], START, z, one, solver=TIGHT, **settings)
        return joined(answer).sin().sum()

    (found,) = torch.autograd.grad(solve(), theta)
    assert found.abs().sum() > 1e-3
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            theta += step
        values.append(solve().detach())
    torch.testing.assert_close(found.sum(), (values[0] - values[1]) / 2e-5, rtol=1e-6, atol=1e-7)
    layer = Bilevel(levels["leader"], levels["follower"], START, **settings)
    with pytest.raises(InputError, match="is not among its arguments"):
        torch.func.grad(lambda z: joined(layer(z, one)).sum())(z)
