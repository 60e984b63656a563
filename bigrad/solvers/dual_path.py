"""The way to the active set through the dual, where the quadratic term is positive definite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .active_set import Curvature, negligible
from .central_path import interior, reach
from .scaled_program import Program, largest, times, triangular

_NARROW = 1.25  # constraints per variable up to which the search may begin without the path
_PATIENCE = 1  # sets that may fail to lower the number of wrong rows
_COLD, _WARM = 20, 3  # active sets tried without the path, and from one of its points
_ENTRY, _AGAIN = 1e-3, 0.1  # fall of the gap that is worth a search, and the further fall before the next


@dataclass(frozen=True)
class Dual:
    r"""Programs with the variables eliminated: multipliers ``mu`` whose slacks are ``level + gram mu``.

    Slacks are zero for equations; for inequalities slack and multiplier are at least zero, and one of both is zero.
    With ``L L' = Q`` and ``V = L^-1 C'`` of unit columns, ``gram = V' V``, and ``level`` is the slack at the minimiser
    without constraints; so both have one unit.

    Attributes:
        gram: ``(B, k, k)``, or ``(1, k, k)`` where it is shared.
        level: ``(B, k)``.
        equations: which rows are equations, bool ``(k,)``.
        rank: the number of variables, beyond which rows depend on each other.
    """

    gram: Tensor
    level: Tensor
    equations: Tensor
    rank: int

    @classmethod
    def of(cls, program: Program, alone: Curvature) -> Dual:
        """The dual, for the curvature ``alone`` of ``Q``."""
        level = alone.unit * program.d + times(alone.rows.mT, triangular(alone.factor, program.q))
        equations = torch.arange(level.shape[-1], device=level.device) < program.equalities
        return cls(alone.gram, level, equations, program.q.shape[-1])

    def take(self, index: Tensor) -> Dual:
        """That of some of the problems."""
        gram = self.gram if self.gram.shape[0] == 1 else self.gram[index]
        return replace(self, gram=gram, level=self.level[index])

    def slack(self, mu: Tensor) -> Tensor:
        """``level + gram mu`` ``(B, k)``."""
        return self.level + times(self.gram, mu)

    @cached_property
    def room(self) -> _Room:
        """Where factors of the whole matrix are kept."""
        return _Room.like(self.level)

    def solve(self, ridge: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of ``gram + diag(ridge)`` ``(B, k, k)``, valid until the next, and the move that ends ``off``."""
        matrix = self.room.matrix.copy_(self.gram)
        matrix.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return self.room.factorised(off)

    def settle(self, max_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Search for the active set, from the equations alone where that may end, else from points of the central path.

        Returns:
            ``mu`` ``(B, k)``, the active set ``(B, k)``, whether it is a fixed point of the search ``(B,)``, and how
            many sets or steps were tried ``(B,)``.
        """
        size, k = self.level.shape
        device = self.level.device
        mu, active = torch.zeros_like(self.level), self.equations.expand_as(self.level).clone()
        steps = torch.zeros(size, dtype=torch.int64, device=device)
        settled = torch.full((size,), k == 0, device=device)
        sets = min(_COLD, 2 * max_steps // 3) if k <= _NARROW * self.rank else 0
        if k and sets:
            mu, active, settled, steps = self.search(active, sets)
        places = (~settled).nonzero().squeeze(-1)
        if not len(places) or bool(self.equations.all()):
            return mu, active, settled, steps
        left = self.take(places)
        at = Point.first(left)
        entry = _ENTRY * at.gap()
        for step in range(1, max_steps - sets + 1):
            at = at.advanced(left)
            ready = at.gap() <= entry
            if not bool(ready.any()):
                continue
            some = ready.nonzero().squeeze(-1)
            found, guess, closed, _ = left.take(some).search(at.guess(self.equations)[some], _WARM)
            index = places[some]
            mu[index], active[index], settled[index], steps[index] = found, guess, closed, sets + step
            still = ready.logical_not().index_put((some,), ~closed, accumulate=True)
            if not bool(still.any()):
                break
            entry = torch.where(ready, torch.where(still, _AGAIN * entry, -1.0), entry)
            if 2 * int(still.sum()) <= len(places):
                keep = still.nonzero().squeeze(-1)
                places, left, at, entry = places[keep], left.take(keep), at.take(keep), entry[keep]
        return mu, active, settled, steps

    def search(self, active: Tensor, sets: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Solve with the active rows as equations, drop those that pull, add those violated, and so on.

        While that does not lower the number of wrong rows, only the most wrong of them are exchanged.

        Returns:
            ``mu``, the active set, whether the next set would be the same, bool ``(B,)``, and how many were tried.

        Source: The primal-dual active set strategy as a semismooth Newton method (Hintermüller, Ito, Kunisch, 2003).
        """
        answer, left, places = torch.zeros_like(self.level), self, torch.arange(len(active), device=active.device)
        found, settled, steps = active.clone(), torch.zeros_like(places, dtype=torch.bool), torch.zeros_like(places)
        least, tries = torch.full_like(places, active.shape[-1] + 1), torch.full_like(places, _PATIENCE)
        for _ in range(sets):
            mu, off = left.wrong(active)
            wrong = off > 0
            count = wrong.sum(-1)
            steps[places] += ~settled[places]
            answer[places], found[places], settled[places] = mu, active, count == 0
            lower = count < least
            least, tries = torch.minimum(count, least), torch.where(lower, _PATIENCE, tries - 1)
            most = off >= 0.5 * largest(off)
            active = active ^ (wrong & (most | (tries >= 0).unsqueeze(-1)))
            still = int(count.count_nonzero())
            if not still:
                break
            if 2 * still <= len(places):
                keep = count.nonzero().squeeze(-1)
                places, left = places[keep], left.take(keep)
                active, least, tries = active[keep], least[keep], tries[keep]
        return answer, found, settled, steps

    def wrong(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """``mu`` with the active rows as equations, and by how much each row is on the wrong side ``(B, k)``."""
        mu = self._solved(active)
        rough = negligible(mu.dtype) * (largest(self.level) + largest(mu))
        off = -torch.where(active, mu, self.level + times(self.gram, mu))
        off = torch.where(mu.isfinite().all(-1, keepdim=True), torch.where(off > rough, off, 0.0), 1.0)
        return mu, torch.where(self.equations, 0.0, off)

    def _solved(self, active: Tensor) -> Tensor:
        """``mu`` ``(B, k)``, zero but on the active rows, whose slack it makes zero."""
        size, k = active.shape
        count = int(active.sum(-1).amax())
        rows = active.to(torch.int8).sort(descending=True, stable=True).indices[:, :count]
        there = active.gather(1, rows).to(self.level.dtype)
        entries = (rows.unsqueeze(-1) * k + rows.unsqueeze(-2)).flatten(1)
        matrix = self.gram.flatten(1).expand(size, -1).gather(1, entries).view(size, count, count)
        matrix.mul_(there.unsqueeze(-1)).mul_(there.unsqueeze(-2)).diagonal(dim1=-2, dim2=-1).add_(1 - there)
        factor = torch.linalg.cholesky_ex(matrix)[0]
        return torch.zeros_like(self.level).scatter(1, rows, _move(factor, self.level.gather(1, rows) * there))


@dataclass(frozen=True)
class _Room:
    """Memory for one matrix and its factor ``(B, k, k)``: fresh pages take longer than the factorisation."""

    matrix: Tensor
    factor: Tensor
    info: Tensor

    @classmethod
    def like(cls, level: Tensor) -> _Room:
        """For a batch of right-hand sides ``(B, k)``."""
        size, k = level.shape
        info = torch.empty(size, dtype=torch.int32, device=level.device)
        return cls(level.new_empty((size, k, k)), level.new_empty((size, k, k)).mT, info)

    def factorised(self, off: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of the matrices, and the move that ends ``off``."""
        torch.linalg.cholesky_ex(self.matrix, out=(self.factor, self.info))
        return self.factor, _move(self.factor, off)


def _move(factor: Tensor, off: Tensor) -> Tensor:
    return -triangular(factor, triangular(factor, off), transposed=True)


@dataclass(frozen=True)
class Point:
    """Multipliers of all rows ``(B, k)`` and slacks of the inequalities ``(B, m)``; of those, both are positive."""

    mu: Tensor
    slack: Tensor

    @property
    def lam(self) -> Tensor:
        """The multipliers of the inequalities ``(B, m)``."""
        return self.mu[:, self.mu.shape[-1] - self.slack.shape[-1] :]

    def take(self, index: Tensor) -> Point:
        """Those of some of the problems."""
        return Point(self.mu[index], self.slack[index])

    def gap(self) -> Tensor:
        """The mean of multiplier times slack ``(B,)``; zero where there are no inequalities."""
        return (self.lam * self.slack).sum(-1) / max(1, self.slack.shape[-1])

    def guess(self, equations: Tensor) -> Tensor:
        """The rows that seem active ``(B, k)``."""
        p = self.mu.shape[-1] - self.slack.shape[-1]
        above = self.lam * self.slack.sum(-1, keepdim=True) > self.slack * self.lam.sum(-1, keepdim=True)
        return torch.cat([equations[:p].expand(len(above), -1), above], -1)

    @classmethod
    def first(cls, dual: Dual) -> Point:
        """Where the path is entered: the least squares solution, moved into the interior."""
        p = int(dual.equations.sum())
        ridge = (~dual.equations).to(dual.level.dtype).expand_as(dual.level)
        _, mu = dual.solve(ridge + 100 * torch.finfo(ridge.dtype).eps, dual.level)
        lam, slack = interior(mu[:, p:], -mu[:, p:])
        return cls(torch.cat([mu[:, :p], lam], -1), slack)

    def advanced(self, dual: Dual) -> Point:
        """After one predictor-corrector step."""
        lam, slack = self.lam, self.slack
        p = self.mu.shape[-1] - slack.shape[-1]
        off, ratio = dual.slack(self.mu), slack / lam
        ridge = torch.full_like(off, 100 * torch.finfo(off.dtype).eps)
        ridge[:, p:] += ratio
        factor, dmu = dual.solve(ridge, off)
        dlam = dmu[:, p:]
        dslack = -slack - ratio * dlam
        length = reach(lam, slack, dlam, dslack, 1.0)
        gap = (lam * slack).mean(-1, keepdim=True)
        reached = ((lam + length * dlam) * (slack + length * dslack)).mean(-1, keepdim=True)
        push = ((reached / gap).pow(3) * gap - dslack * dlam) / lam
        off[:, p:] -= push
        dmu = _move(factor, off)
        dlam = dmu[:, p:]
        dslack = push - slack - ratio * dlam
        length = reach(lam, slack, dlam, dslack)
        return Point(self.mu + length * dmu, slack + length * dslack)
