"""A random incentive problem: the leader pays, the follower answers, and both live in one random MDP."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import LeaderReturn, SegmentLoss
from .reference import ReferenceProblem
from .tabular import TabularMDP


def incentive_problem(
    mdp: TabularMDP,
    generator: torch.Generator,
    leader_discount: float = 0.8,
    price: float = 0.05,
    moving: bool = False,
    steps: int | None = None,
) -> ReferenceProblem:
    r"""Minimise the leader's discounted cost, :math:`E \sum_t \gamma_L^t \bar c(s_t, a_t) + \tfrac{p}{2} \|x\|^2`.

    Args:
        mdp: its reward is the follower's.
        generator: draws the leader's cost table and, if ``moving``, how the transition depends on ``x``.
        leader_discount: below 1.
        price: p.
        moving: whether the transition depends on ``x`` too.
        steps: after so many steps the cost ends, which is what segments see; ``None`` is never, and the problem has
            ``returns`` in place of a ``loss``.
    """
    states, actions, size = mdp.design.shape

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=mdp.design.dtype, device=generator.device)
        return drawn.to(mdp.design.device)

    cost, tilt = draw(states, actions), draw(states, actions, states, size)

    def transition(x: Tensor) -> Tensor:
        weighted = mdp.transition * (0.3 * torch.tanh(tilt @ x)).exp()
        total = weighted.sum(-1, keepdim=True)
        return weighted / torch.where(total > 0, total, 1.0)

    def price_of(x: Tensor) -> Tensor:
        return 0.5 * price * x.square().sum()

    loss = (
        None
        if steps is None
        else SegmentLoss(
            lambda x, segments: segments.discounted(cost, leader_discount)[:, 0] + price_of(x), steps=steps
        )
    )

    returns = LeaderReturn(lambda x: cost, leader_discount, price_of) if loss is None else None

    def leader(x: Tensor, policy: Tensor) -> Tensor:
        moves = transition(x) if moving else mdp.transition
        form = returns if loss is None else loss
        assert form is not None  # one of the two is there
        return form.expected(x, policy, moves, mdp.start)

    return ReferenceProblem(
        reward=mdp.reward,
        transition=transition if moving else mdp.transition,
        start=mdp.start,
        discount=mdp.discount,
        temperature=mdp.temperature,
        leader=leader,
        loss=loss,
        returns=returns,
        name="random incentive problem",
        init=draw(size),
    )
