"""The two-level program as one stationary point of one Lagrangian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import calculus
from ..equation import Problem


class Sizes(NamedTuple):
    """How long each part of the unknowns is.

    Attributes:
        x: the leader's variable.
        y: the follower's.
        equal: multipliers of the follower's equalities.
        below: multipliers of the follower's inequalities.
        adjoint: multipliers of the follower's conditions, as many as y, equal and below together.
        leader_equal: multipliers of the leader's equalities.
        leader_below: multipliers of the leader's inequalities.
    """

    x: int
    y: int
    equal: int
    below: int
    adjoint: int
    leader_equal: int
    leader_below: int

    def constraints(self, level: str) -> tuple[int, int]:
        """How many equalities and inequalities the "leader" or the "follower" has."""
        return (self.leader_equal, self.leader_below) if level == "leader" else (self.equal, self.below)


class Parts(NamedTuple):
    """The unknowns ``s`` ``(*batch, n)`` taken apart; see :class:`Sizes`."""

    x: Tensor
    y: Tensor
    equal: Tensor
    below: Tensor
    adjoint: Tensor
    leader_equal: Tensor
    leader_below: Tensor


@dataclass(frozen=True)
class TwoLevel(Problem):
    r"""``min_x f(x, y)`` with ``y`` the minimiser of ``g(y, x)``, both constrained, through its stationary point.

    With the follower's Lagrangian :math:`\ell = g + \mu^\top h + \sum_j \mu_j c_j` over :math:`w = (y, \mu)`, it is
    that of :math:`\Lambda = f + \psi^\top \nabla_w \ell + \nu^\top H + \sum_i \nu_i C_i`, whose Hessian is symmetric.
    Active inequalities enter as equalities and the others as ``-multiplier^2 / 2``, which holds their multipliers at
    zero; active is whose multiplier exceeds its slack. Where the leader gains from neither of the two, the follower's
    answer has a kink and the leader stays on it: such a constraint is pinned, both it and its multiplier are zero.

    Attributes:
        level: ``level(part, x, y, *inputs)``: for the part "leader" or "follower" an objective ``(*batch)``, for
            "follower_equal", "follower_below", "leader_equal" and "leader_below" constraints ``(*batch, m)``.
        sizes: the length of each part of the unknowns.
        batch_dims: leading dimensions of independent programs.

    Source: Implicit Bilevel Optimization: Differentiating through Bilevel Optimization Programming (Alesiani, 2023).
    """

    level: Callable[..., Tensor]
    sizes: Sizes
    batch_dims: int
    levels: tuple[tuple[int | None, ...], ...] = ()
    symmetric = True

    def split(self, s: Tensor) -> Parts:
        """The parts of the unknowns."""
        return Parts(*s.split(list(self.sizes), -1))

    def value(self, s: Tensor, *inputs: Tensor) -> Tensor:
        """The Lagrangian ``(*batch)``."""
        parts = self.split(s)
        x, y = parts.x, parts.y
        active, pinned = self.states(s, *inputs)
        w = torch.cat([y, parts.equal, parts.below], -1)
        conditions = calculus.gradient(lambda free: self.follower(free, x, active, ~active & ~pinned, *inputs), w)
        total = self.level("leader", x, y, *inputs) + (parts.adjoint * conditions).sum(-1)
        if self.sizes.below:
            held = parts.adjoint[..., -self.sizes.below :] * self.level("follower_below", x, y, *inputs)
            total = total + torch.where(pinned, held + 0.5 * parts.below.square(), 0.0).sum(-1)
        if self.sizes.leader_equal:
            total = total + (parts.leader_equal * self.level("leader_equal", x, y, *inputs)).sum(-1)
        if self.sizes.leader_below:
            multiplier, constraint = parts.leader_below, self.level("leader_below", x, y, *inputs)
            bound = multiplier.detach() > -constraint.detach()
            total = total + torch.where(bound, multiplier * constraint, -0.5 * multiplier.square()).sum(-1)
        return total

    def follower(self, w: Tensor, x: Tensor, active: Tensor, inactive: Tensor, *inputs: Tensor) -> Tensor:
        """The follower's Lagrangian ``(*batch)`` of ``w = (y, multipliers)``."""
        y, equal, below = w.split([self.sizes.y, self.sizes.equal, self.sizes.below], -1)
        total = self.level("follower", x, y, *inputs)
        if self.sizes.equal:
            total = total + (equal * self.level("follower_equal", x, y, *inputs)).sum(-1)
        if self.sizes.below:
            product = below * self.level("follower_below", x, y, *inputs)
            total = total + torch.where(active, product, torch.where(inactive, -0.5 * below.square(), 0.0)).sum(-1)
        return total

    def states(self, s: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the follower's inequalities are active and which are pinned at these numbers, bool ``(*batch, m)``.

        To hold a multiplier at zero is worth ``pull`` to the leader, to hold its constraint at zero ``push``.
        """
        parts = self.split(s)
        if not self.sizes.below:
            nothing = parts.below > 0
            return nothing, nothing
        pull, slack = self.prices(s, *inputs)
        push, multiplier = parts.adjoint[..., -self.sizes.below :].detach(), parts.below.detach()
        no_multiplier, no_slack = pull > multiplier, push > slack
        active = torch.where(no_multiplier == no_slack, multiplier > slack, no_slack)
        pinned = no_multiplier & no_slack
        return active & ~pinned, pinned

    def prices(self, s: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the follower's multipliers cost the leader, and the slacks of their constraints, ``(*batch, m)``."""
        parts = self.split(s)
        adjoint = parts.adjoint[..., : self.sizes.y].detach()

        def constraint(y: Tensor) -> Tensor:
            return self.level("follower_below", parts.x.detach(), y, *inputs)

        slack = -constraint(parts.y.detach()).detach()
        return calculus.jvp(constraint, [parts.y.detach()], [adjoint]).detach(), slack

    def unit(self, level: str, s: Tensor, *inputs: Tensor) -> Tensor:
        """The size of the derivatives of one level's objective ``(*batch)``, 1 where they vanish."""
        sizes = [self.sizes.x, self.sizes.y]

        def slope(joint: Tensor) -> Tensor:
            return calculus.gradient(lambda free: self.level(level, *free.split(sizes, -1), *inputs), joint)

        joint = s[..., : sum(sizes)]
        unit = slope(joint).detach().norm(dim=-1) + torch.linalg.matrix_norm(calculus.jacobian(slope, joint))
        return torch.where(unit.isfinite() & (unit > 0), unit, 1.0)

    def in_units(self, s: Tensor, *inputs: Tensor) -> tuple[TwoLevel, Tensor]:
        """The program with each objective divided by its unit at ``s``, and ``s`` over the unknowns of that program."""
        leader, follower = self.unit("leader", s, *inputs), self.unit("follower", s, *inputs)

        def level(part: str, x: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
            value = self.level(part, x, y, *inputs)
            return value / {"leader": leader, "follower": follower}[part] if part in ("leader", "follower") else value

        sizes, one = self.sizes, torch.ones_like(leader)
        below, rest = sizes.equal + sizes.below, sizes.leader_equal + sizes.leader_below
        spans = (one, sizes.x + sizes.y), (follower, below), (leader / follower, sizes.y), (leader, below + rest)
        ratio = torch.cat([unit.unsqueeze(-1).expand(*unit.shape, size) for unit, size in spans], -1)
        return replace(self, level=level), ratio

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The Lagrangian's gradient."""
        return calculus.gradient(self.value, y, *inputs)

    def vmapped(self, in_dims: Sequence[int | None]) -> TwoLevel:
        """The same programs on ``(B, *batch, n)``."""

        def level(part: str, x: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
            return calculus.batched(partial(self.level, part), (0, 0, *in_dims))(x, y, *inputs)

        return replace(self, level=level, batch_dims=self.batch_dims + 1, levels=(*self.levels, tuple(in_dims)))
