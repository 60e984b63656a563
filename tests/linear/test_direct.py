"""The direct solver: any square matrix, given by its action or written down."""

from __future__ import annotations

import pytest
import torch

from bigrad import InputError, Status
from bigrad.linear import Direct, Operator

from .systems import D, assert_no_third_outcome, conditioned, operator, product, status, symmetric, vector


@pytest.mark.parametrize("dense", [False, True])
def test_a_matrix_without_symmetry_is_solved(dense: bool) -> None:
    matrix, b = vector(8, 8), vector(8)
    u, certificate = Direct().solve(operator(matrix, dense), b)
    assert status(certificate) == Status.CONVERGED
    torch.testing.assert_close(u, torch.linalg.solve(matrix, b))


@pytest.mark.parametrize("kappa", [1.0, 1e4, 1e8, 1e10, 1e12, 1e17])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_there_is_no_third_outcome(kappa: float, dtype: torch.dtype) -> None:
    for seed in range(2):
        outcome = assert_no_third_outcome(
            Direct(), conditioned(kappa, 10, seed).to(dtype), vector(10, seed=seed).to(dtype)
        )
        if kappa <= 1e-3 / torch.finfo(dtype).eps:
            assert outcome in {Status.CONVERGED, Status.ROUNDING_FLOOR}


def test_the_first_pivot_may_be_zero() -> None:
    matrix = torch.tensor([[0.0, 2.0], [1.0, 0.0]], dtype=D)
    u, certificate = Direct().solve(operator(matrix), torch.tensor([2.0, 3.0], dtype=D))
    assert status(certificate) == Status.CONVERGED
    assert u.tolist() == [3.0, 1.0]


def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems() -> None:
    scale = 10.0 ** torch.arange(-6, 7, dtype=D)
    matrix, b = scale[:, None, None] * vector(13, 5, 5), scale.flip(0)[:, None] * vector(13, 5)
    u, certificate = Direct().solve(operator(matrix), b)
    assert not certificate.failed.any()
    for k in range(13):
        alone, _ = Direct().solve(operator(matrix[k]), b[k])
        torch.testing.assert_close(u[k], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (1, 3), (2, 1), (2, 3)])
def test_one_matrix_serves_a_batch_of_right_hand_sides(lead: tuple[int, ...]) -> None:
    matrix, b = vector(*lead, 4, 4), vector(2, 3, 4)
    u, certificate = Direct().solve(operator(matrix, dense=True), b)
    assert u.shape == b.shape
    assert certificate.status.shape == (2, 3)
    torch.testing.assert_close(product(matrix, u), b)


@pytest.mark.parametrize("size", [2, 5, 20])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_right_hand_side_out_of_range_is_singular(size: int, dtype: torch.dtype) -> None:
    for seed in range(10):
        values = 1 + vector(size, seed=seed).abs()
        values[0] = 0
        _, certificate = Direct().solve(operator(symmetric(values, seed).to(dtype)), vector(size, seed=seed).to(dtype))
        assert status(certificate) == Status.SINGULAR


def test_a_matrix_of_lost_rank_is_singular() -> None:
    matrix = vector(6, 2) @ vector(2, 6, seed=1)
    for b in (vector(6), matrix @ vector(6)):  # in range, too, the answer is one of many
        assert status(Direct().solve(operator(matrix), b)[1]) == Status.SINGULAR


def test_a_singular_problem_leaves_its_neighbours_alone() -> None:
    matrix = torch.stack([conditioned(10.0, 4, 0), torch.zeros(4, 4, dtype=D), conditioned(10.0, 4, 1)])
    u, certificate = Direct().solve(operator(matrix), vector(3, 4))
    assert certificate.status.tolist() == [Status.CONVERGED, Status.SINGULAR, Status.CONVERGED]
    torch.testing.assert_close(u[2], torch.linalg.solve(matrix[2], vector(3, 4)[2]))


def test_an_indefinite_matrix_is_no_problem() -> None:
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=D))
    u, certificate = Direct().solve(operator(matrix), torch.ones(2, dtype=D))
    assert status(certificate) == Status.CONVERGED
    assert u.tolist() == [1.0, -1.0]


def test_nothing_to_solve_for() -> None:
    u, certificate = Direct().solve(operator(conditioned(10.0, 5, 0)), torch.zeros(5, dtype=D))
    assert status(certificate) == Status.CONVERGED
    assert torch.equal(u, torch.zeros(5, dtype=D))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_none_have_failed(bad: float) -> None:
    matrix, b = conditioned(10.0, 5, 0), vector(5)
    spoiled = b.clone()
    spoiled[1] = bad
    assert status(Direct().solve(operator(matrix), spoiled)[1]) == Status.NON_FINITE
    matrix[2, 3] = bad
    assert Direct().solve(operator(matrix), b)[1].failed


def test_damping_is_a_ridge() -> None:
    matrix, b = symmetric(torch.tensor([0.0, 1.0, 3.0], dtype=D), 0), vector(3)
    u, certificate = Direct(damping=0.5).solve(operator(matrix), b)
    assert status(certificate) == Status.CONVERGED
    torch.testing.assert_close(u, torch.linalg.solve(matrix + 0.5 * torch.eye(3, dtype=D), b))


@pytest.mark.parametrize("damping", [-1.0, torch.nan])
def test_damping_that_makes_no_sense(damping: float) -> None:
    with pytest.raises(InputError, match=f"damping is {damping}"):
        Direct(damping=damping)


def test_the_matrix_of_an_action_is_found_a_column_at_a_time() -> None:
    matrix = vector(2, 4, 4)
    torch.testing.assert_close(Operator(lambda u: product(matrix, u)).matrix(vector(2, 4)), matrix)


def test_float32_stays_float32() -> None:
    u, certificate = Direct().solve(operator(conditioned(10.0, 4, 0).float()), vector(4).float())
    assert u.dtype == torch.float32
    assert not certificate.failed
