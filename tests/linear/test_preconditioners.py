"""Preconditioners change the speed and never the answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status
from bigrad.linear import (
    CG,
    GMRES,
    MINRES,
    BiCGStab,
    Diagonal,
    LinearSolver,
    Neumann,
    Nystrom,
    Operator,
    Preconditioner,
)

from .systems import (
    ITERATIVE,
    KINDS,
    SOLVERS,
    Counted,
    D,
    conditioned,
    indefinite,
    operator,
    product,
    status,
    symmetric,
    vector,
)

PRECONDITIONERS = {
    "diagonal": Diagonal(),
    "estimate": Diagonal(probes=8),
    "values": Diagonal(torch.linspace(1, 2, 30, dtype=D)),
    "Nystrom": Nystrom(10),
    "ridged Nystrom": Nystrom(50, ridge=0.1, seed=3),
}


def scaled_rows(size: int, seed: int) -> Tensor:
    """A well-conditioned matrix between diagonals that are not: what Jacobi's preconditioner is made for."""
    sizes = (
        10 ** torch.linspace(-2, 2, size, dtype=D)[torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
    )
    return sizes[:, None] * (torch.eye(size, dtype=D) + 0.1 * conditioned(2.0, size, seed)) * sizes


def low_rank(size: int, rank: int, seed: int) -> Tensor:
    return symmetric(torch.cat([torch.logspace(3, 6, rank, dtype=D), torch.linspace(1, 2, size - rank, dtype=D)]), seed)


@pytest.mark.parametrize(("solver", "kind"), ITERATIVE)
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_the_answer_stays(solver: str, kind: str, name: str) -> None:
    matrix, b = torch.stack([KINDS[kind](30, seed) for seed in range(2)]), vector(2, 30)
    if solver == "Neumann" and name == "values":
        matrix = matrix / 1.5
    u, certificate = SOLVERS[solver][0](preconditioner=PRECONDITIONERS[name], max_steps=150).solve(operator(matrix), b)
    truth = torch.linalg.solve(matrix, b)
    if certificate.failed.any():
        assert solver in {"BiCGStab", "Neumann"} or (kind == "indefinite" and "Nystrom" in name)  # not made for these
        return
    assert ((u - truth).norm(dim=-1) <= 1e-10 * truth.norm(dim=-1)).all()
    true = (b - product(matrix, u)).norm(dim=-1)
    torch.testing.assert_close(certificate.stationarity, true, rtol=1e-2, atol=1e-13)
    assert (certificate.stationarity <= 1.01e-12 * b.norm(dim=-1)).all()  # the norm of the system's own residual


@pytest.mark.parametrize("solver", [CG, MINRES, GMRES, BiCGStab])
@pytest.mark.parametrize("dense", [False, True])
def test_the_diagonal_makes_a_badly_scaled_system_easy(solver: type[LinearSolver], dense: bool) -> None:
    matrix, b = scaled_rows(60, 0), vector(60)
    _, slow = solver(max_steps=300).solve(operator(matrix, dense), b)
    for diagonal in (Diagonal(), Diagonal(matrix.diagonal()), Diagonal(probes=60)):
        u, fast = solver(max_steps=300, preconditioner=diagonal).solve(operator(matrix, dense), b)
        assert not fast.failed
        assert int(fast.steps) <= int(slow.steps) / 2
        torch.testing.assert_close(product(matrix, u), b)


def test_a_known_diagonal_costs_no_products_and_an_estimate_its_probes() -> None:
    counted, like = Counted(conditioned(5.0, 40, 0)), vector(40)
    Diagonal().build(Operator(counted, dense=counted.matrix), like, 0.0)
    Diagonal(torch.ones(40, dtype=D)).build(Operator(counted), like, 0.0)
    assert counted.products == 0
    Diagonal(probes=7).build(Operator(counted), like, 0.0)
    assert counted.products == 7
    Nystrom(9).build(Operator(counted), like, 0.0)
    assert counted.products == 16


def test_an_estimate_is_right_to_the_error_of_its_mean() -> None:
    matrix = scaled_rows(40, 1)
    inverse = Diagonal(probes=39).build(operator(matrix), vector(40), 0.5)
    ratio = 1 / inverse(torch.ones(40, dtype=D)) / (matrix.diagonal() + 0.5)
    assert ((ratio > 0.3) & (ratio < 30)).all()
    assert (ratio.log().abs() < 0.7).double().mean() > 0.7


@pytest.mark.parametrize("solver", [CG, MINRES, GMRES])
def test_nystrom_takes_care_of_the_large_eigenvalues(solver: type[LinearSolver]) -> None:
    matrix, b = low_rank(100, 12, 0), vector(100)
    _, slow = solver(max_steps=400, rtol=1e-9).solve(operator(matrix), b)
    u, fast = solver(max_steps=400, rtol=1e-9, preconditioner=Nystrom(16)).solve(operator(matrix), b)
    assert not fast.failed
    assert int(fast.steps) <= 20
    assert int(slow.steps) >= (1.5 if solver is GMRES else 3) * int(fast.steps)
    truth = torch.linalg.solve(matrix, b)
    assert (u - truth).norm() <= 1e-8 * truth.norm()


@pytest.mark.parametrize("rank", [1, 16, 200])
def test_nystrom_is_symmetric_positive_definite_and_the_inverse_on_what_it_has_seen(rank: int) -> None:
    matrix = low_rank(50, 5, 1)
    inverse = Nystrom(rank).build(operator(matrix), vector(50), 0.0)
    written = torch.stack([inverse(column) for column in torch.eye(50, dtype=D)], -1)
    torch.testing.assert_close(written, written.mT)
    assert torch.linalg.eigvalsh(written)[0] > 0
    spread = torch.linalg.eigvals(written @ matrix).real
    if rank == 200:  # all of it: the preconditioner is the inverse, up to a number
        assert spread.max() <= spread.min() * (1 + 1e-6)


def test_nystrom_as_the_inverse_would_be_caught() -> None:
    """The wrong variant: the low-rank inverse as the answer."""
    matrix, b = low_rank(100, 12, 0), vector(100)
    truth = torch.linalg.solve(matrix, b)
    for rank in (16, 50, 90):
        wrong = Nystrom(rank).build(operator(matrix), b, 0.0)(b)
        assert (wrong - truth).norm() > 1e-3 * truth.norm()


def test_a_batch_of_scales_is_preconditioned_one_by_one() -> None:
    scale = 10.0 ** torch.arange(-6, 7, 4, dtype=D)
    matrix = scale[:, None, None] * torch.stack([low_rank(40, 6, seed) for seed in range(4)])
    b = vector(4, 40)
    for preconditioner in (Nystrom(10), Diagonal(probes=8)):
        _, certificate = CG(rtol=1e-8, preconditioner=preconditioner).solve(operator(matrix), b)
        assert not certificate.failed.any()
        alone = [CG(rtol=1e-8, preconditioner=preconditioner).solve(operator(matrix[k]), b[k])[1] for k in range(4)]
        steps = torch.stack([one.steps for one in alone])
        assert ((certificate.steps - steps).abs() <= 2 + 0.1 * steps).all()


@pytest.mark.parametrize("preconditioner", [Diagonal(), Diagonal(probes=3), Nystrom(4)])
@pytest.mark.parametrize("solver", [CG, MINRES, GMRES, BiCGStab, Neumann])
def test_hard_cases_raise_nothing(preconditioner: Preconditioner, solver: type[LinearSolver]) -> None:
    one = solver(preconditioner=preconditioner, max_steps=30)
    spoilt = torch.eye(6, dtype=D).clone()
    spoilt[1, 1] = torch.nan
    for matrix in (torch.zeros(6, 6, dtype=D), -torch.eye(6, dtype=D), indefinite(1e3, 6, 0), spoilt):
        u, certificate = one.solve(operator(matrix), vector(6))
        left = (product(matrix, u) - vector(6)).norm()
        assert certificate.failed or left <= 1e-8
    for shape in ((0,), (3, 0), (0, 6)):
        u, certificate = one.solve(operator(torch.zeros(*shape, shape[-1], dtype=D)), torch.zeros(shape, dtype=D))
        assert u.shape == shape


def test_float32_stays_float32_and_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    for preconditioner in (Nystrom(10), Diagonal(probes=8)):
        solver = CG(preconditioner=preconditioner)
        answers = [solver.solve(operator(low_rank(40, 6, 0).float()), vector(40).float())[0] for _ in range(2)]
        assert answers[0].dtype == torch.float32
        assert torch.equal(*answers)
    assert torch.equal(before, torch.get_rng_state())


class Negative(Preconditioner):
    def build(self, operator: Operator, like: Tensor, damping: float) -> object:  # type: ignore[override]  # a plant
        return lambda r: -r


@pytest.mark.parametrize("solver", [CG, MINRES])
def test_a_preconditioner_that_is_not_definite_is_found_out(solver: type[LinearSolver]) -> None:
    _, certificate = solver(preconditioner=Negative()).solve(operator(conditioned(10.0, 6, 0)), vector(6))
    assert status(certificate) == Status.INDEFINITE


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="values must be positive"):
        Diagonal(torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="probes is 0"):
        Diagonal(probes=0)
    with pytest.raises(InputError, match="rank is 0"):
        Nystrom(0)
    with pytest.raises(InputError, match="ridge is -1"):
        Nystrom(3, ridge=-1.0)
