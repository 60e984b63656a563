"""What a convex program refuses, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.layers import ConvexProgram

from .cases import D, leaf, vector
from .convex_programs import projection

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


@forward_mode
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: torch.func.vmap(f)(vector(2, 3)),
        lambda f: torch.func.grad(lambda x: f(x).sum())(vector(3)),
        lambda f: torch.func.jacrev(f)(vector(3)),
        lambda f: torch.func.jacfwd(f)(vector(3)),
        lambda f: torch.func.jvp(f, (vector(3),), (vector(3),)),
    ],
    ids=["vmap", "grad", "jacrev", "jacfwd", "jvp"],
)
def test_transforms_are_refused(transform: Callable[[Callable[[Tensor], Tensor]], object]) -> None:
    layer = projection()
    with pytest.raises(UnsupportedError, match=r"torch\.func"):
        transform(lambda x: layer(x)[0])


@forward_mode
def test_forward_mode_is_refused() -> None:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(vector(3), vector(3))
        with pytest.raises(UnsupportedError, match="forward mode"):
            projection()(dual)


def test_second_derivatives_are_refused_in_the_values_and_in_the_cotangent() -> None:
    layer, x, weight = projection(), leaf(3), leaf(3, seed=1)
    for other in (x, weight):
        (first,) = torch.autograd.grad((layer(x)[0] * weight).sum(), x, create_graph=True)
        assert not (first - weight.detach() * (x > 0)).any()
        with pytest.raises(UnsupportedError, match="no second derivatives"):
            torch.autograd.grad(first.sum(), other, allow_unused=True)
    with pytest.raises(UnsupportedError, match="no second derivatives"):
        torch.autograd.functional.hessian(lambda x: layer(x)[0].square().sum(), x)


def test_a_retained_graph_gives_the_gradient_again() -> None:
    layer, x = projection(), leaf(3)
    (y,) = layer(x)
    once, twice = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_a_compiled_function_breaks_its_graph_and_gives_the_same_numbers() -> None:
    layer = projection()
    function = lambda x: layer(2 * x)[0].sin().sum()  # noqa: E731  # a name for a one-liner
    found = []
    for runs in (function, torch.compile(function, backend="eager")):
        x = leaf(3)
        value = runs(x)
        found.append(torch.cat([value.detach()[None], *torch.autograd.grad(value, x)]))
    assert torch.equal(*found)


A, B = vector(3), vector(3).float()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((A,), r"wants 2 values \(c, P\), found 1"),
        ((A, 1.0), "value of P must be a real floating tensor, found float"),
        ((A, torch.eye(3).long()), r"found torch\.int64"),
        ((A + 0j, torch.eye(3)), r"value of c .* found torch\.complex128"),
        ((A[:2], torch.eye(3, dtype=D)), r"c has shape \(2,\); wanted \(\*batch, \*\(3,\)\)"),
        ((A[0], torch.eye(3, dtype=D)), r"c has shape \(\)"),
        ((A.expand(0, 3), torch.eye(3, dtype=D)), "at least one problem"),
        ((B, torch.eye(3, dtype=D)), r"c is torch\.float32 on cpu, P is torch\.float64 on cpu; bring all"),
        ((A.expand(2, 3), torch.eye(3, dtype=D).expand(3, 3, 3)), r"batch shapes \(2,\) of c, \(3,\) of P"),
        ((A, -torch.eye(3, dtype=D)), "P is 1 away from being PSD"),
        ((A, torch.eye(3, dtype=D) + torch.ones(3, 3, dtype=D).triu()), r"P is 0\.5 away from being PSD"),
    ],
    ids=["number", "float", "integer", "complex", "shape", "scalar", "empty", "dtype", "batch", "negative", "skew"],
)
def test_values_that_do_not_fit(values: tuple[Any, ...], says: str) -> None:
    y, c, P = cp.Variable(3), cp.Parameter(3, name="c"), cp.Parameter((3, 3), PSD=True, name="P")
    layer = ConvexProgram(cp.Problem(cp.Minimize(cp.quad_form(y, P) + c @ y)), [c, P], [y])
    with pytest.raises(InputError, match=says):
        layer(*values)


y, c, a, foreign = cp.Variable(3, name="y"), cp.Parameter(3, name="c"), cp.Parameter(name="a"), cp.Variable(name="z")
NEAR = cp.Minimize(cp.sum_squares(y - c))
EQUAL = y >= 0


@pytest.mark.parametrize(
    ("problem", "parameters", "variables", "says"),
    [
        (3, [c], [y], "cvxpy.Problem, found a int"),
        (cp.Problem(NEAR), [c, a], [y], "a is listed as a parameter, and the problem has no such parameter"),
        (cp.Problem(NEAR), [c], [foreign], "z is listed as a variable"),
        (cp.Problem(NEAR), [y], [y], "y is listed as a parameter"),
        (cp.Problem(NEAR, [EQUAL]), [c], [EQUAL.dual_variables[0]], "no such variable"),
        (cp.Problem(NEAR, [y <= a]), [c], [y], r"parameters \['a'\] are missing"),
        (cp.Problem(NEAR), [c, c], [y], "each once"),
        (cp.Problem(NEAR), [c], [], "at least one variable"),
        (cp.Problem(cp.Minimize(cp.sum_squares(y))), [], [y], "at least one parameter"),
        (cp.Problem(cp.Minimize(cp.sum_squares(c * a * y[0]))), [c, a], [y], "DPP"),
        (cp.Problem(cp.Maximize(cp.sum_squares(y - c))), [c], [y], "DPP"),
    ],
    ids=["no problem", "parameter", "variable", "swapped", "dual", "missing", "twice", "none", "fixed", "DPP", "DCP"],
)
def test_problems_that_do_not_fit(problem: Any, parameters: list[Any], variables: list[Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ConvexProgram(problem, parameters, variables)


@pytest.mark.parametrize("attribute", ["integer", "boolean", "complex", "diag"])
def test_variables_that_cvxpylayers_does_not_read(attribute: str) -> None:
    odd = cp.Variable((3, 3), name="odd", **{attribute: True})
    with pytest.raises(UnsupportedError, match=f"odd is {attribute}"):
        ConvexProgram(cp.Problem(cp.Minimize(cp.norm(cp.diag(odd) - c))), [c], [odd])


@pytest.mark.parametrize("settings", [{"rtol": 0.0}, {"feasibility": -1.0}, {"max_steps": 0}, {"on_failure": "no"}])
def test_settings_that_do_not_fit(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        projection(**settings)
