"""Batches of small quadratic programs by compiled code, where nothing about their solutions is in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from .active_set import negligible
from .solver import tolerance

_LARGEST = 256  # variables and constraints up to which loops are no slower than the library's blocked algebra
Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class ExchangeFactor:
    """The KKT systems of solved programs, factorised: what :func:`kkt_numba.solve` takes.

    Attributes:
        arrays: ``upper``, ``schur``, ``order``, ``count``, ``units`` and ``active``.
        batch: the shape of the batch, whose problems the arrays have in a row.
    """

    arrays: Arrays
    batch: torch.Size

    def solve(self, b: Tensor, *, transposed: bool) -> Tensor:
        """``J^-1 b`` for ``b`` ``(*more, *batch, n + k)``; the matrix is symmetric."""
        from .kkt_numba import solve

        more = b.shape[: b.ndim - 1 - len(self.batch)].numel()
        given = b.detach().double().reshape(more, self.batch.numel(), b.shape[-1]).contiguous()
        found = torch.empty_like(given)
        solve(*(*self.arrays, given.numpy(), found.numpy()))
        return found.reshape(b.shape).to(b.dtype)


def exchanged(
    like: Tensor, inputs: tuple[Tensor, ...], rtol: float | None, atol: float | None, rounds: int, insist: bool = True
) -> tuple[Tensor, Certificate] | None:
    """The points ``(*batch, n + p + m)`` of the shape of ``like`` where the conditions of optimality hold.

    Constraints are exchanged one by one, each ``rounds`` times at most. ``None`` where one of the programs is too
    large, has no definite ``Q``, or is infeasible or degenerate: the torch code tells these apart. ``None`` also where
    every process would have to compile anew, unless the caller will ``insist``.

    Source: A numerically stable dual method for solving strictly convex quadratic programs (Goldfarb, Idnani, 1983).
    """
    batch, (n, p, m) = like.shape[:-1], (x.shape[-1] for x in inputs[1::2])
    size, k = batch.numel(), p + m
    if not size or not rounds or n + k > _LARGEST:
        return None
    from ..kernel import stored
    from .kkt_numba import settle

    if not (insist or stored(settle)):
        return None
    data = in_a_row(inputs, batch)
    wide = 1 if all(len(matrix) == 1 for matrix in data[::2]) else size
    active = torch.empty((size, k), dtype=torch.bool)
    steps, count = torch.empty((2, size), dtype=torch.int64)
    order = torch.empty((size, k), dtype=torch.int64)
    double = torch.float64
    s, numbers = torch.empty((size, n + k), dtype=double), torch.empty((4, size), dtype=double)
    upper, schur = torch.empty((wide, n, n + k), dtype=double), torch.empty((size, k, k), dtype=double)
    units = torch.empty((wide, n + 2 * k + 1), dtype=double)
    kept = tuple(x.numpy() for x in (upper, schur, order, count, units, active))
    precision = negligible(like.dtype), torch.finfo(like.dtype).eps, like.dtype == torch.float32
    found = *(x.numpy() for x in (s, steps, numbers)), *kept
    if not settle(*(*data, *precision, rounds * max(1, k), *found)):
        return None
    norm, linear, violation, margin = numbers.to(like.dtype).reshape(4, *batch)
    wanted = tolerance(rtol, atol, linear)
    certificate = Certificate(
        "quadratic program",
        torch.where(norm <= wanted, int(Status.CONVERGED), int(Status.ROUNDING_FLOOR)),
        norm,
        wanted,
        steps.reshape(batch),
        feasibility=violation if k else None,
        margin=margin if m else None,
        factor=ExchangeFactor(kept, batch),
    )
    return s.reshape(like.shape).to(like.dtype), certificate


def in_a_row(inputs: tuple[Tensor, ...], batch: torch.Size) -> Arrays:
    """The aligned inputs of programs as float64 arrays ``(B, ...)``, or ``(1, ...)`` where all share one."""
    arrays = []
    for x in inputs:
        own = x.shape[len(batch) :]
        shared = x.shape[: len(batch)].numel() == 1
        x = x.detach().double()
        flat = x.reshape(own) if shared else x.expand(*batch, *own)
        arrays.append(flat.reshape(1 if shared else batch.numel(), *own).contiguous().numpy())
    return tuple(arrays)


def times(inputs: tuple[Tensor, ...], active: Tensor, u: Tensor) -> Tensor:
    """``J u`` for the Jacobian ``J`` of the conditions of optimality and ``u`` ``(*batch, n + p + m)``."""
    from .kkt_numba import times as product

    batch = u.shape[:-1]
    matrices = in_a_row(inputs[::2], batch)
    given = u.double().reshape(batch.numel(), u.shape[-1]).contiguous()
    image = torch.empty_like(given)
    mask = active.reshape(batch.numel(), active.shape[-1])
    product(*(*matrices, mask.numpy(), given.numpy(), image.numpy()))
    return image.reshape(u.shape).to(u.dtype)
