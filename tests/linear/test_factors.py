"""Factors that are kept: the second solve is nearly free, and a factor of another matrix never gives a wrong answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import Status
from bigrad.linear import LU, Cholesky, Direct, Kept, Operator

from .systems import Counted, D, conditioned, indefinite, product, status, symmetric, vector

MATRICES = {"LU": vector(20, 20) + 5 * torch.eye(20, dtype=D), "Cholesky": conditioned(50.0, 20, 0)}
KINDS = {"LU": LU, "Cholesky": Cholesky}
every_factor = pytest.mark.parametrize("kind", KINDS)


def system(counted: Counted, kind: str, kept: Kept, *, transposed: bool = False) -> Operator:
    definite = kind == "Cholesky"
    return Operator(counted, symmetric=definite, definite=definite, transposed=transposed, kept=kept)


def assert_solved(matrix: Tensor, u: Tensor, b: Tensor) -> None:
    assert (product(matrix, u) - b).norm() <= 1e-12 * b.norm()


@every_factor
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_the_second_solve_makes_no_products(kind: str, damping: float) -> None:
    matrix, kept = MATRICES[kind], Kept()
    ridged = matrix + damping * torch.eye(20, dtype=D)
    for transposed in (False, True, True, False):
        shown, goal = (part.mT if transposed else part for part in (matrix, ridged))
        counted, b = Counted(shown), vector(20, seed=int(transposed))
        first = kept.factor is None
        u, certificate = Direct(damping).solve(system(counted, kind, kept, transposed=transposed), b)
        assert counted.products == (20 if first else 0)
        assert isinstance(kept.factor, KINDS[kind])
        assert status(certificate) == Status.CONVERGED
        assert_solved(goal, u, b)
        torch.testing.assert_close(certificate.stationarity, (b - product(goal, u)).norm(), rtol=0.5, atol=1e-14)


@every_factor
def test_a_factor_left_by_a_transposed_system_is_that_of_the_matrix(kind: str) -> None:
    matrix, kept = MATRICES[kind], Kept()
    Direct().solve(system(Counted(matrix.mT), kind, kept, transposed=True), vector(20))
    assert isinstance(kept.factor, KINDS[kind])
    torch.testing.assert_close(kept.factor.matrix, matrix)


@every_factor
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("away", [1e-8, 1e-3, 1e-2])
def test_a_stale_factor_gives_the_right_answer_for_a_few_products(kind: str, transposed: bool, away: float) -> None:
    matrix, b = MATRICES[kind], vector(20, seed=4)
    moved = matrix + away * symmetric(vector(20), 3)
    kept = Kept(KINDS[kind].of(matrix))
    counted = Counted(moved.mT if transposed else moved)
    u, certificate = Direct().solve(system(counted, kind, kept, transposed=transposed), b)
    assert 2 <= counted.products <= 10
    assert not certificate.failed
    assert_solved(counted.matrix, u, b)
    torch.testing.assert_close(certificate.stationarity, (b - product(counted.matrix, u)).norm(), rtol=0.5, atol=1e-14)


@every_factor
@pytest.mark.parametrize("exact", [False, True])
def test_a_factor_of_other_damping_is_not_taken_for_that_of_this(kind: str, exact: bool) -> None:
    matrix, b = MATRICES[kind], vector(20)
    kept = Kept(KINDS[kind].of(matrix + 0.1 * torch.eye(20, dtype=D), damping=0.1, exact=exact))
    u, certificate = Direct().solve(system(Counted(matrix), kind, kept), b)
    assert not certificate.failed
    assert_solved(matrix, u, b)


@every_factor
def test_a_badly_stale_factor_is_replaced(kind: str) -> None:
    matrix, b = MATRICES[kind], vector(20)
    far = 7 * conditioned(30.0, 20, 9)
    kept, counted = Kept(KINDS[kind].of(matrix)), Counted(far)
    u, _ = Direct().solve(system(counted, kind, kept), b)
    assert 20 < counted.products <= 31
    assert_solved(far, u, b)
    assert isinstance(kept.factor, KINDS[kind])
    torch.testing.assert_close(kept.factor.matrix, far)
    counted.products = 0
    assert not Direct().solve(system(counted, kind, kept), b)[1].failed
    assert counted.products == 0


def test_a_stale_factor_unconfirmed_would_be_caught() -> None:
    """The wrong variant: the kept factor as the answer, without a look at the residual."""
    matrix, b = MATRICES["LU"], vector(20)
    moved = matrix + 1e-8 * vector(20, 20, seed=3)
    with pytest.raises(AssertionError):
        assert_solved(moved, LU.of(matrix).solve(b, transposed=False), b)


@every_factor
@pytest.mark.parametrize("more", [(), (5,), (2, 3)])
@pytest.mark.parametrize("batch", [(), (4,)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_kept_factor_takes_more_right_hand_sides(
    kind: str, more: tuple[int, ...], batch: tuple[int, ...], transposed: bool
) -> None:
    matrix = MATRICES[kind] + torch.diag_embed(vector(*batch, 20).abs())
    b = vector(*more, *batch, 20, seed=2)
    shown = matrix.mT if transposed else matrix
    torch.testing.assert_close(product(shown, KINDS[kind].of(matrix).solve(b, transposed=transposed)), b)
    counted, kept = Counted(shown), Kept(KINDS[kind].of(matrix, exact=True))
    u, certificate = Direct().solve(system(counted, kind, kept, transposed=transposed), b)
    assert counted.products == 0
    assert certificate.status.shape == certificate.condition.shape == (*more, *batch)  # type: ignore[union-attr]
    torch.testing.assert_close(product(shown, u), b)


def test_a_right_hand_side_of_no_numbers_does_not_cost_a_factorisation() -> None:
    matrix, b = MATRICES["LU"], vector(2, 20)
    b[0, 3] = torch.nan
    counted, kept = Counted(matrix), Kept(LU.of(matrix, exact=True))
    _, certificate = Direct().solve(system(counted, "LU", kept), b)
    assert counted.products == 0
    assert certificate.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]


@pytest.mark.parametrize("size", [1, 2, 20])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_definite_system_that_is_not_is_told_from_a_singular_one(size: int, dtype: torch.dtype) -> None:
    good = conditioned(10.0, size, 0)
    least = torch.linalg.eigvalsh(good)[0]
    bad = [good, indefinite(10.0, size, 1) * (-1) ** (size == 1), good - least * torch.eye(size, dtype=D)]
    if size == 1:
        bad[2] = torch.zeros(1, 1, dtype=D)
    matrix, b = torch.stack(bad).to(dtype), vector(3, size).to(dtype)
    kept = Kept()
    u, certificate = Direct().solve(system(Counted(matrix), "Cholesky", kept), b)
    assert certificate.status.tolist()[1:] == [Status.INDEFINITE, Status.SINGULAR]
    assert not certificate.failed[0]
    assert kept.factor is None
    tolerance = 1e-10 if dtype == D else 1e-4
    torch.testing.assert_close(product(matrix, u)[:2], b[:2], rtol=tolerance, atol=tolerance)
    alone = Direct().solve(system(Counted(matrix[1]), "LU", Kept()), b[1])[1]
    assert not alone.failed  # without the claim of definiteness it is a system like any other


@every_factor
def test_the_condition_of_a_factor_is_close_and_from_below(kind: str) -> None:
    for kappa in (1.0, 1e3, 1e8):
        _, certificate = Direct().solve(system(Counted(conditioned(kappa, 20, 1)), kind, Kept()), vector(20))
        assert certificate.condition is not None
        assert 0.3 * kappa <= float(certificate.condition) <= kappa * (1 + 1e-6)
