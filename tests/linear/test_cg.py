"""Conjugate gradients: what is called solved is solved, and what is not says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import Certificate, InputError, Status
from bigrad.linear import CG, Diagonal, LinearSolver, Operator

from .systems import D, assert_no_third_outcome, conditioned, operator, product, status, symmetric, vector


class OldResidualCG(LinearSolver):
    """The known wrong variant: the new direction is made with the residual before the step."""

    def solve(self, operator: Operator, b: Tensor) -> tuple[Tensor, Certificate]:
        u, r, p = torch.zeros_like(b), b, b
        for _ in range(b.shape[-1]):
            image = operator.product(p)
            alpha = (r @ r) / (p @ image)
            u = u + alpha * p
            r_next = r - alpha * image
            p = r + (r_next @ r_next) / (r @ r) * p
            r = r_next
        return u, Certificate("plant", torch.tensor(0), r.norm(), 1e-12 * b.norm(), torch.tensor(b.shape[-1]))


@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_a_well_conditioned_system_is_solved_to_the_default_tolerance(kappa: float, seed: int) -> None:
    matrix, b = conditioned(kappa, 12, seed), vector(12, seed=seed)
    u, certificate = CG().solve(operator(matrix), b)
    assert status(certificate) == Status.CONVERGED
    assert (product(matrix, u) - b).norm() <= 1.01e-12 * b.norm() + 1e-15 * kappa * u.norm()
    assert (u - torch.linalg.solve(matrix, b)).norm() <= 2e-12 * kappa * u.norm()
    assert_no_third_outcome(CG(), matrix, b)


@pytest.mark.parametrize("kappa", [1e2, 1e5, 1e8, 1e11, 1e17])
@pytest.mark.parametrize("rtol", [None, 0.0])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_there_is_no_third_outcome(kappa: float, rtol: float | None, dtype: torch.dtype) -> None:
    outcomes = {
        assert_no_third_outcome(CG(rtol=rtol), conditioned(kappa, 10, seed).to(dtype), vector(10, seed=seed).to(dtype))
        for seed in range(2)
    }
    if kappa <= 0.01 / torch.finfo(dtype).eps ** 0.5:
        assert outcomes <= {Status.CONVERGED, Status.ROUNDING_FLOOR}


def test_a_direction_from_the_old_residual_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_no_third_outcome(OldResidualCG(), conditioned(10.0, 12, 0), vector(12))


def test_an_unreachable_tolerance_ends_at_the_rounding_floor() -> None:
    outcome = assert_no_third_outcome(CG(rtol=0.0), conditioned(100.0, 10, 0), vector(10))
    assert outcome == Status.ROUNDING_FLOOR


def test_the_tolerance_holds_for_what_is_left_and_not_for_what_was_updated() -> None:
    matrix, b = conditioned(1e8, 12, 1), vector(12)
    u, certificate = CG(max_steps=300).solve(operator(matrix), b)
    true = (b - product(matrix, u)).norm()
    torch.testing.assert_close(certificate.stationarity, true, rtol=0, atol=100 * 2e-16 * float(1e8 * u.norm()))


def mixed() -> tuple[Tensor, Tensor]:
    """64 systems of conditions 1 to 1e4 whose matrices and right-hand sides are of size 1e-6 to 1e6."""
    kappa = torch.logspace(0, 4, 64, dtype=D)
    sizes = 10 ** (torch.arange(64, dtype=D) * 5 % 13 - 6)
    values = sizes[:, None] * kappa[:, None] ** torch.linspace(0, 1, 6, dtype=D)
    return symmetric(values, 0), sizes.flip(0)[:, None] * vector(64, 6)


def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems() -> None:
    matrix, b = mixed()
    calls = 0

    def count(u: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return product(matrix, u)

    u, certificate = CG().solve(Operator(count, symmetric=True), b)
    assert not certificate.failed.any()
    alone = [CG().solve(operator(matrix[k]), b[k]) for k in range(64)]
    each = torch.stack([answer for answer, _ in alone])
    assert ((u - each).norm(dim=-1) <= 1e-10 * each.norm(dim=-1)).all()
    steps = torch.stack([one.steps for _, one in alone])
    assert (certificate.steps - steps).abs().max() <= 2
    assert certificate.steps.max() == steps.max()
    assert calls <= certificate.steps.max() + 3


def test_a_problem_that_is_done_rests_while_others_go_on() -> None:
    matrix, b = torch.stack([conditioned(10.0, 12, 0), conditioned(1e4, 12, 1)]), vector(2, 12)
    solver = CG(rtol=1e-3)
    together, certificate = solver.solve(operator(matrix), b)
    assert certificate.steps[1] > certificate.steps[0] + 4
    torch.testing.assert_close(together[0], solver.solve(operator(matrix[0]), b[0])[0], rtol=1e-12, atol=1e-13)


def test_a_failing_problem_leaves_its_neighbours_alone() -> None:
    matrix = torch.stack([conditioned(10.0, 6, 0), -conditioned(10.0, 6, 1), conditioned(10.0, 6, 2)])
    b = vector(3, 6)
    b[2, 3] = torch.nan
    u, certificate = CG().solve(operator(matrix), b)
    assert certificate.status.tolist() == [Status.CONVERGED, Status.INDEFINITE, Status.NON_FINITE]
    torch.testing.assert_close(u[0], torch.linalg.solve(matrix[0], b[0]))


@pytest.mark.parametrize("size", [2, 5, 20])
@pytest.mark.parametrize("negative", [1, 2, 20])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_direction_of_negative_curvature_is_indefinite(size: int, negative: int, dtype: torch.dtype) -> None:
    for seed in range(5):
        values = 1 + vector(size, seed=seed).abs()
        values[:negative] *= -0.1
        _, certificate = CG().solve(operator(symmetric(values, seed).to(dtype)), vector(size, seed=seed + 9).to(dtype))
        assert status(certificate) == Status.INDEFINITE


def test_zero_curvature_of_an_invertible_matrix_is_indefinite() -> None:
    _, certificate = CG().solve(operator(torch.diag(torch.tensor([1.0, -1.0], dtype=D))), torch.ones(2, dtype=D))
    assert status(certificate) == Status.INDEFINITE


@pytest.mark.parametrize("size", [2, 5, 20])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_right_hand_side_out_of_range_is_singular(size: int, dtype: torch.dtype) -> None:
    for seed in range(10):
        values = 1 + 9 * torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=D)
        values[0] = 0
        _, certificate = CG().solve(operator(symmetric(values, seed).to(dtype)), vector(size, seed=seed).to(dtype))
        assert status(certificate) == Status.SINGULAR


def test_a_right_hand_side_in_range_has_a_least_norm_answer() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=D)
    matrix = symmetric(values, 0)
    b = product(matrix, vector(4))
    u, certificate = CG().solve(operator(matrix), b)
    assert status(certificate) == Status.CONVERGED
    torch.testing.assert_close(u, torch.linalg.pinv(matrix) @ b)


def test_the_zero_matrix_is_singular() -> None:
    _, certificate = CG().solve(operator(torch.zeros(3, 3, dtype=D)), torch.ones(3, dtype=D))
    assert status(certificate) == Status.SINGULAR


def test_nothing_to_solve_for_takes_no_step() -> None:
    u, certificate = CG().solve(operator(conditioned(10.0, 5, 0)), torch.zeros(5, dtype=D))
    assert status(certificate) == Status.CONVERGED
    assert int(certificate.steps) == 0
    assert torch.equal(u, torch.zeros(5, dtype=D))


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_size_of_the_right_hand_side_does_not_matter(size: float) -> None:
    matrix, b = conditioned(10.0, 5, 0), vector(5)
    u, certificate = CG().solve(operator(matrix), size * b)
    assert status(certificate) == Status.CONVERGED
    torch.testing.assert_close(u / size, torch.linalg.solve(matrix, b))


def test_a_tiny_right_hand_side_in_float32_is_not_taken_for_zero() -> None:
    u, _ = CG().solve(operator(2 * torch.eye(3)), torch.full((3,), 1e-25))
    torch.testing.assert_close(u, torch.full((3,), 5e-26), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_none_end_at_once(bad: float) -> None:
    matrix, b = conditioned(10.0, 5, 0), vector(5)
    spoiled = b.clone()
    spoiled[1] = bad
    assert status(CG().solve(operator(matrix), spoiled)[1]) == Status.NON_FINITE
    matrix[2, 3] = bad
    assert status(CG().solve(operator(matrix), b)[1]) == Status.NON_FINITE


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_the_budget_is_kept(budget: int) -> None:
    calls = []
    matrix = conditioned(1e4, 12, 0)
    counted = Operator(lambda u: calls.append(1) or product(matrix, u), symmetric=True)
    u, certificate = CG(max_steps=budget).solve(counted, vector(12))
    assert status(certificate) == Status.MAX_STEPS
    assert int(certificate.steps) == budget
    assert len(calls) == budget + 1
    torch.testing.assert_close(certificate.stationarity, (vector(12) - product(matrix, u)).norm())


def test_the_error_in_the_energy_norm_falls_with_every_step() -> None:
    matrix, b = conditioned(1e4, 12, 0), vector(12)
    truth = torch.linalg.solve(matrix, b)
    errors = [CG(max_steps=k).solve(operator(matrix), b)[0] - truth for k in range(30)]
    energy = torch.stack([error @ matrix @ error for error in errors])
    assert (energy[1:] < energy[:-1] + 1e-20).all()
    assert energy[-1] < 1e-12 * energy[0]


@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_damping_is_a_ridge(damping: float) -> None:
    matrix, b = conditioned(100.0, 6, 0), vector(6)
    u, _ = CG(damping=damping).solve(operator(matrix), b)
    torch.testing.assert_close(u, torch.linalg.solve(matrix + damping * torch.eye(6, dtype=D), b))


def test_damping_makes_an_indefinite_system_solvable() -> None:
    matrix, b = torch.diag(torch.tensor([2.0, -0.5], dtype=D)), vector(2)
    u, certificate = CG(damping=1.0).solve(operator(matrix), b)
    assert status(certificate) == Status.CONVERGED
    torch.testing.assert_close(u, b / torch.tensor([3.0, 0.5], dtype=D))


def test_float32_stays_float32_and_is_as_good_as_it_can_be() -> None:
    matrix, b = conditioned(100.0, 8, 0).float(), vector(8).float()
    u, certificate = CG().solve(operator(matrix), b)
    assert u.dtype == torch.float32
    assert not certificate.failed
    assert (u.to(D) - torch.linalg.solve(matrix.to(D), b.to(D))).norm() <= 1e-4 * u.norm()


def test_the_right_hand_side_is_left_as_it_was() -> None:
    b = vector(6)
    CG().solve(operator(conditioned(10.0, 6, 0)), b)
    assert torch.equal(b, vector(6))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rtol", -1e-3), ("rtol", torch.nan), ("damping", -1.0), ("damping", torch.nan), ("max_steps", -1)],
)
def test_settings_that_make_no_sense(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        CG(**{setting: value})  # type: ignore[arg-type]  # one of them


def test_problems_in_lockstep_take_a_fiftieth_of_the_steps_of_one_coupled_system() -> None:
    scale = 10.0 ** (torch.arange(64, dtype=D) % 13 - 6)
    matrix = scale[:, None, None] * torch.stack([conditioned(10.0, 30, seed) for seed in range(64)])
    b = scale[:, None] * vector(64, 30)
    u, certificate = CG().solve(operator(matrix), b)
    assert not certificate.failed.any()
    truth = torch.linalg.solve(matrix, b)
    assert ((u - truth).norm(dim=-1) <= 1e-10 * truth.norm(dim=-1)).all()
    most = 50 * int(certificate.steps.max())
    assert most < 5000
    coupled = Operator(lambda u: product(matrix, u.view(64, 30)).reshape(-1), symmetric=True)
    v, one = CG(max_steps=most).solve(coupled, b.reshape(-1))
    assert status(one) == Status.MAX_STEPS
    assert ((v.view(64, 30) - truth).norm(dim=-1) / truth.norm(dim=-1)).max() > 0.1


@pytest.mark.parametrize("size", [10, 60])
@pytest.mark.parametrize("kappa", [1e2, 1e4, 1e6])
def test_the_error_of_an_ill_conditioned_system_is_small_or_reported(size: int, kappa: float) -> None:
    matrix = torch.stack([conditioned(kappa, size, seed) for seed in range(3)])
    b = vector(3, size, seed=8)
    u, certificate = CG().solve(operator(matrix), b)
    truth = torch.linalg.solve(matrix, b)
    error = (u - truth).norm(dim=-1) / truth.norm(dim=-1)
    assert (certificate.failed | (error <= 1e-9)).all()


@pytest.mark.parametrize("alone", [True, False])
def test_a_direction_too_short_to_be_squared_ends_with_a_status(alone: bool) -> None:
    matrix, b = conditioned(10.0, 6, 0), vector(6)
    solver = CG(preconditioner=Diagonal(torch.full((6,), 1e200, dtype=D)))
    _, certificate = (
        solver.solve(operator(matrix), b) if alone else solver.solve(operator(matrix.expand(2, 6, 6)), b.expand(2, 6))
    )
    assert (certificate.status == Status.SINGULAR).all()


@pytest.mark.parametrize("copies", [1, 2])
def test_a_restart_starts_a_new_block_of_the_lanczos_matrix(copies: int) -> None:
    """The directions before and after it are not conjugate, so that nothing couples them."""
    starts = []

    class Watched(CG):
        def _sweep(self, run: Any) -> None:
            starts.append(int(run.steps.max()))
            super()._sweep(run)

    matrix, b = conditioned(1e6, 20, seed=0), vector(20, seed=0)
    _, certificate = Watched().solve(operator(matrix), b if copies == 1 else b.expand(copies, -1))
    assert len(starts) > 1
    assert certificate.ritz is not None
    diagonal, off = (part.reshape(len(part), copies)[:, 0] for part in certificate.ritz)
    assert [*(off[:-1] == 0).nonzero().flatten() + 1] == starts[1:]
    coupled = torch.diag(diagonal) + torch.diag(off[:-1], 1) + torch.diag(off[:-1], -1)
    values = torch.linalg.eigvalsh(coupled)
    assert (values[0], values[-1]) == (pytest.approx(1.0, rel=1e-6), pytest.approx(1e6, rel=1e-6))
