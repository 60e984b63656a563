"""Reward shaping: a small bonus on cells that leads a sleepy learner to its goal."""

from __future__ import annotations

import torch

from ..mdp import LeaderReturn
from .gridworld import MOVES, grid_world
from .planning import best_return
from .reference import ReferenceProblem

MAZE = (
    "       ",
    " ##### ",
    " #   # ",
    " # # # ",
    " # #   ",
    "   ### ",
    " #     ",
)


def reward_shaping(
    temperature: float = 0.03,
    discount: float = 0.95,
    size: float = 0.1,
    fail: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> ReferenceProblem:
    r"""The follower sees 1 at the goal and a bonus :math:`s \tanh(x)` elsewhere; the leader wants the goal soon.

    The leader minimises less the discounted chance to arrive, :math:`-E[\gamma^T]` with T the steps to the goal. The
    optimum is not known, but no policy does better than the shortest way, which is ``bound``.

    Args:
        temperature: of the follower; the higher, the longer it strays.
        size: the largest bonus s.
        fail: chance that a move goes another way.

    Source of the idea: Policy Invariance under Reward Transformations (Ng, Harada, Russell, 1999), whose potentials are
    the directions of ``x`` that change nothing.
    """
    grid = grid_world(MAZE, fail, dtype)
    states = len(grid.transition)
    goal = (3, 4)
    transition, start, at_goal = grid.ending(*goal), grid.at(0, 0), grid.at(*goal)

    returns = LeaderReturn(lambda x: -at_goal[:, None].expand(-1, 4), discount)

    return ReferenceProblem(
        reward=lambda x: (at_goal + size * torch.tanh(x) * (1 - at_goal))[:, None].expand(-1, 4),
        transition=transition,
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: returns.expected(x, policy, transition, start),
        returns=returns,
        name="reward shaping",
        bound=-best_return(at_goal[:, None].expand(-1, 4), transition, start, discount),
        init=torch.zeros(states, dtype=dtype),
        layout=grid.layout,
        moves=MOVES,
    )
