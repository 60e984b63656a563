"""Matrices with chosen eigenvalues, and what an honest answer to ``A u = b`` is."""

from __future__ import annotations

import torch
from torch import Tensor

from bigrad import Certificate, Status
from bigrad.linear import LinearSolver, Operator

D = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetric(values: Tensor, seed: int) -> Tensor:
    """A symmetric matrix ``(*batch, n, n)`` with these eigenvalues ``(*batch, n)``."""
    basis, _ = torch.linalg.qr(torch.randn(*values.shape, values.shape[-1], generator=draw(seed), dtype=D))
    matrix = (basis * values.unsqueeze(-2)) @ basis.mT
    return (matrix + matrix.mT) / 2


def conditioned(kappa: float, size: int, seed: int) -> Tensor:
    """A positive definite matrix with eigenvalues spread evenly in their logarithm from 1 to ``kappa``."""
    return symmetric(torch.logspace(0, 1, size, base=kappa, dtype=D), seed)


def vector(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draw(seed), dtype=D)


def product(matrix: Tensor, u: Tensor) -> Tensor:
    return (matrix @ u.unsqueeze(-1)).squeeze(-1)


def operator(matrix: Tensor, dense: bool = False) -> Operator:
    return Operator(lambda u: product(matrix, u), symmetric=True, dense=matrix if dense else None)


def status(certificate: Certificate) -> Status:
    return Status(int(certificate.status))


def assert_no_third_outcome(solver: LinearSolver, matrix: Tensor, b: Tensor) -> Status:
    """Either the reported residual is true and the error as small as it implies, or the solve says that it failed."""
    u, certificate = solver.solve(operator(matrix), b)
    eps = torch.finfo(b.dtype).eps
    if certificate.failed:
        return status(certificate)
    wide = matrix.to(D)
    residual = (b.to(D) - wide @ u.to(D)).norm()
    reach = torch.linalg.matrix_norm(wide, 2)
    rounding = eps * (reach * u.to(D).norm() + b.to(D).norm())
    assert abs(float(residual) - float(certificate.stationarity)) <= 100 * rounding
    if status(certificate) == Status.CONVERGED:
        assert residual <= certificate.tolerance + 100 * rounding
    else:
        assert residual <= 200 * b.shape[-1] * rounding
    truth = torch.linalg.solve(wide, b.to(D))
    inverse = 1 / torch.linalg.matrix_norm(wide, -2)
    assert (u.to(D) - truth).norm() <= 1.01 * inverse * residual + 100 * inverse * rounding
    assert (u.to(D) - truth).norm() <= 0.5 * truth.norm()
    return status(certificate)
