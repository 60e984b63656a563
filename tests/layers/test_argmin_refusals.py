"""What the argmin layer refuses, by name and before it computes anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bigrad
from bigrad import InputError, UnsupportedError, errors
from bigrad.gradients import Implicit
from bigrad.layers import ArgMin
from bigrad.linear import CG
from bigrad.solvers import LBFGS

from .cases import D, Proximal, leaf, start, stretched, vector


def spoiled(value: object) -> Callable[..., object]:
    return lambda y, x: value


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (3, "objective is int"),
        (spoiled(None), "returned NoneType"),
        (spoiled(1.0), "returned float"),
        (lambda y, x: (y - x, y), "returned tuple"),
        (lambda y, x: ((y - x) ** 2).sum().float(), "returned torch.float32"),
        (lambda y, x: ((y - x) ** 2).sum() * 1j, "returned torch.complex128"),
        (lambda y, x: ((y - x) ** 2).sum().long(), "returned torch.int64"),
        (lambda y, x: ((y - x) ** 2).sum().to("meta"), "on meta"),
        (lambda y, x: (x**2).sum(), "does not depend on y"),
        (lambda y, x: ((y.detach() - x) ** 2).sum(), "does not depend on y"),
        (spoiled(torch.ones((), dtype=D)), "does not depend on y"),
    ],
)
def test_objectives_that_are_none(objective: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ArgMin(objective, start())(leaf(3))


@pytest.mark.parametrize("init", [0.0, None, [], "zeros", torch.zeros(3).long(), torch.zeros(3, dtype=torch.cfloat)])
def test_starts_that_are_none(init: Any) -> None:
    with pytest.raises(InputError, match="init"):
        ArgMin(stretched, init)
    with pytest.raises(InputError, match="init"):
        ArgMin(stretched, lambda x: init)(vector(3))
    with pytest.raises(InputError, match="init"):
        bigrad.argmin(stretched, init, vector(3))


@pytest.mark.parametrize(
    ("x", "complaint"),
    [
        (torch.zeros(3), "input 0 has dtype torch.float32 and init torch.float64"),
        (torch.zeros(3, dtype=torch.cdouble), "complex128"),
        (torch.zeros(3, dtype=D, device="meta"), "input 0 is on meta and init on cpu"),
    ],
)
def test_inputs_of_another_kind(x: Tensor, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ArgMin(stretched, start())(x)


def test_parameters_of_another_kind_are_named() -> None:
    with pytest.raises(InputError, match=r"target\.weight has dtype torch.float64 and init torch.float32"):
        ArgMin(Proximal(), torch.zeros(3))(torch.zeros(3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_inputs_that_are_not_finite(bad: float) -> None:
    with pytest.raises(errors.Diverged, match="infinite or NaN"):
        ArgMin(stretched, start())(torch.tensor([0.0, bad, 1.0], dtype=D))


@pytest.mark.parametrize(("setting", "value"), [("solver", "lbfgs"), ("gradient", CG()), ("on_failure", "stop")])
def test_settings_of_another_kind(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=setting):
        ArgMin(stretched, start(), **{setting: value})(vector(3))


def test_a_rule_wants_a_linear_solver() -> None:
    with pytest.raises(InputError, match="Implicit needs a linear solver"):
        Implicit(LBFGS())  # type: ignore[arg-type]  # on purpose


def test_inference_mode_is_refused_and_its_gentler_sister_named() -> None:
    layer = ArgMin(stretched, start())
    with torch.inference_mode(), pytest.raises(UnsupportedError, match="no_grad"):
        layer(vector(3))
    with torch.no_grad():
        torch.testing.assert_close(layer(vector(3)), vector(3), rtol=1e-7, atol=1e-8)
