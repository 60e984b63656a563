"""Matrices with chosen eigenvalues, and what an honest answer to ``A u = b`` is."""

from __future__ import annotations

import torch
from torch import Tensor

from bigrad import Certificate, Status
from bigrad.linear import CG, GMRES, MINRES, BiCGStab, Direct, LinearSolver, Neumann, Operator

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


def indefinite(kappa: float, size: int, seed: int) -> Tensor:
    """A symmetric matrix as above, with every other eigenvalue negative."""
    signs = torch.where(torch.arange(size) % 2 == 0, 1.0, -1.0)
    return symmetric(signs * torch.logspace(0, 1, size, base=kappa, dtype=D), seed)


def unsymmetric(size: int, seed: int) -> Tensor:
    """A matrix whose eigenvalues fill a disc of radius a half around one."""
    return torch.eye(size, dtype=D) + 0.5 * vector(size, size, seed=seed) / size**0.5


def vector(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draw(seed), dtype=D)


def product(matrix: Tensor, u: Tensor) -> Tensor:
    return (matrix @ u.unsqueeze(-1)).squeeze(-1)


def operator(matrix: Tensor, dense: bool = False) -> Operator:
    return Operator(lambda u: product(matrix, u), symmetric=True, dense=matrix if dense else None)


def status(certificate: Certificate) -> Status:
    return Status(int(certificate.status))


KINDS = {
    "definite": lambda size, seed: conditioned(20.0, size, seed),
    "gentle": lambda size, seed: conditioned(3.0, size, seed) / 2,
    "indefinite": lambda size, seed: indefinite(20.0, size, seed),
    "unsymmetric": unsymmetric,
}
SOLVERS: dict[str, tuple[type[LinearSolver], tuple[str, ...]]] = {
    "CG": (CG, ("definite",)),
    "MINRES": (MINRES, ("definite", "indefinite")),
    "GMRES": (GMRES, ("definite", "indefinite", "unsymmetric")),
    "BiCGStab": (BiCGStab, ("definite", "unsymmetric")),
    "Neumann": (Neumann, ("gentle", "unsymmetric")),
    "Direct": (Direct, ("definite", "indefinite", "unsymmetric")),
}
PAIRS = [(solver, kind) for solver, (_, kinds) in SOLVERS.items() for kind in kinds]
ITERATIVE = [(solver, kind) for solver, kind in PAIRS if solver != "Direct"]


class Counted:
    """The operator of a matrix that counts its products."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def __call__(self, u: Tensor) -> Tensor:
        self.products += 1
        return product(self.matrix, u)


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
