"""Every solver on every system it is made for: what is called solved is solved, and what is not says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status
from bigrad.linear import CG, GMRES, MINRES, BiCGStab, Direct, LinearSolver, Neumann, Operator

from .systems import (
    ITERATIVE,
    KINDS,
    PAIRS,
    SOLVERS,
    Counted,
    D,
    assert_no_third_outcome,
    conditioned,
    indefinite,
    operator,
    product,
    status,
    symmetric,
    vector,
)

every_pair = pytest.mark.parametrize(("solver", "kind"), PAIRS)
every_iteration = pytest.mark.parametrize(("solver", "kind"), ITERATIVE)
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def make(solver: str, **settings: float) -> LinearSolver:
    return SOLVERS[solver][0](**settings)


@every_pair
@pytest.mark.parametrize("size", [1, 2, 12, 40])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_the_answer_is_that_of_the_dense_matrix(solver: str, kind: str, size: int, dtype: torch.dtype) -> None:
    matrix, b = KINDS[kind](size, 1).to(dtype), vector(size, seed=2).to(dtype)
    u, certificate = make(solver).solve(operator(matrix), b)
    assert u.dtype == dtype
    assert not certificate.failed
    assert_no_third_outcome(make(solver), matrix, b)
    tolerance = 1e-10 if dtype == D else 1e-4
    truth = torch.linalg.solve(matrix.to(D), b.to(D))
    assert (u.to(D) - truth).norm() <= tolerance * truth.norm()


@every_pair
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_ill_conditioned_systems_have_no_third_outcome(solver: str, kind: str, dtype: torch.dtype) -> None:
    make_matrix = {"definite": conditioned, "indefinite": indefinite}.get(kind)
    matrix = vector(30, 30) if make_matrix is None else make_matrix(1e6, 30, 0)
    if solver == "Neumann":
        matrix = matrix / torch.linalg.matrix_norm(matrix, 2)
    outcome = assert_no_third_outcome(make(solver), matrix.to(dtype), vector(30, seed=7).to(dtype))
    if dtype == D and solver in {"Direct", "GMRES"}:
        assert not outcome.failed


@every_pair
def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems(solver: str, kind: str) -> None:
    scale = torch.ones(7, dtype=D) if solver == "Neumann" else 10.0 ** torch.arange(-6, 7, 2, dtype=D)
    matrix = scale[:, None, None] * torch.stack([KINDS[kind](10, seed) for seed in range(7)])
    b = 10.0 ** torch.tensor([6, -6, 0, 3, -3, 6, 0], dtype=D)[:, None] * vector(7, 10)
    u, certificate = make(solver).solve(operator(matrix), b)
    assert not certificate.failed.any()
    alone = [make(solver).solve(operator(matrix[k]), b[k]) for k in range(7)]
    each = torch.stack([answer for answer, _ in alone])
    assert ((u - each).norm(dim=-1) <= 1e-10 * each.norm(dim=-1)).all()
    steps = torch.stack([one.steps for _, one in alone])
    assert (certificate.steps - steps).abs().max() <= (8 if solver == "BiCGStab" else 2)
    truth = torch.linalg.solve(matrix, b)
    assert ((u - truth).norm(dim=-1) <= 1e-9 * truth.norm(dim=-1)).all()


@every_iteration
def test_a_problem_that_is_done_rests_while_others_go_on(solver: str, kind: str) -> None:
    easy = torch.diag(torch.tensor(4 * [1.0, 0.9], dtype=D))
    matrix, b = torch.stack([easy, KINDS[kind](8, 0)]), vector(2, 8)
    one = make(solver, rtol=1e-3)
    together, certificate = one.solve(operator(matrix), b)
    alone, own = one.solve(operator(matrix[0]), b[0])
    assert certificate.steps[1] > certificate.steps[0]
    assert certificate.steps[0] == own.steps
    torch.testing.assert_close(together[0], alone, rtol=1e-13, atol=1e-15)


@every_solver
@pytest.mark.parametrize("kind", ["zero", "nan", "inf"])
def test_right_hand_sides_that_are_nothing_or_no_number(solver: str, kind: str) -> None:
    matrix = torch.stack([conditioned(5.0, 6, seed) / 4 for seed in range(3)])
    b = vector(3, 6)
    b[1] = {"zero": 0.0, "nan": torch.nan, "inf": torch.inf}[kind]
    u, certificate = make(solver).solve(operator(matrix), b)
    expected = Status.CONVERGED if kind == "zero" else Status.NON_FINITE
    assert certificate.status[1] == expected
    if kind == "zero":
        assert torch.equal(u[1], torch.zeros(6, dtype=D))
    for k in (0, 2):  # and leaves its neighbours alone
        assert not certificate.failed[k]
        torch.testing.assert_close(u[k], torch.linalg.solve(matrix[k], b[k]))


@every_solver
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_matrix_of_no_numbers_has_failed_and_leaves_its_neighbours_alone(solver: str, bad: float) -> None:
    matrix = torch.stack([conditioned(5.0, 6, seed) / 4 for seed in range(3)])
    matrix[1, 2, 3] = bad
    b = vector(3, 6)
    u, certificate = make(solver).solve(operator(matrix), b)
    assert certificate.failed.tolist() == [False, True, False]
    assert int(certificate.status[1]) in {Status.NON_FINITE, Status.SINGULAR}
    assert certificate.condition is not None
    torch.testing.assert_close(u[2], torch.linalg.solve(matrix[2], b[2]))


@every_solver
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4), (2, 0, 4)])
def test_nothing_at_all(solver: str, shape: tuple[int, ...]) -> None:
    matrix = torch.eye(shape[-1], dtype=D).expand(*shape, shape[-1])
    u, certificate = make(solver).solve(operator(matrix), torch.zeros(shape, dtype=D))
    assert u.shape == shape
    assert certificate.status.shape == shape[:-1]
    assert not certificate.failed.any()


@every_iteration
def test_no_budget_is_an_unsolved_system(solver: str, kind: str) -> None:
    u, certificate = make(solver, max_steps=0).solve(operator(KINDS[kind](5, 0)), vector(5))
    assert status(certificate) == Status.MAX_STEPS
    assert int(certificate.steps) == 0
    assert torch.equal(u, torch.zeros(5, dtype=D))
    torch.testing.assert_close(certificate.stationarity, vector(5).norm())


@every_iteration
@pytest.mark.parametrize("budget", [1, 3])
def test_the_budget_is_kept_and_the_residual_is_the_true_one(solver: str, kind: str, budget: int) -> None:
    counted = Counted(KINDS[kind](12, 0))
    u, certificate = make(solver, max_steps=budget).solve(Operator(counted), vector(12))
    assert status(certificate) == Status.MAX_STEPS
    assert int(certificate.steps) == budget
    assert counted.products == (2 * budget if solver == "BiCGStab" else budget) + 1
    torch.testing.assert_close(certificate.stationarity, (vector(12) - product(counted.matrix, u)).norm())


@every_pair
def test_damping_is_a_ridge(solver: str, kind: str) -> None:
    matrix, b = KINDS[kind](9, 0), vector(9)
    u, certificate = make(solver, damping=0.3).solve(operator(matrix), b)
    assert not certificate.failed
    torch.testing.assert_close(u, torch.linalg.solve(matrix + 0.3 * torch.eye(9, dtype=D), b))


@every_solver
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_right_hand_side_out_of_range_has_failed(solver: str, dtype: torch.dtype) -> None:
    short = {"max_steps": 60} if solver in {"BiCGStab", "Neumann"} else {}  # they can only run out of steps
    for seed in range(4):
        values = 0.1 + 0.9 * torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=D)
        values[0] = 0
        if solver in {"MINRES", "GMRES", "Direct"}:
            values[6:] *= -1
        matrix = symmetric(values, seed).to(dtype)
        _, certificate = make(solver, **short).solve(operator(matrix), vector(12, seed=seed).to(dtype))
        assert certificate.failed
        if solver in {"CG", "MINRES", "GMRES", "Direct"}:
            assert status(certificate) == Status.SINGULAR


@pytest.mark.parametrize("solver", [CG(), MINRES(), GMRES(), BiCGStab(), Neumann()])
def test_a_right_hand_side_in_range_has_a_least_norm_answer(solver: LinearSolver) -> None:
    matrix = symmetric(torch.tensor([0.0, 0.2, 0.4, 1.0], dtype=D), 0)
    b = product(matrix, vector(4))
    u, certificate = solver.solve(operator(matrix), b)
    assert not certificate.failed
    torch.testing.assert_close(u, torch.linalg.pinv(matrix) @ b, rtol=1e-9, atol=1e-11)


@every_solver
def test_the_zero_matrix_is_no_system(solver: str) -> None:
    _, certificate = make(solver).solve(operator(torch.zeros(3, 3, dtype=D)), torch.ones(3, dtype=D))
    assert certificate.failed
    if solver not in {"Neumann", "BiCGStab"}:
        assert status(certificate) == Status.SINGULAR


@every_pair
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_size_of_the_right_hand_side_does_not_matter(solver: str, kind: str, size: float) -> None:
    matrix, b = KINDS[kind](6, 0), vector(6)
    u, certificate = make(solver).solve(operator(matrix), size * b)
    assert not certificate.failed
    torch.testing.assert_close(u / size, torch.linalg.solve(matrix, b))


@every_pair
def test_the_condition_estimate_is_close_and_from_below(solver: str, kind: str) -> None:
    matrix = torch.stack([KINDS[kind](16, seed) for seed in range(3)])
    _, certificate = make(solver).solve(operator(matrix), vector(3, 16))
    values = torch.linalg.svdvals(matrix)
    true = values[:, 0] / values[:, -1]
    assert certificate.condition is not None
    least = 0.9 if solver in {"CG", "MINRES", "GMRES"} else 0.4 if solver == "Direct" else 0.1
    assert ((certificate.condition <= true * (1 + 1e-9)) & (certificate.condition >= least * true)).all()


@every_iteration
@pytest.mark.parametrize(
    ("setting", "value"),
    [("rtol", -1e-3), ("damping", -1.0), ("damping", torch.nan), ("max_steps", -1), ("preconditioner", 3.0)],
)
def test_settings_that_make_no_sense(solver: str, kind: str, setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{solver}: {setting} is {value}"):
        make(solver, **{setting: value})


@pytest.mark.parametrize(("solver", "setting", "value"), [(GMRES, "restart", 0), (Neumann, "step_size", 0.0)])
def test_own_settings_that_make_no_sense(solver: type[LinearSolver], setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        solver(**{setting: value})


def test_one_matrix_serves_many_right_hand_sides_at_once() -> None:
    matrix, b = vector(20, 20), vector(50, 20)
    counted = Counted(matrix)
    u, certificate = Direct().solve(Operator(counted, dense=matrix), b)
    assert counted.products == 0
    assert not certificate.failed.any()
    truth: Tensor = torch.linalg.solve(matrix, b.mT).mT
    torch.testing.assert_close(u, truth)
