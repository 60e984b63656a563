"""A leader's number that is a discounted sum along the follower's path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from .policy_value import policy_value


@dataclass(frozen=True)
class LeaderReturn:
    r"""The number :math:`f(x, \pi) = E \sum_t \gamma_L^t \bar c_x(s_t, a_t) + e(x)`, which a leader minimises.

    Its slope in the policy is the leader's own action value at the places that the follower visits, so samples of paths
    give all of it: what :class:`~bigrad.mdp.HPGD` calls decomposable.

    Attributes:
        cost: ``x -> (S, A)``, what each step costs the leader; less than zero is a gain.
        discount: the leader's own :math:`\gamma_L`, ``0 <= discount < 1``.
        rest: ``x ->`` a number that no path has a part in; ``None`` is none.

    Example:
        >>> import torch
        >>> returns = LeaderReturn(lambda x: torch.tensor([[0.0, 4.0]]) * x, discount=0.5)
        >>> stay, start, policy = torch.ones(1, 2, 1), torch.ones(1), torch.tensor([[0.25, 0.75]])
        >>> returns.expected(torch.tensor(2.0), policy, stay, start)
        tensor(12.)
    """

    cost: Callable[[Tensor], Tensor]
    discount: float
    rest: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise InputError(f"the leader's discount is {self.discount}; wanted 0 <= discount < 1")

    def expected(self, x: Tensor, policy: Tensor, transition: Tensor, start: Tensor) -> Tensor:
        """The exact number, differentiable in ``x``, the policy and the transition."""
        total = start @ policy_value(policy, self.cost(x), transition, self.discount)[0]
        return total if self.rest is None else total + self.rest(x)
