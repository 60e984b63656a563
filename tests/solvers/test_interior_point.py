"""Quadratic programs by interior points and active sets: exact answers, whatever the size of the numbers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import Certificate, InputError
from bigrad.certificate import Status
from bigrad.equation import Equation
from bigrad.solvers import InteriorPoint, solve_quadratic_program

D = torch.float64
Data = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True, params=["numba", "torch"])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which code solves; numba's hands over to torch's whatever is degenerate."""
    if request.param == "torch":
        monkeypatch.setattr("bigrad.compiled.installed", lambda package: False)
    return str(request.param)


by_torch = pytest.mark.parametrize("code", ["torch"], indirect=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def program(batch: int, n: int, m: int, p: int, rank: int | None = None, seed: int = 0) -> Data:
    """Strictly feasible; ``Q`` has full rank, or ``rank``."""
    root = normal(batch, n, n if rank is None else rank, seed=seed)
    inside, A, G = normal(batch, n, 1, seed=seed + 1), normal(batch, p, n, seed=seed + 2), normal(batch, m, n, seed=9)
    Q = root @ root.mT / n + (0.05 * torch.eye(n, dtype=D) if rank is None else 0)
    room = normal(batch, m, seed=seed + 3).abs()
    return Q, normal(batch, n, seed=seed + 4), A, (A @ inside)[..., 0], G, (G @ inside)[..., 0] + room


def boxed(data: Data, size: float) -> Data:
    """With ``|y| <= size`` beside the other constraints."""
    Q, q, A, b, G, h = data
    eye = torch.eye(q.shape[-1], dtype=D).expand(Q.shape)
    wall = torch.full((len(q), 2 * q.shape[-1]), size, dtype=D)
    return Q, q, A, b, torch.cat([G, eye, -eye], 1), torch.cat([h, wall], 1)


def solve(*data: Any, **settings: Any) -> tuple[Tensor, Certificate]:
    y, certificate = solve_quadratic_program(*data, on_failure="ignore", **settings)
    assert certificate is not None
    return y, certificate


def multipliers(y: Tensor, data: Data) -> tuple[float, float, float]:
    """How far one point is from optimal: violation, the least multiplier, what no multiplier explains."""
    Q, q, A, b, G, h = data
    excess = G @ y - h
    near = excess > -1e-8 * (1 + h.abs())
    rows = torch.cat([A, G[near]])
    slope = Q @ y + q
    force = torch.linalg.lstsq(rows.mT, -slope.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    violation = max(float((A @ y - b).abs().sum()), float(excess.clamp_min(0).sum()))
    least = min([0.0, *force[len(A) :].tolist()])
    return violation, least, float((slope + rows.mT @ force).norm())


@pytest.mark.parametrize(
    "data",
    [
        program(6, 12, 20, 4),
        program(4, 30, 60, 5, seed=3),
        program(4, 10, 40, 0, seed=5),
        boxed(program(6, 12, 10, 3, rank=3), 4.0),
        boxed(program(6, 15, 30, 0, rank=0), 5.0),
    ],
    ids=["more constraints", "larger", "many constraints", "singular", "linear"],
)
def test_the_conditions_of_optimality_hold_to_rounding_error(data: Data, code: str) -> None:
    y, certificate = solve(*data)
    assert not certificate.failed.any()
    assert float(certificate.stationarity.max()) < 1e-12
    assert certificate.feasibility is not None
    assert float(certificate.feasibility.max()) < 1e-12
    assert int(certificate.steps.max()) < (30 if code == "torch" else data[3].shape[-1] + data[5].shape[-1])
    for place in range(len(y)):
        violation, least, unexplained = multipliers(y[place], tuple(x[place] for x in data))  # type: ignore[arg-type]
        assert violation < 1e-12
        assert least > -1e-9
        assert unexplained < 1e-10


def test_a_batch_gives_what_its_problems_give_one_by_one() -> None:
    data = program(20, 8, 12, 2, seed=7)
    y, certificate = solve(*data)
    alone = [solve(*(x[place] for x in data)) for place in range(20)]
    torch.testing.assert_close(y, torch.stack([it[0] for it in alone]), rtol=1e-12, atol=1e-13)
    assert certificate.steps.tolist() == [int(it[1].steps) for it in alone]
    assert len(set(certificate.steps.tolist())) > 1


def test_shared_matrices_give_the_same_answer() -> None:
    Q, q, A, b, G, h = program(5, 8, 12, 2)
    q, b, h = normal(7, 8), 0.1 * normal(7, 2), normal(7, 12).abs() + 1
    for Q_, A_, G_ in (
        (Q[0], A[0], G[0]),
        (Q[0], None, G[0]),
        (0 * Q[0], A[0], torch.cat([torch.eye(8), -torch.eye(8)]).to(D)),
    ):
        level, wall = (None if A_ is None else b), h if len(G_) == 12 else normal(7, 16).abs() + 1
        y, _ = solve(Q_, q, A_, level, G_, wall)
        full, certificate = solve(
            *(
                x if x is None or x.shape[0] == 7 else x.expand(7, *x.shape).clone()
                for x in (Q_, q, A_, level, G_, wall)
            )
        )
        assert not certificate.failed.any()
        torch.testing.assert_close(y, full, rtol=1e-11, atol=1e-12)


def test_the_order_of_constraints_and_variables_does_not_matter() -> None:
    Q, q, A, b, G, h = program(6, 8, 12, 2)
    y, _ = solve(Q, q, A, b, G, h)
    rows, columns = torch.randperm(12, generator=torch.Generator().manual_seed(1)), torch.arange(7, -1, -1)
    other, _ = solve(
        Q[:, columns][:, :, columns], q[:, columns], A[:, :, columns], b, G[:, rows][:, :, columns], h[:, rows]
    )
    torch.testing.assert_close(other[:, columns], y, rtol=1e-11, atol=1e-12)


def test_units_do_not_matter() -> None:
    Q, q, A, b, G, h = program(6, 8, 12, 2)
    y, _ = solve(Q, q, A, b, G, h)
    for scale in (1e-9, 1e-4, 1e4, 1e9):
        for other, unit in (
            (solve(scale * Q, scale * q, A, b, G, h), 1.0),
            (solve(Q, q, scale * A, scale * b, G, h), 1.0),
            (solve(Q, q, A, b, scale * G, scale * h), 1.0),
            (solve(Q, scale * q, A, scale * b, G, scale * h), scale),
        ):
            assert not other[1].failed.any()
            torch.testing.assert_close(other[0] / unit, y, rtol=1e-10, atol=1e-11)


def test_the_margin_is_relative_and_tells_how_near_a_constraint_is_to_changing_sides() -> None:
    one, level = torch.ones(1, 1, dtype=D), torch.ones(1, dtype=D)
    previous = 1.0
    for distance in (0.5, 1e-2, 1e-4, 1e-6, 0.0):
        for side in (-1, 1):
            for unit in (1.0, 1e6):
                _, certificate = solve(one, -(1 + side * distance) * level * unit, None, None, one, level * unit)
                assert certificate.margin is not None
                assert 0.1 * distance <= float(certificate.margin) <= distance + 1e-14
        assert distance < previous
        previous = distance


def test_degenerate_vertices() -> None:
    """More constraints than variables meet in the solution."""
    angles = torch.linspace(0, 2 * torch.pi, 9, dtype=D)[:-1]
    sides = torch.stack([angles.cos(), angles.sin(), torch.ones(8, dtype=D)], -1)  # a pyramid with eight faces
    top = torch.tensor([0.0, 0.0, 1.0], dtype=D)
    for Q in (torch.zeros(3, 3, dtype=D), torch.eye(3, dtype=D)):
        y, certificate = solve(Q, torch.tensor([0.1, 0.05, -3.0], dtype=D), None, None, sides, torch.ones(8, dtype=D))
        assert not certificate.failed.any()
        torch.testing.assert_close(y, top, rtol=0, atol=1e-11)
        assert certificate.margin is not None
        assert float(certificate.margin) == 0


@pytest.mark.parametrize("rank", [0, 2, 4])
def test_small_integers_make_every_degeneracy(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator).to(D)

    root = integers(-2, 3, 200, 4, max(rank, 1))
    Q = (rank > 0) * (root @ root.mT) + (rank == 4) * torch.eye(4, dtype=D)
    A, G = integers(-1, 2, 200, 1, 4), integers(-1, 2, 200, 9, 4)
    q, b, h = integers(-3, 4, 200, 4), torch.zeros(200, 1, dtype=D), integers(0, 3, 200, 9)
    data = boxed((Q, q, A, b, G, h), 3.0)
    y, certificate = solve(*data)
    solved = ~certificate.failed
    assert ((certificate.status == Status.SINGULAR) | solved).all()
    assert solved.all() if rank == 4 else solved.any() and not solved.all()
    assert certificate.margin is not None
    assert (certificate.margin[solved] == 0).any()
    excess = (data[4] @ y.unsqueeze(-1)).squeeze(-1) - data[5]
    assert float(excess.max()) < 1e-9
    # nobody does better: the linear model at the answer, over points that are feasible for sure
    slope = (Q @ y.unsqueeze(-1)).squeeze(-1) + q
    for fraction in (0.0, 0.5):
        other, _ = solve(torch.eye(4, dtype=D), integers(-3, 4, 200, 4), *data[2:])
        assert (((fraction * y + (1 - fraction) * other - y) * slope).sum(-1) > -1e-8).all()


def test_a_point_may_be_all_there_is() -> None:
    eye, zero = torch.eye(3, dtype=D), torch.zeros(3, dtype=D)
    for settings in ((None, None, torch.cat([eye, -eye]), torch.zeros(6, dtype=D)), (eye, zero)):
        y, certificate = solve(eye, zero + 1, *settings)
        assert not certificate.failed.any()
        torch.testing.assert_close(y, zero, rtol=0, atol=1e-14)


def test_redundant_equations_are_taken() -> None:
    ones = torch.ones(2, 3, dtype=D)
    y, certificate = solve(torch.eye(3, dtype=D), torch.zeros(3, dtype=D), ones, ones[:, 0])
    torch.testing.assert_close(y, torch.full((3,), 1 / 3, dtype=D), rtol=1e-12, atol=0)
    assert certificate.margin is not None
    assert float(certificate.margin) == 0


@pytest.mark.parametrize("seed", range(3))
def test_infeasible_and_unbounded_problems_are_told_from_the_others(seed: int) -> None:
    Q, q, A, b, G, h = boxed(program(6, 6, 10, 1, rank=2, seed=seed), 5.0)
    weight = normal(2, 21, 1, seed=seed).abs()
    G[:2, 0] = -(weight * G[:2, 1:]).sum(1)  # the first inequality is against a sum of the others
    h[:2, 0] = -(weight[..., 0] * h[:2, 1:]).sum(1) - 1
    status = solve(Q, q, A, b, G, h)[1].status
    assert status[:2].tolist() == [Status.INFEASIBLE] * 2
    assert not (status[2:] >= Status.MAX_STEPS).any()
    free = solve(torch.zeros(6, 6, dtype=D), q, A, b)[1].status
    assert (free == Status.UNBOUNDED).all()


def test_failures_end_in_the_right_status() -> None:
    eye, ones = torch.eye(3, dtype=D), torch.ones(3, dtype=D)
    cases: list[tuple[tuple[Any, ...], Status]] = [
        ((eye * torch.nan, ones), Status.NON_FINITE),
        ((eye - 2 * torch.diag(ones * torch.tensor([0, 0, 1.0])), ones), Status.INDEFINITE),
        ((0 * eye, ones, None, None, torch.cat([eye, -eye]), torch.cat([-ones, 0 * ones])), Status.INFEASIBLE),
        ((0 * eye, -eye[0], None, None, torch.cat([eye, -eye]), torch.ones(6, dtype=D)), Status.SINGULAR),
    ]
    for data, status in cases:
        y, certificate = solve(*data)
        assert certificate.status == status
        assert bool(y.isnan().all()) == (status != Status.SINGULAR)


def test_too_few_steps() -> None:
    data = program(3, 10, 20, 0)
    _, certificate = solve(*data, solver=InteriorPoint(max_steps=1))
    assert (certificate.status == Status.MAX_STEPS).all()
    _, certificate = solve(*data, solver=InteriorPoint(max_steps=0))
    assert (certificate.status == Status.MAX_STEPS).all()


def never(*_: object) -> None:
    raise AssertionError("the central path was entered")


@by_torch
@pytest.mark.parametrize("shape", [(20, 20, 5), (50, 50, 10), (30, 10, 0), (10, 0, 4)])
def test_a_program_with_few_constraints_needs_no_interior_point(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["bigrad.solvers.central_path"].Iterate, "first", never)
    monkeypatch.setattr(sys.modules["bigrad.solvers.dual_path"].Point, "first", never)
    _, certificate = solve(*program(64, *shape))
    assert not certificate.failed.any()
    assert int(certificate.steps.max()) <= 16


@by_torch
def test_a_program_with_more_constraints_is_solved_on_the_path_of_the_dual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["bigrad.solvers.central_path"].Iterate, "first", never)
    _, certificate = solve(*program(64, 12, 20, 2))
    assert not certificate.failed.any()
    assert int(certificate.steps.max()) <= 10


def test_a_tolerance_that_rounding_cannot_meet() -> None:
    _, certificate = solve(*program(3, 10, 20, 2), solver=InteriorPoint(rtol=0.0, atol=0.0))
    assert (certificate.status == Status.ROUNDING_FLOOR).all()


def test_float32() -> None:
    data = program(8, 10, 15, 2)
    exact, _ = solve(*data)
    y, certificate = solve(*(x.float() for x in data))
    assert y.dtype == torch.float32
    assert not certificate.failed.any()
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)


def test_another_problem_is_refused() -> None:
    with pytest.raises(InputError, match="solves quadratic programs, found Equation"):
        InteriorPoint().solve(Equation(lambda y: y, 0), torch.zeros(3), ())
