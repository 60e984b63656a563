"""The KKT system of a quadratic program for a given set of active constraints, and the search for that set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .scaled_program import Program, Scaling, largest, times, triangular


def negligible(dtype: torch.dtype) -> float:
    """What counts as zero beside one: 1e-11 in float64, 1e-5 in float32."""
    return float(torch.finfo(dtype).eps ** 0.7)


def _ridge(dtype: torch.dtype) -> float:
    """What keeps a Hessian that may be singular factorisable: 5e-14 in float64, 1e-6 in float32."""
    return float(torch.finfo(dtype).eps ** 0.85)


@dataclass(frozen=True)
class Curvature:
    """The Cholesky factor ``L`` of a Hessian, and the constraints as it sees them.

    Attributes:
        factor: ``L`` ``(B, n, n)``, or ``(1, n, n)`` where it is shared.
        rows: ``V = L^-1 C' diag(unit)`` ``(., n, k)``, of unit columns.
        unit: ``(., k)``.
        gram: ``V' V`` ``(., k, k)``.
        pivot: the least squared diagonal entry of ``L``, of which the largest is near one; NaN where there is no ``L``.
    """

    factor: Tensor
    rows: Tensor
    unit: Tensor
    gram: Tensor
    pivot: Tensor

    @classmethod
    def of(cls, hessian: Tensor, program: Program) -> Curvature:
        """Factorise."""
        factor, info = torch.linalg.cholesky_ex(hessian)
        pivot = factor.diagonal(dim1=-2, dim2=-1).amin(-1).square()
        rows = torch.linalg.solve_triangular(factor, program.C.mT, upper=False)
        length = rows.norm(dim=-2)
        unit = 1 / torch.where(length > 0, length, 1.0)
        rows.mul_(unit.unsqueeze(-2))
        return cls(factor, rows, unit, torch.bmm(rows.mT, rows), torch.where(info == 0, pivot, torch.nan))

    def take(self, index: Tensor) -> Curvature:
        """That of some of the problems."""
        if self.factor.shape[0] == 1:
            return self
        return Curvature(*(part[index] for part in (self.factor, self.rows, self.unit, self.gram, self.pivot)))


@dataclass(frozen=True)
class ActiveSystem:
    """The factorised matrix ``[Q C'; C 0]`` of the active rows of ``C``.

    Attributes:
        program: the programs.
        active: bool ``(B, k)``.
        penalty: weight of ``C'C`` in the Hessian, ``(B, 1)``; ``None`` where every ``Q`` is positive definite alone.
        curvature: of that Hessian.
        schur: Cholesky factor of the active part of the Gram matrix ``(B, k, k)``.
        dependent: whether the active rows depend on each other, so that the multipliers are open, bool ``(B,)``.
    """

    program: Program
    active: Tensor
    penalty: Tensor | None
    curvature: Curvature
    schur: Tensor
    dependent: Tensor

    @classmethod
    def of(cls, program: Program, active: Tensor, penalty: Tensor | None, alone: Curvature) -> ActiveSystem:
        """Factorise; ``alone`` is the curvature of ``Q`` by itself."""
        on, dtype = active.to(program.q.dtype), program.q.dtype
        base = alone
        if penalty is not None:
            base = Curvature.of(program.hessian(penalty * on, _ridge(dtype)), program)
        gram = (base.gram * on.unsqueeze(-1)).mul_(on.unsqueeze(-2))
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(1 - on)
        schur, info = torch.linalg.cholesky_ex(gram)
        dependent = info > 0
        if on.shape[-1]:
            pivot = schur.diagonal(dim1=-2, dim2=-1).amin(-1).square()
            dependent = dependent | ~(pivot > 10 * negligible(dtype))
        if bool(dependent.any()):
            # Dependent active constraints leave the multipliers open: a ridge keeps them where they are. It has to be
            # well above rounding, and refinement has to take it out again.
            diagonal.add_(dependent.unsqueeze(-1) * min(1e-4, torch.finfo(dtype).eps ** 0.4))
            schur = torch.linalg.cholesky_ex(gram)[0]
        return cls(program, active, penalty, base, schur, dependent)

    def solve(self, top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
        """``dy`` and ``dmu`` with ``Q dy + C' dmu = top`` and ``C dy = bottom`` on the active rows."""
        base = self.curvature
        bottom = torch.where(self.active, bottom, 0.0)
        if self.penalty is not None:
            top = top + times(self.program.C.mT, self.penalty * bottom)
        half = triangular(base.factor, top)
        seen = torch.where(self.active, times(base.rows.mT, half) - base.unit * bottom, 0.0)
        dual = triangular(self.schur, triangular(self.schur, seen), transposed=True)
        dy = triangular(base.factor, half - times(base.rows, dual), transposed=True)
        return dy, base.unit * dual

    def improve(self, y: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and ``mu`` after one Newton step, which is exact but for rounding, on the active rows."""
        program = self.program
        dy, dmu = self.solve(-program.gradient(y, mu), program.d - times(program.C, y))
        return y + dy, mu + dmu

    def unique(self) -> Tensor:
        """Whether ``y`` is the only solution, bool ``(B,)``: the Hessian is definite along the active constraints."""
        if self.penalty is None:
            return torch.ones_like(self.dependent)
        # Inverse iteration finds the least eigenvalue, which is no more than the ridge where the Hessian is singular.
        place = torch.arange(1, self.program.q.shape[-1] + 1, dtype=torch.float64, device=self.active.device)
        v = torch.cos(7 * place.square()).to(self.program.q.dtype).expand_as(self.program.q)
        for _ in range(3):
            v = v / v.norm(dim=-1, keepdim=True)
            half = triangular(self.curvature.factor, v)
            v = triangular(self.curvature.factor, half, transposed=True)
        least: Tensor = 1 / v.norm(dim=-1)
        return least > 10 * _ridge(v.dtype)


@dataclass(frozen=True)
class Guess:
    """What a search for the active set ends with.

    Attributes:
        y: ``(B, n)``.
        mu: multipliers ``(B, k)``, exactly zero on the inactive rows.
        active: bool ``(B, k)``.
        verified: whether the point satisfies every condition of optimality, bool ``(B,)``.
    """

    y: Tensor
    mu: Tensor
    active: Tensor
    verified: Tensor

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of it."""
        return self.y, self.mu, self.active, self.verified


@dataclass(frozen=True)
class Search:
    """Solve with the ``active`` constraints as equations, drop those that pull, add those violated, and so on.

    From a good guess this ends after one to four sets. A constraint with multiplier zero is left out.

    Attributes:
        program: the programs.
        y: near the solution ``(B, n)``.
        mu: multipliers near the solution ``(B, k)``.
        active: the guess ``(B, k)``.
        penalty: as :class:`ActiveSystem` has it.
        alone: the curvature of ``Q`` by itself.
        pull: the size ``(B, 1)`` of the gradient's terms where the search begins, beside which others are negligible.
        extent: the size ``(B, 1)`` of ``y`` there.

    Source: The primal-dual active set strategy as a semismooth Newton method (Hintermüller, Ito, Kunisch, 2003).
    """

    program: Program
    y: Tensor
    mu: Tensor
    active: Tensor
    penalty: Tensor | None
    alone: Curvature
    pull: Tensor
    extent: Tensor

    def take(self, index: Tensor) -> Search:
        """That of some of the problems."""
        return Search(
            self.program.take(index),
            self.y[index],
            self.mu[index],
            self.active[index],
            None if self.penalty is None else self.penalty[index],
            self.alone.take(index),
            self.pull[index],
            self.extent[index],
        )

    def run(self, sets: int) -> Guess:
        """Try as many sets at most."""
        guess, following = self._tried()
        unsettled = ~guess.verified | (following != self.active).any(-1)
        if sets > 1 and bool(unsettled.any()):
            sound = guess.y.isfinite().all(-1, keepdim=True) & guess.mu.isfinite().all(-1, keepdim=True)
            y, mu = torch.where(sound, guess.y, self.y), torch.where(sound, guess.mu, self.mu)
            rest = replace(self, y=y, mu=mu, active=following)
            index = unsettled.nonzero().squeeze(-1)
            if 2 * len(index) > len(y):  # a copy of so many costs more than it saves
                index = torch.arange(len(y), device=y.device)
            else:
                rest = rest.take(index)
            more = rest.run(sets - 1)
            better = more.verified | ~guess.verified[index]
            for mine, other in zip(guess.parts(), more.parts(), strict=True):
                chosen = better if mine.ndim == 1 else better.unsqueeze(-1)
                mine[index] = torch.where(chosen, other, mine[index])
        return guess

    def _tried(self) -> tuple[Guess, Tensor]:
        """The solution with this set as equations, and the set to try next ``(B, k)``."""
        return self.judged(ActiveSystem.of(self.program, self.active, self.penalty, self.alone))

    def judged(self, system: ActiveSystem) -> tuple[Guess, Tensor]:
        """The solution with the set of ``system`` as equations, and the set to try next ``(B, k)``."""
        program, active = self.program, self.active
        equations = torch.arange(active.shape[-1], device=active.device) < program.equalities
        small, eps = negligible(self.y.dtype), torch.finfo(self.y.dtype).eps
        y, mu = system.improve(self.y, torch.where(active, self.mu, 0.0))
        excess = times(program.C, y) - program.d
        slope = times(program.Q, y)
        pull = self.pull + largest(slope)
        rough = small * (program.d.abs() + largest(y) + self.extent) + 4 * eps * largest(program.q)
        weak = small * pull + 4 * eps * largest(self.mu)
        # What has a multiplier of zero is left out; where the point is wrong without it, the point with it stays.
        held = active & (equations | (mu > weak))
        outside = ~active & (excess > rough)
        pulling = active & ~equations & (mu < -weak)
        off = largest(slope + program.q + times(program.C.mT, mu)).squeeze(-1)
        level = (excess.abs() <= rough) | ~(active | equations)
        verified = ~(outside | pulling).any(-1) & level.all(-1) & (off <= small * (pull + largest(mu)).squeeze(-1))
        return Guess(y, torch.where(held, mu, 0.0), held, verified), held | outside


@dataclass(frozen=True)
class KKTFactor:
    """A factor of ``dF/ds`` of the KKT equations at the solution, for whoever solves with it again.

    Attributes:
        system: the active system in equilibrated units.
        scaling: those units.
        batch: the shape of the batch, whose problems the system has in a row.
    """

    system: ActiveSystem
    scaling: Scaling
    batch: torch.Size

    def solve(self, b: Tensor, *, transposed: bool) -> Tensor:
        """``J^-1 b`` for ``b`` ``(*more, *batch, n + k)``; the matrix is symmetric."""
        rows = (b.shape[: b.ndim - 1 - len(self.batch)].numel(), self.batch.numel())
        flat = b.reshape(rows + b.shape[-1:] if rows[0] != 1 else rows[1:] + b.shape[-1:])
        size = self.system.program.Q.shape[-1]
        top, bottom = flat[..., :size], flat[..., size:]
        units = self.scaling
        dy, dmu = self.system.solve(top * (units.cost * units.y_unit), bottom * units.row_unit)
        dmu = torch.where(self.system.active, dmu * (units.row_unit / units.cost), -bottom)
        return torch.cat([dy * units.y_unit, dmu], -1).reshape(b.shape)
