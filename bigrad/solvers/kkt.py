"""The optimality conditions of a quadratic program as one equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..compiled import runs_compiled
from ..equation import Problem, Pullback
from .exchange import times
from .scaled_program import Program


@dataclass(frozen=True)
class QuadraticKKT(Problem):
    r"""The root :math:`s = (y, \nu, \lambda)` of the conditions of optimality, of inputs (Q, q, A, b, G, h).

    .. math::
        F = \big(\tfrac12 (Q + Q^\top) y + q + A^\top \nu + G^\top (a \lambda),\;
                 A y - b,\; a (G y - h) - (1 - a) \lambda\big)

    where a constraint is active, :math:`a = 1`, if its multiplier is larger than its slack (and than zero). The
    Jacobian is symmetric.

    Attributes:
        batch_dims: how many leading dimensions of ``s`` hold independent problems.
        compiled: as :class:`InteriorPoint` has it.
    """

    batch_dims: int
    compiled: bool | None = None
    symmetric = True
    companions = 6  # so that the batch dimensions of all tensors line up, whichever vmap brought them

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``F``, for ``s = y`` ``(*batch, n + p + m)``."""
        Q, q, A, b, G, h = inputs
        y, nu, lam, active, excess = self._at(y, A, G, h)
        top = 0.5 * (_product(Q, y) + _product(Q.mT, y)) + q
        top = top + _product(A.mT, nu) + _product(G.mT, torch.where(active, lam, 0.0))
        return torch.cat([top, _product(A, y) - b, torch.where(active, excess, -lam)], -1)

    def _at(self, s: Tensor, A: Tensor, G: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``y``, ``nu``, ``lam``, which inequalities are active, and by how much they are exceeded."""
        y, nu, lam = s.split((A.shape[-1], A.shape[-2], G.shape[-2]), -1)
        excess = _product(G, y) - h
        return y, nu, lam, lam > (-excess).clamp_min(0.0), excess

    def active(self, s: Tensor, A: Tensor, G: Tensor, h: Tensor) -> Tensor:
        """Which inequalities are active at ``s``, bool ``(*batch, m)``."""
        return self._at(s, A, G, h)[3]

    def linearised(self, y: Tensor, *inputs: Tensor, transposed: bool) -> Callable[[Tensor], Tensor]:
        """``u -> (dF/ds) u`` by products with the matrices that were given."""
        Q, _, A, _, G, h = (x.detach() for x in inputs)
        active = self.active(y.detach(), A, G, h)
        if y.numel() and runs_compiled(self.compiled, y):
            return partial(times, inputs, active)

        def product(u: Tensor) -> Tensor:
            y, nu, lam = u.split((A.shape[-1], A.shape[-2], G.shape[-2]), -1)
            top = 0.5 * (_product(Q, y) + _product(Q.mT, y))
            top = top + _product(A.mT, nu) + _product(G.mT, torch.where(active, lam, 0.0))
            return torch.cat([top, _product(A, y), torch.where(active, _product(G, y), -lam)], -1)

        return product

    def pullback(self, y: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Pullback:
        """By the formula, which takes less time than to go through the residual once more."""
        A, _, G, h = inputs[2:]
        active = self.active(y, A, G, h)

        def pullback(u: Tensor) -> list[Tensor | None]:
            of_q, of_b, of_h = masked(u, active, A)
            matrices = bilinear(u, y, active, inputs[::2], needed[::2])
            vectors = (
                level.sum_to_size(x.shape) if need else None
                for level, x, need in zip((of_q, -of_b, -of_h), inputs[1::2], needed[1::2], strict=True)
            )
            return [grad for pair in zip(matrices, vectors, strict=True) for grad in pair]

        return pullback

    def vmapped(self, in_dims: Sequence[int | None]) -> QuadraticKKT:
        """Every operation here broadcasts, and every input is given the new dimension."""
        return replace(self, batch_dims=self.batch_dims + 1)

    def program(self, like: Tensor, *inputs: Tensor) -> Program:
        """The batch in a row, for ``like`` ``(*batch, n + p + m)``."""
        Q, q, A, b, G, h = inputs
        batch = like.shape[:-1]
        shared = batch.numel() > 0 and all(map(_is_shared, (Q, A, G)))

        def flat(x: Tensor, events: int, whole: bool) -> Tensor:
            shape = x.shape[x.ndim - events :]
            if not whole:
                return x[(0,) * (x.ndim - events)].reshape(1, *shape)
            return x.expand(*batch, *shape).reshape(batch.numel(), *shape)

        Q = flat(Q, 2, not shared)
        C = torch.cat([flat(A, 2, not shared), flat(G, 2, not shared)], -2)
        d = torch.cat([flat(b, 1, True), flat(h, 1, True)], -1)
        return Program((Q + Q.mT).mul_(0.5), flat(q, 1, True), C, d, A.shape[-2])


def masked(u: Tensor, active: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of ``u`` ``(*batch, n + p + m)`` for ``y``, the equations, and the active inequalities."""
    y, nu, lam = u.split((A.shape[-1], A.shape[-2], active.shape[-1]), -1)
    return y, nu, torch.where(active, lam, 0.0)


def bilinear(
    u: Tensor, v: Tensor, active: Tensor, matrices: Sequence[Tensor], needed: Sequence[bool] = (True, True, True)
) -> list[Tensor | None]:
    """The derivatives of ``u' K v`` in ``Q``, ``A`` and ``G``, where ``K`` is the Jacobian of the conditions."""
    Q, A, G = matrices
    u_y, *u_rows = masked(u, active, A)
    v_y, *v_rows = masked(v, active, A)
    pairs = [(0.5 * u_y, 0.5 * v_y), *zip(u_rows, v_rows, strict=True)]
    return [
        _outer(left, v_y, right, u_y, like) if need else None
        for (left, right), like, need in zip(pairs, (Q, A, G), needed, strict=True)
    ]


def _outer(a: Tensor, b: Tensor, c: Tensor, d: Tensor, like: Tensor) -> Tensor:
    """``a b' + c d'``, summed over the batch dimensions that ``like`` does not have."""
    if like.shape[:-2].numel() == 1:  # one product for the whole batch
        tall, wide = (
            torch.cat([x.reshape(x.shape[:-1].numel(), x.shape[-1]) for x in part]) for part in ((a, c), (b, d))
        )
        return (tall.mT @ wide).reshape(like.shape)
    return (torch.stack([a, c], -1) @ torch.stack([b, d], -2)).sum_to_size(like.shape)


def _is_shared(matrix: Tensor) -> bool:
    """Whether all problems of the batch have this matrix: an expanded dimension counts as one."""
    return all(size == 1 or step == 0 for size, step in zip(matrix.shape[:-2], matrix.stride()[:-2], strict=True))


def _product(matrix: Tensor, v: Tensor) -> Tensor:
    """``matrix @ v`` over the batch; a matrix without one is a single product."""
    if matrix.shape[:-2].numel() == 1:
        return v @ matrix.reshape(matrix.shape[-2:]).mT
    return torch.matmul(matrix, v.unsqueeze(-1)).squeeze(-1)
