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
    zero; active is whose multiplier exceeds its slack.

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
        w = torch.cat([y, parts.equal, parts.below], -1)
        conditions = calculus.gradient(lambda free: self.follower(free, x, *inputs), w)
        total = self.level("leader", x, y, *inputs) + (parts.adjoint * conditions).sum(-1)
        if self.sizes.leader_equal:
            total = total + (parts.leader_equal * self.level("leader_equal", x, y, *inputs)).sum(-1)
        if self.sizes.leader_below:
            total = total + complementary(parts.leader_below, self.level("leader_below", x, y, *inputs))
        return total

    def follower(self, w: Tensor, x: Tensor, *inputs: Tensor) -> Tensor:
        """The follower's Lagrangian ``(*batch)`` of ``w = (y, multipliers)``."""
        y, equal, below = w.split([self.sizes.y, self.sizes.equal, self.sizes.below], -1)
        total = self.level("follower", x, y, *inputs)
        if self.sizes.equal:
            total = total + (equal * self.level("follower_equal", x, y, *inputs)).sum(-1)
        if self.sizes.below:
            total = total + complementary(below, self.level("follower_below", x, y, *inputs))
        return total

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The Lagrangian's gradient."""
        return calculus.gradient(self.value, y, *inputs)

    def vmapped(self, in_dims: Sequence[int | None]) -> TwoLevel:
        """The same programs on ``(B, *batch, n)``."""

        def level(part: str, x: Tensor, y: Tensor, *inputs: Tensor) -> Tensor:
            return calculus.batched(partial(self.level, part), (0, 0, *in_dims))(x, y, *inputs)

        return replace(self, level=level, batch_dims=self.batch_dims + 1, levels=(*self.levels, tuple(in_dims)))


def complementary(multiplier: Tensor, constraint: Tensor) -> Tensor:
    """The Lagrangian's part of ``constraint <= 0``, by the active set at these numbers ``(*batch)``."""
    active = multiplier.detach() > -constraint.detach()
    return torch.where(active, multiplier * constraint, -0.5 * multiplier.square()).sum(-1)
