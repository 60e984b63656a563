"""A leader over a cone program, and two cone programs that answer each other."""

from __future__ import annotations

import copy
from typing import Any

import cvxpy
import pytest
import torch
from torch import Tensor

from bigrad import Constraints, InputError, SolveError, UnsupportedError
from bigrad.gradients import FirstOrder, Implicit
from bigrad.layers import Bilevel, ConvexProgram

from .cases import D

WEIGHT = torch.tensor([1.0, 2.0, 3.0], dtype=D)
WISH, HABIT = torch.tensor([0.5, 0.4, 0.5], dtype=D), torch.tensor([1.0, -2.0, 1.0], dtype=D)
Z = torch.tensor([0.1, -0.2, 0.3], dtype=D)


def follower() -> ConvexProgram:
    """The point of a ball's corner nearest to x, pulled by z."""
    x, z, y = cvxpy.Parameter(3), cvxpy.Parameter(3), cvxpy.Variable(3)
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(y - x) + z @ y), [y >= 0, cvxpy.norm(y) <= 0.7])
    return ConvexProgram(problem, [x, z], [y])


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * ((y - WISH) ** 2).sum() + 0.05 * ((x - HABIT) ** 2).sum() + 0.1 * (x * z).sum()


def opponent() -> ConvexProgram:
    """A point of a small ball near a part of y, and z."""
    y, z, x = cvxpy.Parameter(3), cvxpy.Parameter(3), cvxpy.Variable(3)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - 0.3 * y - z)), [cvxpy.norm(x) <= 0.2])
    return ConvexProgram(problem, [y, z], [x])


def number(layer: Bilevel, z: Tensor) -> Tensor:
    x, y = layer(z)
    return (WEIGHT * (x + y)).sum()


def differences(layer: Bilevel, z: Tensor, step: float = 1e-4) -> Tensor:
    units = step * torch.eye(3, dtype=D)
    return torch.stack([(number(layer, z + e) - number(layer, z - e)) / (2 * step) for e in units])


START = (torch.ones(3, dtype=D), None)
PAIRS: dict[str, Any] = {"anticipating": leader, "answering": None}


def layer_of(kind: str) -> Bilevel:
    return Bilevel(PAIRS[kind] or opponent(), follower(), init=START)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_derivative_is_that_of_both_answers(kind: str) -> None:
    layer, z = layer_of(kind), Z.clone().requires_grad_()
    (found,) = torch.autograd.grad(number(layer, z), z)
    certificate = layer.certificate
    assert certificate is not None
    assert certificate.adjoint is not None
    torch.testing.assert_close(found, differences(layer, Z), rtol=1e-4, atol=1e-5)


def test_the_leader_anticipates() -> None:
    layer = layer_of("anticipating")
    x, y = layer(Z)
    torch.testing.assert_close(y, follower()(x, Z)[0])
    best = leader(x, y, Z)
    for shift in 1e-2 * torch.eye(3, dtype=D):
        for near in (x + shift, x - shift):
            assert leader(near, follower()(near, Z)[0], Z) > best
    # a leader who takes the follower's answer as given would move: that is another point
    free = x.detach().requires_grad_()
    (alone,) = torch.autograd.grad(leader(free, y.detach(), Z), free)
    assert alone.norm() > 1e-2


def test_neither_of_two_programs_moves() -> None:
    x, y = layer_of("answering")(Z)
    torch.testing.assert_close(opponent()(y, Z)[0], x, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(follower()(x, Z)[0], y, rtol=1e-7, atol=1e-8)


def test_the_answer_of_each_alone_has_another_derivative() -> None:
    layer, z = layer_of("answering"), Z.clone().requires_grad_()
    (found,) = torch.autograd.grad(number(layer, z), z)
    x, y = (part.detach() for part in layer(Z))
    decoupled = (WEIGHT * (opponent()(y, z)[0] + follower()(x, z)[0])).sum()
    (wrong,) = torch.autograd.grad(decoupled, z)
    assert (wrong - found).norm() > 1e-2 * found.norm()


@pytest.mark.parametrize("kind", PAIRS)
def test_what_it_cannot_do_raises(kind: str) -> None:
    layer, z = layer_of(kind), Z.clone().requires_grad_()

    def twice() -> None:
        (slope,) = torch.autograd.grad(number(layer, z), z, create_graph=True)
        slope.sum().backward()

    with pytest.raises(UnsupportedError):
        twice()
    with pytest.raises(UnsupportedError):
        torch.func.grad(lambda z: number(layer, z))(Z)


def test_bad_input_and_failure_are_named() -> None:
    with pytest.raises(InputError, match="constraints"):
        Bilevel(leader, follower(), init=START, leader_constraints=Constraints(lower=0.0))
    with pytest.raises(InputError, match="pair"):
        Bilevel(leader, follower(), init=torch.ones(3, dtype=D))
    # no second derivative: implicit differentiation of the leader's minimum is refused
    z = Z.clone().requires_grad_()
    with pytest.raises((UnsupportedError, SolveError)):
        number(Bilevel(leader, follower(), init=START, gradient=Implicit()), z).backward()


def test_copies_and_settings() -> None:
    layer = Bilevel(leader, follower(), init=START, gradient=FirstOrder(1e-3))
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(Z)[0], layer(Z)[0])
    assert "ConvexProgram" in repr(layer)
