"""Descent on the leader's objective with the follower solved at every step: where a two-level solve begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .. import calculus
from ..equation import Objective
from ..linear import Cholesky, multiply
from .newton import Newton
from .stationary_point import hessian, residual
from .two_level import Sizes, TwoLevel

_FOLLOWER_STEPS = 50


class Descent:
    """The leader's side of a two-level program, with soft constraints of width ``softness``.

    A constraint that is met costs what a log barrier does, a broken one what a quadratic penalty does: no start has to
    be feasible, and what the follower answers is smooth. Each objective is measured in its own unit.

    Attributes:
        infeasible: which programs have constraints that stay broken however much that costs ``(*batch)``.
    """

    def __init__(self, problem: TwoLevel, inputs: tuple[Tensor, ...], start: Tensor) -> None:
        self.problem, self.inputs = problem, inputs
        parts = problem.split(start)
        self.x, self.y = parts.x, parts.y
        self.violation = torch.full_like(self.x[..., 0], torch.inf)
        self.infeasible = self.violation < 0
        self.units: dict[str, Tensor] = {}

    def stages(self) -> Iterator[tuple[float, float]]:
        """Softness and tolerance of the descents, one after the other until Newton's method takes over."""
        eps, sizes = torch.finfo(self.x.dtype).eps, self.problem.sizes
        if sizes.equal or sizes.below or sizes.leader_equal or sizes.leader_below:
            yield from ((width, 1e-3) for width in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6) if width > eps**0.6)
        else:
            yield from ((0.0, rtol) for rtol in (1e-3, 1e-6, 1e-9) if rtol > eps**0.6)

    def run(self, softness: float, rtol: float, max_steps: int) -> tuple[Tensor, Tensor]:
        """Descend from where the last run ended; the unknowns there, and the steps taken ``(*batch)``."""
        joint = torch.cat([self.x, self.y], -1)
        self.units = {level: self.problem.unit(level, joint, *self.inputs) for level in ("leader", "follower")}
        soft = self._softened(softness)
        view = _View(soft, self.inputs, self.y, rtol)
        solver = Newton(rtol, 1e-2 * rtol, max_steps)
        x, certificate = solver.solve(_Reduced(view.value, soft.batch_dims, hessian=view.hessian), self.x, ())
        y = view.respond(x)
        found = (x.isfinite().all(-1) & y.isfinite().all(-1)).unsqueeze(-1)
        self.x, self.y = torch.where(found, x, self.x), torch.where(found, y, self.y)
        violation = self._violation()
        self.infeasible = (violation > 10 * softness) & (violation > 0.5 * self.violation)
        self.violation = violation
        return self.multipliers(softness), certificate.steps.to(x.device)

    def _softened(self, width: float) -> TwoLevel:
        """The program without constraints, each objective in its unit and with the cost of what it breaks."""
        units, given = self.units, self.problem

        def level(part: str, x: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
            total = given.level(part, x, y, *inputs) / units[part]
            equal, below = given.sizes.constraints(part)
            if equal:
                total = total + given.level(f"{part}_equal", x, y, *inputs).square().sum(-1) / (2 * width)
            if below:
                total = total + _soft(given.level(f"{part}_below", x, y, *inputs), width).sum(-1)
            return total

        x, y = self.x.shape[-1], self.y.shape[-1]
        return replace(given, level=level, sizes=Sizes(x, y, 0, 0, y, 0, 0))

    def multipliers(self, softness: float | None = None) -> Tensor:
        """``s`` with the multipliers of the soft constraints, or zero, and the others that fit them best."""
        sizes = self.problem.sizes

        def dual(level: str, kind: str, size: int) -> Tensor:
            if not size or softness is None:
                return self.x.new_zeros(*self.x.shape[:-1], size)
            constraint = self.problem.level(f"{level}_{kind}", self.x, self.y, *self.inputs).detach()
            slope = constraint / softness if kind == "equal" else _soft_slope(constraint, softness)
            return self.units[level].unsqueeze(-1) * slope

        s = torch.cat(
            [
                self.x,
                self.y,
                dual("follower", "equal", sizes.equal),
                dual("follower", "below", sizes.below),
                self.x.new_zeros(*self.x.shape[:-1], sizes.adjoint),
                dual("leader", "equal", sizes.leader_equal),
                dual("leader", "below", sizes.leader_below),
            ],
            -1,
        )
        begin = s.shape[-1] - sizes.adjoint - sizes.leader_equal - sizes.leader_below
        matrix = hessian(self.problem, s, self.inputs)[..., :begin, begin : begin + sizes.adjoint]
        finite = matrix.isfinite().all(-1).all(-1)
        gap = residual(self.problem, s, self.inputs)[..., :begin].nan_to_num()
        best = multiply(torch.linalg.pinv(torch.where(finite[..., None, None], matrix, 0.0)), gap)
        s[..., begin : begin + sizes.adjoint] -= best
        return s

    def _violation(self) -> Tensor:
        """The largest violation of a constraint ``(*batch)``."""
        found = [self.x.new_zeros(*self.x.shape[:-1], 1)]
        for part in ("follower_equal", "follower_below", "leader_equal", "leader_below"):
            constraint = self.problem.level(part, self.x, self.y, *self.inputs).detach()
            found.append(constraint.abs() if part.endswith("equal") else constraint.clamp_min(0))
        return torch.cat(found, -1).amax(-1)


@dataclass(frozen=True)
class _Reduced(Objective):
    """The leader's objective with the follower's answer in it, and its Hessian."""

    hessian: calculus.Function = field(kw_only=True)

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The Hessian."""
        return self.hessian(y)


class _Answer(NamedTuple):
    """The follower's answer to ``x``, and what the leader wants to know of it."""

    x: Tensor
    y: Tensor
    adjoint: Tensor  # multipliers of the follower's conditions, (*batch, ny)
    rate: Tensor  # dy/dx, (*batch, ny, nx)


class _View:
    """A program without constraints as its leader sees it."""

    def __init__(self, soft: TwoLevel, inputs: tuple[Tensor, ...], y: Tensor, rtol: float) -> None:
        self.soft, self.inputs, self.y = soft, inputs, y
        self.accuracy = max(1e-3 * rtol, torch.finfo(y.dtype).eps ** 0.6)
        self.anchor: _Answer | None = None
        self.last: _Answer | None = None

    def value(self, x: Tensor) -> Tensor:
        """The leader's objective ``(*batch)``; its first derivative is right."""
        answer = self._answer(x.detach())
        return self._lagrangian(x, answer.y, answer.adjoint)

    def hessian(self, x: Tensor) -> Tensor:
        """Its second derivative ``(*batch, nx, nx)``; from here on the follower is looked for along its tangent."""
        self.anchor = answer = self._answer(x)
        sizes = [x.shape[-1], answer.y.shape[-1]]

        def slope(joint: Tensor) -> Tensor:
            def lagrangian(free: Tensor) -> Tensor:
                x, y = free.split(sizes, -1)
                return self._lagrangian(x, y, answer.adjoint)

            return calculus.gradient(lagrangian, joint)

        whole = calculus.jacobian(slope, torch.cat([x, answer.y], -1))
        unit = torch.eye(sizes[0], dtype=x.dtype, device=x.device).expand(*x.shape, sizes[0])
        along = torch.cat([unit, answer.rate], -2)
        reduced = along.mT @ whole @ along
        return 0.5 * (reduced + reduced.mT)

    def respond(self, x: Tensor) -> Tensor:
        """The follower's answer ``(*batch, ny)``, NaN where it could not be found."""
        begin = self.y
        if self.anchor is not None:
            ahead = self.anchor.y + multiply(self.anchor.rate, x - self.anchor.x)
            with torch.no_grad():
                better = self.follower(ahead, x) < self.follower(self.anchor.y, x)
            begin = torch.where(better.unsqueeze(-1), ahead, self.anchor.y)
        problem = Objective(self.follower, self.soft.batch_dims)
        solver = Newton(0.0, self.accuracy, _FOLLOWER_STEPS)
        y, certificate = solver.solve(problem, begin, (x,))
        return torch.where(certificate.failed.to(x.device).unsqueeze(-1), torch.nan, y)

    def follower(self, y: Tensor, x: Tensor) -> Tensor:
        """The follower's objective."""
        return self.soft.level("follower", x, y, *self.inputs)

    def leader(self, x: Tensor, y: Tensor) -> Tensor:
        """The leader's."""
        return self.soft.level("leader", x, y, *self.inputs)

    def _answer(self, x: Tensor) -> _Answer:
        if self.last is None or not torch.equal(self.last.x, x):
            y = self.respond(x)
            sizes = [x.shape[-1], y.shape[-1]]

            def conditions(joint: Tensor) -> Tensor:
                x, y = joint.split(sizes, -1)
                return calculus.gradient(self.follower, y, x)

            across, own = calculus.jacobian(conditions, torch.cat([x, y], -1)).split(sizes, -1)
            factor = Cholesky.of(own)
            _, slope = calculus.value_and_gradient(lambda free: self.leader(x, free), y)
            adjoint = -factor.solve(slope, transposed=False)
            adjoint = torch.where(factor.defective.unsqueeze(-1), torch.nan, adjoint)
            rate = -factor.solve(across.movedim(-1, 0), transposed=False).movedim(0, -1)
            self.last = _Answer(x, y, adjoint, rate)
        return self.last

    def _lagrangian(self, x: Tensor, y: Tensor, adjoint: Tensor) -> Tensor:
        conditions = calculus.gradient(self.follower, y, x)
        return self.leader(x, y) + (adjoint * conditions).sum(-1)


def _soft(constraint: Tensor, width: float) -> Tensor:
    """The least of ``(c + s)^2 / (2 width) - width log s`` over slacks ``s``, up to a constant."""
    # The smaller root without cancellation; abs() would have no second derivative at zero.
    size = torch.where(constraint > 0, constraint, -constraint) + (constraint.square() + 4 * width**2).sqrt()
    half = torch.where(constraint > 0, size / (4 * width), width / size)
    return constraint * half + width * (constraint / (2 * width)).asinh()


def _soft_slope(constraint: Tensor, width: float) -> Tensor:
    """Its derivative, which is the constraint's multiplier."""
    size = constraint.abs() + (constraint.square() + 4 * width**2).sqrt()
    return torch.where(constraint > 0, size / (2 * width), 2 * width / size)
