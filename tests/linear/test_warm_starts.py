"""Where an iteration starts changes the work and never the answer."""

from __future__ import annotations

import pytest
import torch

from bigrad import Status
from bigrad.linear import CG, Operator

from .systems import ITERATIVE, KINDS, SOLVERS, Counted, D, conditioned, operator, status, vector

every_iteration = pytest.mark.parametrize(("solver", "kind"), ITERATIVE)


@every_iteration
def test_a_start_at_the_solution_takes_no_step_and_one_product(solver: str, kind: str) -> None:
    matrix, b = KINDS[kind](12, 0), vector(12)
    start, counted = torch.linalg.solve(matrix, b), Counted(matrix)
    u, certificate = SOLVERS[solver][0]().solve(Operator(counted), b, start)
    assert status(certificate) == Status.CONVERGED
    assert int(certificate.steps) == 0
    assert counted.products == 1
    torch.testing.assert_close(u, start, rtol=1e-15, atol=0)


@every_iteration
def test_a_start_nearby_takes_fewer_steps(solver: str, kind: str) -> None:
    matrix, b = KINDS[kind](40, 0), vector(40)
    truth = torch.linalg.solve(matrix, b)
    cold = SOLVERS[solver][0](rtol=1e-8).solve(operator(matrix), b)[1]
    u, warm = SOLVERS[solver][0](rtol=1e-8).solve(operator(matrix), b, truth + 1e-6 * vector(40, seed=3))
    assert not warm.failed
    assert int(warm.steps) < 0.95 * int(cold.steps)
    assert warm.tolerance == cold.tolerance  # which stays relative to b
    assert (u - truth).norm() <= 1e-6 * truth.norm()


@every_iteration
@pytest.mark.parametrize("garbage", [3.0, 1e8, 1e300, torch.inf, torch.nan])
def test_a_start_of_garbage_gives_the_answer_of_zero_in_as_many_steps(solver: str, kind: str, garbage: float) -> None:
    matrix, b = KINDS[kind](12, 0), vector(12)
    start = vector(12, seed=5) * 100
    start[3] = garbage
    u, certificate = SOLVERS[solver][0]().solve(operator(matrix), b, start)
    cold, own = SOLVERS[solver][0]().solve(operator(matrix), b)
    assert torch.equal(u, cold)
    assert certificate.steps == own.steps


@every_iteration
def test_a_batch_of_starts_good_and_bad(solver: str, kind: str) -> None:
    matrix, b = torch.stack([KINDS[kind](10, seed) for seed in range(3)]), vector(3, 10)
    truth = torch.linalg.solve(matrix, b)
    start = torch.stack([truth[0], torch.full((10,), torch.nan, dtype=D), truth[2] + 1e-3 * vector(10)])
    u, certificate = SOLVERS[solver][0]().solve(operator(matrix), b, start)
    assert certificate.steps[0] == 0
    torch.testing.assert_close(u[0], truth[0], rtol=1e-15, atol=0)
    assert not certificate.failed.any()
    torch.testing.assert_close(u, truth)


@every_iteration
def test_a_start_for_nothing_is_nothing(solver: str, kind: str) -> None:
    u, certificate = SOLVERS[solver][0]().solve(operator(KINDS[kind](5, 0)), torch.zeros(5, dtype=D), vector(5))
    assert status(certificate) == Status.CONVERGED
    assert torch.equal(u, torch.zeros(5, dtype=D))


def test_the_ill_conditioned_start_is_no_worse_than_none() -> None:
    matrix, b = conditioned(1e5, 30, 0), vector(30)
    truth = torch.linalg.solve(matrix, b)
    _, cold = CG().solve(operator(matrix), b)
    for away in (1e-8, 1e-4, 1e-1, 10.0):
        u, warm = CG().solve(operator(matrix), b, truth + away * vector(30, seed=2))
        assert not warm.failed
        assert int(warm.steps) <= 1.2 * int(cold.steps)
        assert (u - truth).norm() <= 1e-9 * truth.norm()
