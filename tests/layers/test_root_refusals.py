"""Roots and fixed points that cannot be solved or differentiated, and bad input: each ends in a typed error."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import bigrad
from bigrad import InputError, SolveError, Status, UnsupportedError
from bigrad.gradients import FirstOrder
from bigrad.layers import FixedPoint, Root
from bigrad.solvers import LBFGS, Anderson, FixedPointIteration, Newton

from .cases import D, vector
from .test_root import contraction


@pytest.mark.parametrize(
    ("layer", "status"),
    [
        (Root(lambda y, x: y**2 + 1 + x, torch.ones(1, dtype=D)), None),
        (FixedPoint(lambda y, x: 2 * y + x, torch.ones(1, dtype=D), solver=FixedPointIteration()), None),
        (Root(lambda y, x: y * torch.nan + x, torch.ones(1, dtype=D)), Status.NON_FINITE),
        (Root(lambda y, x: y + y**3 - x, torch.zeros(1, dtype=D), solver=Newton(max_steps=0)), Status.MAX_STEPS),
        (FixedPoint(contraction, torch.zeros(3, dtype=D), solver=Anderson(max_steps=1)), Status.MAX_STEPS),
    ],
    ids=["no root", "no contraction", "NaN", "no steps", "few steps"],
)
def test_a_failed_solve_is_typed(layer: Any, status: Status | None) -> None:
    x = torch.full((3 if isinstance(layer, FixedPoint) and layer.mapping is contraction else 1,), 0.5, dtype=D)
    with pytest.raises(SolveError, match="wanted") as caught:
        layer(x)
    if status is not None:
        assert caught.value.certificate.status.max() == status
    ignoring = copy.deepcopy(layer)
    ignoring.on_failure = "ignore"
    ignoring(x)
    assert ignoring.certificate is not None
    assert bool(ignoring.certificate.failed.any())


def test_a_non_contractive_map_is_solved_by_newton() -> None:
    layer = FixedPoint(lambda y, x: 2 * y + x, torch.ones(1, dtype=D), solver=Newton())
    x = vector(1).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, -x)
    torch.testing.assert_close(torch.autograd.grad(y, x)[0], torch.tensor([-1.0], dtype=D))


def test_a_singular_root_raises_in_backward() -> None:
    x = torch.zeros(1, dtype=D, requires_grad=True)
    y = Root(lambda y, x: y**3 - x, torch.zeros(1, dtype=D))(x)
    with pytest.raises(SolveError):
        y.sum().backward()


@pytest.mark.parametrize(
    ("residual", "init", "batch_dims", "message"),
    [
        (lambda y, x: y.sum() - x, torch.zeros(3, dtype=D), 0, "shapes"),
        (lambda y, x: {"a": y - x}, torch.zeros(1, dtype=D), 0, "structure"),
        (lambda y, x: (y - x).float(), torch.zeros(1, dtype=D), 0, "float32"),
        (lambda y, x: y - x, torch.zeros(1, dtype=torch.complex128), 0, "real"),
        (lambda y, x: y - x.double(), torch.zeros(1, dtype=torch.bfloat16), 0, "dtype"),
        (lambda y, x: y - x, torch.zeros(1, dtype=D), -1, "batch_dims"),
        (lambda y, x: y - x, torch.zeros(1, dtype=D), 2, "batch dimensions"),
        (lambda y, x: x + 0 * y.detach(), torch.zeros(1, dtype=D), 0, "depend on y"),
        (3.0, torch.zeros(1, dtype=D), 0, "callable"),
    ],
)
def test_bad_input_is_named(residual: Any, init: Tensor, batch_dims: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bigrad.root(residual, init, torch.ones(1, dtype=D), batch_dims=batch_dims)


def test_rules_and_solvers_that_need_an_objective_are_refused() -> None:
    x = torch.ones(1, dtype=D, requires_grad=True)
    with pytest.raises(UnsupportedError, match="objective"):
        bigrad.root(lambda y, x: y - x, torch.zeros(1, dtype=D), x, gradient=FirstOrder(1e-3))
    with pytest.raises(UnsupportedError, match="objective"):
        bigrad.root(lambda y, x: y - x, torch.zeros(1, dtype=D), x, solver=LBFGS())
    with pytest.raises(InputError, match="solver is 3"):
        bigrad.root(lambda y, x: y - x, torch.zeros(1, dtype=D), x, solver=3)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    for door in (bigrad.root, bigrad.fixed_point):
        with pytest.raises(InputError, match=r"at least torch\.float32"):
            door(lambda y, x: 0.5 * y + x, torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype))
