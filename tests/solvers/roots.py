"""Equations and maps with known solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bigrad import Certificate, Status
from bigrad.equation import Equation, Mapping, Problem
from bigrad.solvers import Solver

from .objectives import D, vector

Function = Callable[[Tensor], Tensor]


def spread(radius: float, size: int, symmetric: bool = True, seed: int = 0) -> Tensor:
    """A matrix of that spectral radius: symmetric with eigenvalues on both sides of zero, or any."""
    if symmetric:
        basis, _ = torch.linalg.qr(vector(size, size, seed=seed))
        values = radius * torch.cos(torch.arange(size, dtype=D))
        return (basis * values) @ basis.mT
    matrix = vector(size, size, seed=seed)
    return radius * matrix / torch.linalg.eigvals(matrix).abs().max()


def affine(radius: float, size: int, symmetric: bool = True) -> tuple[Function, Tensor]:
    """``A y + b`` with that spectral radius, and its fixed point."""
    matrix, shift = spread(radius, size, symmetric), vector(size, seed=7)
    return lambda y: y @ matrix.mT.to(y) + shift.to(y), torch.linalg.solve(torch.eye(size, dtype=D) - matrix, shift)


def bellman(discount: float, states: int = 20) -> Function:
    """The optimality operator of a random decision process: a contraction with kinks."""
    draw = torch.Generator().manual_seed(0)
    move = torch.rand(3, states, states, generator=draw, dtype=D) ** 8
    move, reward = move / move.sum(-1, keepdim=True), torch.randn(3, states, generator=draw, dtype=D)
    return lambda y: (reward + discount * torch.einsum("ast,...t->...as", move, y)).amax(-2)


def network(scale: float = 1.0, size: int = 20) -> Function:
    """An equation of no symmetry: ``scale * (y + tanh(W y) - 1)``."""
    weight = vector(size, size) / size**0.5
    return lambda y: scale * (y + torch.tanh(y @ weight.to(y)) - 1)


def tridiagonal(y: Tensor) -> Tensor:
    """Broyden's tridiagonal system."""
    left = torch.nn.functional.pad(y[..., :-1], (1, 0))
    right = torch.nn.functional.pad(y[..., 1:], (0, 1))
    return (3 - 2 * y) * y - left - 2 * right + 1


def valley(y: Tensor) -> Tensor:
    """Rosenbrock's system; the root is all ones."""
    return torch.stack([10 * (y[..., 1] - y[..., 0] ** 2), 1 - y[..., 0]], -1)


def jump(y: Tensor) -> Tensor:
    """A contraction only far out."""
    return 0.9 * y + 5 * torch.sin(3 * y) / (1 + y**2)


def solve(solver: Solver, problem: Problem, start: Tensor) -> tuple[Status, Tensor, Certificate]:
    """Solve, and check every number of the certificate against one computed here."""
    y, certificate = solver.solve(problem, start, ())
    assert y.dtype == start.dtype
    assert y.shape == start.shape
    assert not y.requires_grad
    status = Status(int(certificate.status.max())) if certificate.status.numel() else Status.CONVERGED
    absolute, relative = (
        given if given is not None else 1e-10 if start.dtype == D else 1e-5 for given in (solver.atol, solver.rtol)
    )
    found, wanted = problem.residual(y).norm(dim=-1), absolute + relative * problem.residual(start).norm(dim=-1)
    torch.testing.assert_close(certificate.stationarity, found, rtol=1e-4, atol=1e-13, equal_nan=True)
    torch.testing.assert_close(certificate.tolerance, wanted, rtol=1e-5, atol=0, equal_nan=True)
    converged = certificate.status == Status.CONVERGED
    assert bool((certificate.stationarity <= wanted)[converged].all())
    return status, y, certificate


@dataclass
class Counted:
    """A function that counts its calls."""

    function: Function
    calls: int = 0

    def __call__(self, y: Tensor) -> Tensor:
        self.calls += 1
        return self.function(y)


def fixed_point(function: Function, batch_dims: int = 0) -> Mapping:
    return Mapping(function, batch_dims)


def root(function: Function, batch_dims: int = 0) -> Equation:
    return Equation(function, batch_dims)
