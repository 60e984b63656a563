"""Backward passes on a graph that is retained: what they share, and that they share no more than that."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import Tensor

import bigrad
from bigrad import gradients, linear

D = torch.float64


class Counted:
    """A ridge with a quartic term that counts how often it is asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return (y**4).sum() / 4 + (x * y).square().sum() / 2 - (x.sin() * y).sum()


def solved(objective: Counted) -> tuple[Tensor, Tensor]:
    x = torch.linspace(1, 2, 5, dtype=D, requires_grad=True)
    rule = gradients.Implicit(linear.Direct())
    return x, bigrad.argmin(objective, torch.zeros(5, dtype=D), x, gradient=rule)


def exact(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Entry by entry, ``(3 y^2 + x^2) dy = (cos x - 2 x y) dx``."""
    return weight * (x.cos() - 2 * x * y) / (3 * y**2 + x**2)


def test_every_pass_has_its_own_cotangent() -> None:
    x, y = solved(Counted())
    for weight in torch.eye(5, dtype=D):
        (found,) = torch.autograd.grad(y, x, weight, retain_graph=True)
        torch.testing.assert_close(found, exact(x, y, weight).detach(), rtol=1e-9, atol=1e-12)


def test_from_the_third_pass_on_one_look_at_the_objective_is_spared() -> None:
    """The first pass cannot know that the graph is retained, and keeps nothing."""
    objective = Counted()
    x, y = solved(objective)
    counts = []
    for _ in range(4):
        before = objective.calls
        torch.autograd.grad(y.sum(), x, retain_graph=True)
        counts.append(objective.calls - before)
    assert counts[2:] == [counts[1] - 1] * 2


def test_second_derivatives_after_plain_passes() -> None:
    x, y = solved(Counted())
    weight = torch.ones(5, dtype=D)
    for _ in range(3):
        torch.autograd.grad(y, x, weight, retain_graph=True)
    (slope,) = torch.autograd.grad(y, x, weight, create_graph=True)
    (found,) = torch.autograd.grad(slope.sum(), x)
    free = x.detach().requires_grad_()
    at = y.detach()
    for _ in range(2):  # Newton's steps, differentiable: each doubles the order of the derivatives that are right
        at = at - (at**3 + free**2 * at - free.sin()) / (3 * at**2 + free**2)
    (first,) = torch.autograd.grad(at.sum(), free, create_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(first.sum(), free)[0], rtol=1e-8, atol=1e-10)


def test_what_is_kept_goes_with_the_graph() -> None:
    x, y = solved(Counted())
    for _ in range(3):
        torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert y.grad_fn is not None
    node = weakref.ref(y.grad_fn.next_functions[0][0])
    gc.collect()
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()
