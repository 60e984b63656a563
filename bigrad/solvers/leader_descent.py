"""Descent on the leader's objective with the follower solved at every step: where a two-level solve begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .. import calculus
from ..equation import Objective
from ..gradients import Implicit, Record
from ..linear import Direct
from .lbfgs import LBFGS
from .two_level import TwoLevel

LeaderObjective = Callable[[Tensor, Tensor, float, tuple[Tensor, ...]], Tensor]

_WIDTH = 1e-2  # how far inside the inequalities a start has to be, relative to their size there


class Affine:
    """The points ``base + basis u`` that meet affine equalities, from a point and the equalities' matrix there.

    Attributes:
        basis: ``(*batch, n, k)``, orthonormal directions in which nothing changes.
        inverse: ``(*batch, n, p)``, the pseudo-inverse of the matrix.
    """

    def __init__(self, matrix: Tensor) -> None:
        count = matrix.shape[-2]
        self.inverse = torch.linalg.pinv(matrix)
        self.basis = torch.linalg.svd(matrix, full_matrices=True).Vh[..., count:, :].mT

    def lift(self, base: Tensor, u: Tensor) -> Tensor:
        """The point of coordinates ``u`` ``(*batch, k)``."""
        return base + _times(self.basis, u)

    def project(self, point: Tensor, violation: Tensor) -> Tensor:
        """The nearest point that meets the equalities."""
        return point - _times(self.inverse, violation)


class Descent:
    """The leader's side of a two-level program, with log barriers of weight ``barrier`` for inequalities.

    Attributes:
        infeasible: which programs have no strictly feasible point that could be found ``(*batch)``.
    """

    def __init__(self, problem: TwoLevel, inputs: tuple[Tensor, ...], start: Tensor, max_steps: int) -> None:
        self.problem, self.inputs, self.max_steps = problem, inputs, max_steps
        parts = problem.split(start)
        self.x, self.y = parts.x, parts.y
        self.infeasible = torch.zeros(start.shape[:-1], dtype=torch.bool, device=start.device)
        level = problem.level
        self.on_x = self.on_y = None
        if problem.sizes.leader_equal:
            self.on_x = Affine(calculus.jacobian(lambda x: level("leader_equal", x, self.y, *inputs), self.x))
            self.x = self.on_x.project(self.x, level("leader_equal", self.x, self.y, *inputs)).detach()
        if problem.sizes.equal:
            self.on_y = Affine(calculus.jacobian(lambda y: level("follower_equal", self.x, y, *inputs), self.y))
        # Barriers are weighed in each objective's own units.
        self.leader_unit = self._unit("leader", self.x)
        self.follower_unit = self._unit("follower", self.y)
        self.entered = False

    def stages(self) -> Iterator[tuple[float, float | None]]:
        """Barrier weights and tolerances of the descent, one after the other until Newton's method takes over."""
        if self.problem.sizes.below or self.problem.sizes.leader_below:
            yield from ((weight, 1e-3) for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6))
            yield 1e-8, 1e-6
        else:
            yield from ((0.0, rtol) for rtol in (1e-3, 1e-6, None))

    def run(self, barrier: float, rtol: float | None) -> Tensor:
        """Descend from where the last run ended; the unknowns ``s`` with zero multipliers."""
        if not self.entered:
            self.entered = True
            self._enter()
        self.x, self.y = self._minimise(barrier, rtol, self._outer)
        empty = self.x.new_zeros(*self.x.shape[:-1], sum(self.problem.sizes[2:]))
        return torch.cat([self.x, self.y, empty], -1)

    def multipliers(self, s: Tensor, barrier: float) -> Tensor:
        """``s`` with the multipliers that fit its ``x`` and ``y`` best; those of inequalities are the barriers'."""
        problem, sizes, parts = self.problem, self.problem.sizes, self.problem.split(s)

        def dual(part: str, size: int, unit: Tensor) -> Tensor:
            if not size or not barrier:
                return s.new_zeros(*s.shape[:-1], size)
            slack = -problem.level(part, parts.x, parts.y, *self.inputs).detach()
            return barrier * unit.unsqueeze(-1) / slack.clamp_min(torch.finfo(s.dtype).tiny)

        below = dual("follower_below", sizes.below, self.follower_unit)
        leader_below = dual("leader_below", sizes.leader_below, self.leader_unit)
        s = torch.cat([parts.x, parts.y, torch.zeros_like(parts.equal), below, torch.zeros_like(parts.adjoint),
                       torch.zeros_like(parts.leader_equal), leader_below], -1)  # fmt: skip
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        place = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(sizes._fields)}
        if sizes.equal:
            s = self._fit(s, slice(place["adjoint"].start, place["adjoint"].start + sizes.y), [place["equal"]])
        return self._fit(s, slice(0, ends[4]), [place["adjoint"], place["leader_equal"]])

    def _fit(self, s: Tensor, rows: slice, columns: list[slice]) -> Tensor:
        """Set the unknowns of ``columns`` to what makes ``rows`` of the residual least."""

        def residual(free: Tensor) -> Tensor:
            return self.problem.residual(free, *self.inputs)

        matrix = calculus.jacobian(residual, s)[..., rows, :]
        chosen = torch.cat([matrix[..., column] for column in columns], -1)
        finite = chosen.isfinite().all(-1).all(-1)
        chosen = torch.where(finite[..., None, None], chosen, 0.0)
        gap = residual(s).detach()[..., rows].nan_to_num()
        found = -_times(torch.linalg.pinv(chosen), gap)
        s = s.clone()
        begin = 0
        for column in columns:
            width = column.stop - column.start
            s[..., column] = found[..., begin : begin + width]
            begin += width
        return s

    def _unit(self, part: str, own: Tensor) -> Tensor:
        """The size of an objective's change over the size of its variable ``(*batch)``, 1 where it does not change."""
        other = self.y if part == "leader" else self.x

        def value(free: Tensor) -> Tensor:
            return self.problem.level(part, *((free, other) if part == "leader" else (other, free)), *self.inputs)

        _, slope = calculus.value_and_gradient(value, own)
        unit = slope.norm(dim=-1) * (1 + own.norm(dim=-1))
        return torch.where(unit.isfinite() & (unit > 0), unit, 1.0)

    # The follower -------------------------------------------------------------------------------------------------

    def _respond(self, x: Tensor, barrier: float, inputs: tuple[Tensor, ...]) -> Tensor:
        """The follower's answer to ``x``, differentiable; NaN where it could not be found."""
        level, sizes = self.problem.level, self.problem.sizes
        here = self._inside(x.detach(), self.y)

        def lift(u: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
            if self.on_y is None:
                return here + u
            return self.on_y.lift(self.on_y.project(here, level("follower_equal", x, here, *rest)), u)

        def value(u: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
            y = lift(u, x, *rest)
            total = level("follower", x, y, *rest)
            if sizes.below:
                total = total - barrier * self.follower_unit * log_slack(level("follower_below", x, y, *rest))
            return total

        record = Record("ignore")
        width = self.y.shape[-1] if self.on_y is None else self.on_y.basis.shape[-1]
        problem = Objective(value, x.ndim - 1)
        solver = LBFGS(max_steps=500)
        u = Implicit(Direct()).attach(problem, solver.solve, x.new_zeros(*x.shape[:-1], width), (x, *inputs), record)
        y = lift(u, x, *inputs)
        assert record.certificate is not None
        lost = record.certificate.failed.to(y.device) & ~y.isfinite().all(-1)
        self.y = torch.where(y.isfinite().all(-1, keepdim=True), y, self.y).detach()
        return torch.where(lost.unsqueeze(-1), torch.nan, y)

    def _inside(self, x: Tensor, y: Tensor) -> Tensor:
        """A point near ``y`` that is strictly inside the follower's inequalities, where there is one."""
        if not self.problem.sizes.below:
            return y
        return self._enter_level(y, self.on_y, lambda free: self.problem.level("follower_below", x, free, *self.inputs))

    def _enter_level(self, start: Tensor, affine: Affine | None, constraint: calculus.Function) -> Tensor:
        """Leave the inequalities' outside by least squares on their violations."""
        depth = constraint(start).detach()
        size = torch.where(depth.isfinite(), depth.abs(), 1.0).clamp(1e-3, 1.0)
        if not bool((depth > -1e-6 * size).any()):
            return start
        outside = (depth > -1e-6 * size).any(-1)

        def value(u: Tensor) -> Tensor:
            point = start + u if affine is None else affine.lift(start, u)
            return 0.5 * (constraint(point) / size + 2 * _WIDTH).clamp_min(0).square().sum(-1)

        width = start.shape[-1] if affine is None else affine.basis.shape[-1]
        zero = start.new_zeros(*start.shape[:-1], width)
        u, _ = LBFGS(rtol=1e-8, atol=1e-12, max_steps=500).solve(Objective(value, start.ndim - 1), zero, ())
        moved = start + u if affine is None else affine.lift(start, u)
        inside = (constraint(moved) < 0).all(-1)
        return torch.where((outside & inside).unsqueeze(-1), moved, start).detach()

    # The leader ---------------------------------------------------------------------------------------------------

    def _outer(self, x: Tensor, y: Tensor, barrier: float, inputs: tuple[Tensor, ...]) -> Tensor:
        total = self.problem.level("leader", x, y, *inputs)
        if self.problem.sizes.leader_below:
            depth = self.problem.level("leader_below", x, y, *inputs)
            total = total - barrier * self.leader_unit * log_slack(depth)
        return total

    def _minimise(self, barrier: float, rtol: float | None, objective: LeaderObjective) -> tuple[Tensor, Tensor]:
        base = self.x

        def lift(u: Tensor) -> Tensor:
            return base + u if self.on_x is None else self.on_x.lift(base, u)

        def value(u: Tensor, *inputs: Tensor) -> Tensor:
            x = lift(u)
            y = self._respond(x, barrier, inputs)
            return objective(x, y, barrier, inputs)

        width = base.shape[-1] if self.on_x is None else self.on_x.basis.shape[-1]
        solver = LBFGS(rtol=rtol, atol=rtol and 1e-2 * rtol, max_steps=self.max_steps)
        u, _ = solver.solve(Objective(value, base.ndim - 1), base.new_zeros(*base.shape[:-1], width), self.inputs)
        x = lift(u)
        x = torch.where(x.isfinite().all(-1, keepdim=True), x, base)
        y = self._respond(x, barrier, self.inputs)
        return x.detach(), torch.where(y.isfinite().all(-1, keepdim=True), y, self.y).detach()

    def _enter(self) -> None:
        """Find a start strictly inside both levels' inequalities."""
        level, sizes = self.problem.level, self.problem.sizes
        if self.on_y is not None:
            self.y = self.on_y.project(self.y, level("follower_equal", self.x, self.y, *self.inputs)).detach()
        if sizes.leader_below:
            size = level("leader_below", self.x, self.y, *self.inputs).detach().abs().clamp(1e-3, 1.0)

            def violation(x: Tensor, y: Tensor, barrier: float, inputs: tuple[Tensor, ...]) -> Tensor:
                depth = level("leader_below", x, y, *inputs) / size
                return 0.5 * (depth + 2 * _WIDTH).clamp_min(0).square().sum(-1)

            if bool((level("leader_below", self.x, self.y, *self.inputs) >= 0).any()):
                self.x, self.y = self._minimise(1e-2, 1e-8, violation)
            self.infeasible |= ~(level("leader_below", self.x, self.y, *self.inputs) < 0).all(-1)
        if sizes.below:
            self.y = self._inside(self.x, self.y)
            self.infeasible |= ~(level("follower_below", self.x, self.y, *self.inputs) < 0).all(-1)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    product: Tensor = matrix @ vector.unsqueeze(-1)
    return product.squeeze(-1)


def log_slack(constraint: Tensor) -> Tensor:
    """``sum log(-constraint)`` over the last dimension, NaN outside."""
    return (-constraint).log().sum(-1)
