"""Bad input over all layers: each row of the table ends in a typed error or a flagged certificate."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, SolveError, SolveWarning
from bigrad.certificate import Certificate, OnFailure
from bigrad.gradients import FirstOrder, Implicit, OneStep, Unrolled, WarmStart
from bigrad.layers import ArgMin
from bigrad.linear import CG, GMRES, MINRES, BiCGStab, Diagonal, Direct, Neumann, Nystrom
from bigrad.solvers import LBFGS, Custom, GradientDescent, Newton, TorchOptimizer

from .bad_input import EYE, TABLE, Make, Row, X, argmin, bilevel, convex, fixed, objective, quadratic, root
from .cases import D, vector

NUMBERS = re.compile(r"residual (\S+), wanted (\S+), after \d+ steps\. Remedy: .+\.$")


def attempt(row: Row, mode: OnFailure) -> tuple[str, Certificate]:
    """Solve and differentiate in everything; how far it came, and the certificate."""
    layer = row.make(mode)
    given = [x.clone().requires_grad_() if x is not None and x.is_floating_point() else x for x in row.inputs]
    stage = "forward"
    try:
        out: Any = layer(*given)
        stage = "backward"
        parts = out if isinstance(out, tuple) else (out,)
        loss = sum((part * torch.cos(torch.arange(part.numel())).reshape(part.shape)).sum() for part in parts)
        leaves = [x for x in given if x is not None and x.requires_grad]
        torch.autograd.grad(loss, [*leaves, *layer.parameters()], allow_unused=True)
    except (InputError, SolveError) as error:
        error.add_note(stage)
        raise
    assert isinstance(layer.certificate, Certificate)
    return stage, layer.certificate


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_it_ends_in_an_error_of_its_kind(row: Row) -> None:
    with pytest.raises(row.kind, match=row.says or ".") as caught:
        attempt(row, "raise")
    assert caught.value.__notes__ == ["backward" if row.backward else "forward"]
    if isinstance(caught.value, SolveError) and "estimated" not in str(caught.value):
        found = NUMBERS.search(str(caught.value))
        assert found is not None
        assert bool(caught.value.certificate.failed.any())


@pytest.mark.parametrize("row", [row for row in TABLE if issubclass(row.kind, SolveError)], ids=lambda row: row.name)
def test_an_answer_in_spite_of_it_is_flagged(row: Row) -> None:
    if row.name == "inner argmin":
        return  # the inner layer raises whatever the outer one does
    _, certificate = attempt(row, "ignore")
    adjoint = certificate.adjoint
    assert bool(certificate.failed.any()) or (adjoint is not None and bool(adjoint.failed.any()))
    if not row.backward:
        assert bool(certificate.failed.any())


@pytest.mark.parametrize(
    ("make", "given"),
    [(make, (X * torch.nan,)) for make in (argmin(), root(), fixed(), bilevel())]
    + [(quadratic(), (EYE, X * torch.nan))],
    ids=["argmin", "root", "fixed", "bilevel", "quadratic"],
)
def test_a_warning_on_request(make: Make, given: tuple[Tensor, ...]) -> None:
    with pytest.warns(SolveWarning, match="NaN number"):
        make("warn")(*given)


@pytest.mark.parametrize(
    "make",
    [argmin(), root(batch_dims=1), fixed(batch_dims=1), bilevel(), convex("simplex")],
    ids=["argmin", "root", "fixed", "bilevel", "convex"],
)
def test_one_bad_problem_leaves_the_others_alone(make: Make) -> None:
    x, kept = vector(4, 3), [0, 2, 3]
    spoilt = x.clone()
    spoilt[1, 0] = torch.nan
    results = []
    for given, rows in ((x[kept], [0, 1, 2]), (spoilt, kept)):
        layer, given = make("ignore"), given.clone().requires_grad_()
        out = layer(given)
        parts = [part[rows] for part in (out if isinstance(out, tuple) else (out,))]
        (slope,) = torch.autograd.grad(sum(part.sin().sum() for part in parts), given)
        results.append([*parts, slope[rows]])
    assert isinstance(layer.certificate, Certificate)
    assert layer.certificate.failed.tolist() == [False, True, False, False]
    for alone, beside in zip(*results, strict=True):
        torch.testing.assert_close(beside, alone, rtol=1e-8, atol=1e-10)


NONE = torch.zeros(0, 3, dtype=D)
EMPTY: dict[str, Make] = {
    "root": root(batch_dims=1),
    "fixed": fixed(batch_dims=1),
    "bilevel": bilevel(),
    **{
        f"argmin, {type(solver).__name__}": argmin(solver=solver)
        for solver in (
            LBFGS(),
            Newton(),
            GradientDescent(0.1),
            TorchOptimizer(torch.optim.Adam),
            Custom(lambda y, x: y),
        )
    },
    **{
        f"argmin, {solver}": argmin(gradient=Implicit(solver))
        for solver in (CG(preconditioner=Diagonal()), CG(preconditioner=Nystrom(2)), MINRES(), GMRES(), BiCGStab())
    },
    "argmin, Neumann": argmin(gradient=Implicit(Neumann())),
    "argmin, direct": argmin(gradient=Implicit(Direct())),
    **{
        f"argmin, {rule}": argmin(gradient=rule, solver=GradientDescent(0.1))
        for rule in (Unrolled(), Unrolled(last=2), OneStep(), FirstOrder())
    },
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch_has_empty_answers_and_gradients(name: str) -> None:
    x = NONE.clone().requires_grad_()
    layer = EMPTY[name]("raise")
    out = layer(x)
    parts = out if isinstance(out, tuple) else (out,)
    assert all(part.shape == (0, 3) for part in parts)
    (slope,) = torch.autograd.grad(sum(part.sum() for part in parts), x)
    assert slope.shape == (0, 3)
    assert isinstance(layer.certificate, Certificate)
    assert layer.certificate.status.shape == (0,)
    assert "empty" in repr(layer.certificate)


def test_a_failed_call_does_not_spoil_a_warm_start() -> None:
    layer = ArgMin(objective, torch.zeros(3, dtype=D), solver=Custom(lambda init, x: init + 0 * x), on_failure="ignore")
    warm = WarmStart()
    assert layer(X * torch.nan, warm_start=warm).isnan().all()
    layer.solver = LBFGS()
    torch.testing.assert_close(layer(X, warm_start=warm), X)
