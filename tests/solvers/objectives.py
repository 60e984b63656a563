"""Objectives with known minimisers, and what an honest answer of a solver is."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from bigrad import Certificate, Status
from bigrad.equation import Objective
from bigrad.solvers import Solver

D = torch.float64
Function = Callable[[Tensor], Tensor]
ANSWERS = {Status.CONVERGED, Status.ROUNDING_FLOOR}


def vector(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def quadratic(kappa: float, size: int, seed: int = 0) -> tuple[Function, Tensor]:
    """``(y - y*)' A (y - y*) / 2`` with eigenvalues from 1 to ``kappa``, and its minimiser."""
    basis, _ = torch.linalg.qr(vector(size, size, seed=seed))
    matrix = (basis * torch.logspace(0, 1, size, base=kappa, dtype=D)) @ basis.mT
    best = vector(size, seed=seed + 1)
    return lambda y: 0.5 * (y - best.to(y)) @ matrix.to(y) @ (y - best.to(y)), best


def rosenbrock(y: Tensor) -> Tensor:
    """A curved valley; the minimiser is all ones."""
    return (100 * (y[..., 1:] - y[..., :-1] ** 2) ** 2 + (1 - y[..., :-1]) ** 2).sum(-1)


def smooth_maximum(y: Tensor) -> Tensor:
    """A log-sum-exp of 20 planes with a small ridge: strongly convex with modulus 0.02."""
    planes = vector(20, y.shape[-1], seed=3).to(y)
    return torch.logsumexp(y @ planes.mT + vector(20, seed=4).to(y), -1) + 0.01 * (y**2).sum(-1)


def minimise(solver: Solver, function: Function, start: Tensor, batch_dims: int = 0) -> tuple[Tensor, Certificate]:
    return solver.solve(Objective(function, batch_dims), start, ())


def slope(function: Function, y: Tensor) -> Tensor:
    free = y.detach().clone().requires_grad_()
    return torch.autograd.grad(function(free).sum(), free)[0]


def honest(solver: Solver, function: Function, start: Tensor) -> tuple[Status, Tensor]:
    """Solve, and check every number of the certificate against one computed here."""
    y, certificate = minimise(solver, function, start)
    assert y.dtype == start.dtype
    status = Status(int(certificate.status))
    absolute, relative = (
        given if given is not None else 1e-10 if start.dtype == D else 1e-5 for given in (solver.atol, solver.rtol)
    )
    wanted = absolute + relative * slope(function, start).norm()
    if not certificate.failed:
        torch.testing.assert_close(certificate.stationarity, slope(function, y).norm(), rtol=1e-5, atol=0)
        torch.testing.assert_close(certificate.tolerance, wanted, rtol=1e-5, atol=0)
    if status == Status.CONVERGED:
        assert certificate.stationarity <= wanted
    return status, y


class Kinks:
    """Objectives with a kink each: slope -1 on its left, ``sharp`` on its right, on a bowl of curvature ``smooth``."""

    def __init__(self, dtype: torch.dtype) -> None:
        places = (0.0, 1.0, 0.1, -3.7, 1e-3, 1 / 3, 1e5)
        every = torch.tensor(list(itertools.product(places, (1.0, 3.0), (0.0, 0.1))), dtype=dtype)
        self.at, self.sharp, self.smooth = every.T.unsqueeze(-1)

    def __call__(self, y: Tensor) -> Tensor:
        away = y - self.at
        return (torch.relu(-away) + self.sharp * torch.relu(away) + self.smooth * (away - 1) ** 2).sum(-1)

    def judge(self, y: Tensor, certificate: Certificate) -> None:
        """Only a point whose gradient is zero in torch's eyes counts as solved; none is at a rounding floor."""
        solved = slope(self, y).norm(dim=-1) <= certificate.tolerance
        failed = (certificate.status == Status.STALLED) | (certificate.status == Status.MAX_STEPS)
        assert torch.equal(failed, ~solved)
        assert torch.equal(certificate.status == Status.CONVERGED, solved)
        assert failed.sum() > 10
