"""Quadratic programs by numba's code: what it takes, that it agrees with torch's, and what it hands over."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import calculus
from bigrad.equation import Problem
from bigrad.errors import MissingPackage
from bigrad.solvers import InteriorPoint

from .test_interior_point import D, Data, boxed, normal, program

QuadraticKKT = sys.modules["bigrad.solvers.kkt"].QuadraticKKT
exchange = sys.modules["bigrad.solvers.exchange"]
ROUNDS = 25


def start_of(data: Any) -> Tensor:
    batch = torch.broadcast_shapes(*(x.shape[:-1] for x in data[1::2]), *(x.shape[:-2] for x in data[::2]))
    return data[1].new_zeros((*batch, sum(x.shape[-1] for x in data[1::2])))


def both(data: Any) -> list[Any]:
    """The point and the certificate by numba's code and by torch's."""
    start = start_of(data)
    found = exchange.exchanged(start, data, None, None, ROUNDS)
    assert found is not None
    return [found, InteriorPoint(compiled=False).solve(QuadraticKKT(start.ndim - 1), start, data)]


def shared(data: Data, names: str) -> tuple[Tensor, ...]:
    Q, q, A, b, G, h = data
    easy = Q, q, A, 0.1 * b, G, 1 + h.abs()  # feasible whoever is shared
    return tuple(x[:1] if name in names else x for name, x in zip("QqAbGh", easy, strict=True))


CASES: dict[str, Any] = {
    "few constraints": program(7, 10, 8, 3),
    "many constraints": program(5, 8, 30, 2, seed=2),
    "a polytope": boxed(program(6, 6, 40, 0, seed=5), 3.0),
    "inequalities only": program(5, 9, 12, 0),
    "equations only": program(5, 9, 0, 4),
    "neither": program(5, 9, 0, 0),
    "one matrix for all": shared(program(9, 8, 12, 2), "QAG"),
    "some shared": shared(program(9, 8, 12, 2), "AGq"),
    "two batch dimensions": tuple(x.reshape(2, 3, *x.shape[1:]) for x in program(6, 8, 12, 2)),
    "wild units": (lambda Q, q, A, b, G, h: (1e6 * Q, 1e6 * q, 1e-4 * A, 1e-4 * b, 1e3 * G, 1e3 * h))(
        *program(6, 8, 12, 2)
    ),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_both_codes_agree_on_everything(data: Any) -> None:
    (s, one), (wanted, other) = both(data)
    assert ((s - wanted).norm(dim=-1) <= 1e-10 * wanted.norm(dim=-1)).all()
    assert torch.equal(s == 0, wanted == 0)  # the same constraints are active
    assert not one.failed.any()
    torch.testing.assert_close(one.tolerance, other.tolerance)
    assert (one.stationarity <= one.tolerance).all()
    residual = QuadraticKKT(s.ndim - 1).residual(s, *data).norm(dim=-1)
    assert (one.stationarity - residual).abs().max() <= 1e-2 * one.tolerance.max()
    for name in ("feasibility", "margin"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    u, largest = normal(3, *s.shape), max(float(x.abs().max()) for x in data[::2] if x.numel())
    assert isinstance(one.factor, exchange.ExchangeFactor)
    found, exact = (it.factor.solve(u, transposed=False) for it in (one, other))
    assert ((found - exact).norm(dim=-1) <= 1e-8 * exact.norm(dim=-1)).all()
    again = torch.stack([QuadraticKKT(s.ndim - 1).linearised(s, *data, transposed=True)(x) for x in found])
    plain = torch.stack([QuadraticKKT(s.ndim - 1, False).linearised(s, *data, transposed=True)(x) for x in found])
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-13 * float(found.abs().max() * largest))


def test_constraints_also_go_out_again() -> None:
    """Or else the number of exchanges is that of active constraints, and the factor is never taken apart."""
    data = boxed(program(6, 6, 40, 0, seed=5), 3.0)
    (s, certificate), _ = both(data)
    assert (certificate.steps - (s[:, 6:] > 0).sum(-1)).max() >= 4


def test_float32_is_judged_in_its_own_digits() -> None:
    data = tuple(x.float() for x in program(8, 10, 15, 2))
    (s, one), (wanted, _) = both(data)
    assert s.dtype == one.stationarity.dtype == torch.float32
    assert ((s - wanted).norm(dim=-1) <= 1e-4 * wanted.norm(dim=-1)).all()
    residual = QuadraticKKT(1).residual(s.double(), *(x.double() for x in data)).norm(dim=-1)
    torch.testing.assert_close(one.stationarity.double(), residual, rtol=1e-4, atol=0)
    assert (residual > 1e-9).all()


def broken(place: int, **changes: Tensor) -> tuple[Tensor, ...]:
    """Programs of which one has other numbers."""
    data = dict(zip("QqAbGh", (x.clone() for x in program(3, 4, 6, 1)), strict=True))
    for name, value in changes.items():
        data[name][place] = value
    return tuple(data.values())


TWICE = normal(6, 4, seed=3)[[0, 0, 1, 2, 3, 4]]
REFUSED: dict[str, Any] = {
    "a matrix that is not definite": broken(1, Q=torch.diag(torch.tensor([1.0, 1, 1, -1], dtype=D))),
    "a singular matrix": broken(2, Q=torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=D))),
    "no feasible point": broken(0, G=torch.cat([TWICE[:1], -TWICE[1:]]), h=-torch.ones(6, dtype=D)),
    "no row": broken(0, G=torch.zeros(6, 4, dtype=D), h=-torch.ones(6, dtype=D)),
    "dependent rows": broken(0, q=-100 * TWICE[0], G=TWICE, h=torch.ones(6, dtype=D)),
    "a weakly active row": broken(
        1, Q=torch.eye(4, dtype=D), q=-torch.eye(4, dtype=D)[0], A=torch.eye(4, dtype=D)[3:], b=torch.zeros(1, dtype=D),
        G=torch.eye(4, dtype=D)[[0, 1, 2, 1, 2, 1]], h=torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=D),
    ),
    **{
        f"{number} in {name}": broken(2, **{name: torch.tensor(number, dtype=D)})
        for name in "QqAbGh"
        for number in (torch.nan, torch.inf)
    },
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_in_doubt_is_left_to_torch(data: Any) -> None:
    assert exchange.exchanged(start_of(data), data, None, None, ROUNDS) is None
    start = start_of(data)
    found = [InteriorPoint(compiled=compiled).solve(QuadraticKKT(1), start, data)[1] for compiled in (None, False)]
    assert found[0].status.tolist() == found[1].status.tolist()


def test_a_budget_of_exchanges_is_kept() -> None:
    data = program(3, 10, 20, 0)
    start = start_of(data)
    assert exchange.exchanged(start, data, None, None, 0) is None
    steps = InteriorPoint().solve(QuadraticKKT(1), start, data)[1].steps
    assert int(steps.max()) > 5


def test_a_program_that_is_large_is_left_to_torch() -> None:
    data = program(1, 200, 57, 0)
    assert exchange.exchanged(start_of(data), data, None, None, ROUNDS) is None


def test_code_that_is_wanted_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigrad.compiled.installed", lambda package: False)
    data = program(2, 4, 3, 1)
    with pytest.raises(MissingPackage, match="numba"):
        InteriorPoint(compiled=True).solve(QuadraticKKT(1), start_of(data), data)


def test_torch_solves_where_every_process_would_compile_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["bigrad.kernel"], "stored", lambda kernel: False)
    data = program(2, 4, 3, 1)
    start = start_of(data)
    assert exchange.exchanged(start, data, None, None, ROUNDS, insist=False) is None
    assert exchange.exchanged(start, data, None, None, ROUNDS) is not None
    factors = [InteriorPoint(compiled=way).solve(QuadraticKKT(1), start, data)[1].factor for way in (None, True)]
    assert [isinstance(factor, exchange.ExchangeFactor) for factor in factors] == [False, True]


@pytest.mark.parametrize("names", ["", "QAG", "qbh", "Q"])
def test_the_formula_of_the_pullback_is_that_of_the_residual(names: str) -> None:
    """First and second derivatives, in the inputs, in the point and in the cotangent."""
    data = shared(program(3, 5, 6, 2), names)
    problem = QuadraticKKT(1, False)
    s, _ = InteriorPoint(compiled=False).solve(problem, start_of(data), data)
    free = [x.clone().requires_grad_() for x in (normal(*s.shape, seed=4), s, *data)]
    ways = []
    for pullback in (problem.pullback, lambda *args: Problem.pullback(problem, *args)):
        grads = pullback(free[1], free[2:], [True] * 6)(free[0])
        second = calculus.gradients_of(sum((grad.sin() * grad).sum() for grad in grads), free)
        ways.append([*grads, *second])
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    some = problem.pullback(free[1], free[2:], [False, True, False, True, True, False])(free[0])
    assert [grad is None for grad in some] == [True, False, True, False, False, True]
