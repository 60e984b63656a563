"""Four Rooms with incentives: penalties on cells make a walker pass by a place that it has no interest in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import LeaderReturn
from .gridworld import FOUR_ROOMS, MOVES, grid_world
from .planning import best_return
from .reference import ReferenceProblem


def four_rooms(
    price: float = 1.0,
    goal: tuple[int, int] = (11, 11),
    temperature: float = 0.005,
    discount: float = 0.99,
    fail: float = 0.33,
    budget: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> ReferenceProblem:
    r"""A follower walks from (4, 1) to its goal; the leader is paid for each of its steps at (8, 4).

    The follower's reward is 1 at the goal, where its episode ends, and elsewhere the leader's penalty,
    :math:`-b\,\mathrm{softmax}(x)` without its last entry, which is the part of the budget b that is left unspent.
    The leader minimises less its own discounted pay: 1 a step at the target, and ``-price`` times the penalties' sum
    when the goal is reached. The landscape has many minima, and none is known in closed form: what is certified is the
    gradient, and ``bound``: what the leader would earn by walking itself.

    Args:
        price: of a unit of penalty.
        goal: row and column; the literature's two are (1, 9) and (11, 11).
        temperature: of the follower; the literature takes 0.001 to 0.005.
        fail: chance that a move goes another way. The published simulator and planner differ in it; here it is one.
        budget: the penalties' sum, at most.

    Source: Contextual Bilevel Reinforcement Learning for Incentive Alignment (Thoma, Pasztor, Krause, Ramponi, Hu,
    2024). Its goal is drawn anew at each step; here it is an argument.

    Example:
        >>> problem = four_rooms()
        >>> problem.reward(problem.init).shape
        torch.Size([104, 4])
    """
    grid = grid_world(FOUR_ROOMS, fail, dtype)
    states = len(grid.transition)
    transition, start = grid.ending(*goal), grid.at(4, 1)
    at_goal, at_target = grid.at(*goal), grid.at(8, 4)

    def penalty(x: Tensor) -> Tensor:
        shares: Tensor = torch.softmax(x, -1)[:-1] * (1 - at_goal)
        return shares * -budget

    def cost(x: Tensor) -> Tensor:
        earned = at_target + price * penalty(x).sum() * at_goal
        return -earned[:, None].expand(-1, 4)

    returns = LeaderReturn(cost, discount)

    return ReferenceProblem(
        reward=lambda x: (at_goal + penalty(x))[:, None].expand(-1, 4),
        transition=transition,
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: returns.expected(x, policy, transition, start),
        returns=returns,
        name="Four Rooms with incentives",
        bound=-best_return(at_target[:, None].expand(-1, 4), transition, start, discount),
        init=torch.zeros(states + 1, dtype=dtype),
        layout=grid.layout,
        moves=MOVES,
    )
