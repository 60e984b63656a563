"""The central path of a batch of quadratic programs, and Mehrotra's step along it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .scaled_program import Program, largest, times, triangular

_TO_THE_WALL = 0.99  # the part of the way to the nearest constraint that a step may take


@dataclass(frozen=True)
class Iterate:
    """A point with positive slacks and multipliers.

    Attributes:
        y: ``(B, n)``.
        mu: multipliers of all constraints ``(B, k)``.
        slack: of the inequalities ``(B, m)``.
    """

    y: Tensor
    mu: Tensor
    slack: Tensor

    def take(self, index: Tensor) -> Iterate:
        """Those of some of the problems."""
        return Iterate(self.y[index], self.mu[index], self.slack[index])

    @property
    def lam(self) -> Tensor:
        """The multipliers of the inequalities ``(B, m)``."""
        return self.mu[:, self.mu.shape[-1] - self.slack.shape[-1] :]

    @property
    def gap(self) -> Tensor:
        """The mean of multiplier times slack, ``(B, 1)``; zero where there are no inequalities."""
        return (self.lam * self.slack).sum(-1, keepdim=True) / max(1, self.slack.shape[-1])

    @classmethod
    def first(cls, program: Program, penalty: Tensor | None) -> Iterate:
        """Where the path is entered: the least squares solution, moved into the interior."""
        p = program.equalities
        if p == program.d.shape[-1]:
            return cls(torch.zeros_like(program.q), torch.zeros_like(program.d), program.d[:, p:])
        weights = torch.ones_like(program.d)
        newton = _Newton.of(program, weights, penalty)
        y, mu, slack = newton.step(program.q, -program.d, torch.zeros_like(program.d[:, p:]))
        lam, slack = interior(mu[:, p:], slack)
        return cls(y, torch.cat([mu[:, :p], lam], -1), slack)

    def advanced(self, program: Program, penalty: Tensor | None) -> tuple[Iterate, Tensor]:
        """One predictor-corrector step, and for which problems it could be taken, bool ``(B,)``."""
        p, slack, lam, gap = program.equalities, self.slack, self.lam, self.gap
        if p == program.d.shape[-1]:
            return self, gap.new_zeros(len(gap), dtype=torch.bool)  # nothing leads from here: the search does it all
        off = program.gradient(self.y, self.mu)
        excess = times(program.C, self.y) - program.d
        excess[:, p:] += slack
        newton = _Newton.of(program, torch.cat([self.mu[:, :p], lam / slack], -1), penalty)
        _, dmu, dslack = newton.step(off, excess, lam)
        length = reach(lam, slack, dmu[:, p:], dslack, 1.0)
        reached = Iterate(self.y, self.mu + length * dmu, slack + length * dslack).gap
        centre = (reached / gap).pow(3) * gap
        dy, dmu, dslack = newton.step(off, excess, lam + (dslack * dmu[:, p:] - centre) / slack)
        length = reach(lam, slack, dmu[:, p:], dslack)
        y, mu, slack = self.y + length * dy, self.mu + length * dmu, slack + length * dslack
        sound = (y.isfinite().all(-1) & mu.isfinite().all(-1) & (slack > 0).all(-1)).unsqueeze(-1)
        moved = Iterate(*(torch.where(sound, new, old) for new, old in zip((y, mu, slack), self._parts(), strict=True)))
        return moved, sound.squeeze(-1)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.y, self.mu, self.slack


def interior(lam: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Multipliers and slacks ``(B, m)`` of the least squares solution, moved to where both are positive."""
    size = torch.where((size := largest(slack)) > 0, size, 1.0)
    slack = slack + (-1.5 * slack.amin(-1, keepdim=True)).clamp_min(0) + 1e-3 * size
    lam = lam + (-1.5 * lam.amin(-1, keepdim=True)).clamp_min(0) + 1e-3 * size
    product = 0.5 * (slack * lam).sum(-1, keepdim=True)
    return lam + product / slack.sum(-1, keepdim=True), slack + product / lam.sum(-1, keepdim=True)


def reach(lam: Tensor, slack: Tensor, dlam: Tensor, dslack: Tensor, part: float = _TO_THE_WALL) -> Tensor:
    """The largest step length up to one that goes ``part`` of the way to the nearest wall, ``(B, 1)``."""
    pace = torch.maximum(-dslack / slack, -dlam / lam).amax(-1, keepdim=True)
    return 1 / (pace / part).clamp_min(1)


@dataclass(frozen=True)
class _Newton:
    """The factorised Newton equations at weights ``lam / slack``."""

    program: Program
    weights: Tensor
    factor: Tensor
    rows: Tensor
    schur: Tensor

    @classmethod
    def of(cls, program: Program, weights: Tensor, penalty: Tensor | None) -> _Newton:
        p, eps = program.equalities, torch.finfo(weights.dtype).eps
        equal = torch.zeros_like(weights[:, :p]) if penalty is None else penalty.expand(-1, p)
        weights = torch.cat([equal, weights[:, p:]], -1)
        factor = torch.linalg.cholesky_ex(program.hessian(weights, 100 * eps))[0]
        equations = program.C[:, :p].mT.expand(factor.shape[0], -1, -1)
        rows = torch.linalg.solve_triangular(factor, equations, upper=False)
        schur = torch.bmm(rows.mT, rows)
        schur.diagonal(dim1=-2, dim2=-1).mul_(1 + 100 * eps).add_(torch.finfo(schur.dtype).tiny)
        return cls(program, weights, factor, rows, torch.linalg.cholesky_ex(schur)[0])

    def step(self, off: Tensor, excess: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The moves of ``y``, ``mu`` and the slack that end ``off`` and ``excess``; ``lam`` falls by ``shift`` more."""
        p = self.program.equalities
        pushed = self.weights * excess
        pushed = torch.cat([pushed[:, :p], pushed[:, p:] - shift], -1)
        half = triangular(self.factor, -off - times(self.program.C.mT, pushed))
        dnu = excess[:, :0]
        if p:
            seen = times(self.rows.mT, half) + excess[:, :p]
            dnu = triangular(self.schur, triangular(self.schur, seen), transposed=True)
            half = half - times(self.rows, dnu)
        dy = triangular(self.factor, half, transposed=True)
        left = (times(self.program.C, dy) + excess)[:, p:]
        return dy, torch.cat([dnu, self.weights[:, p:] * left - shift], -1), -left
