"""Robot navigation: charge the cells of a floor so that a robot with its own mind avoids the carpets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import LeaderReturn
from .gridworld import MOVES, grid_world
from .planning import best_return
from .reference import ReferenceProblem

FLOOR = (
    "        ",
    "   cc   ",
    "   cc   ",
    " ##cc## ",
    "   cc   ",
    "        ",
)  # c: carpet


def robot_navigation(
    temperature: float = 0.05, discount: float = 0.95, fail: float = 0.1, dtype: torch.dtype = torch.float64
) -> ReferenceProblem:
    r"""The robot is paid 1 at its station and charged :math:`softplus(x)` a cell; the leader also minds its carpets.

    The leader minimises less the robot's discounted arrival, plus half a unit for each step on a carpet. No charges do
    better than ``bound``, a robot that plans for the leader itself.

    Args:
        temperature: of the robot.
        fail: chance that a move goes another way.
    """
    grid = grid_world(FLOOR, fail, dtype)
    goal = (2, 7)
    transition, start, at_station = grid.ending(*goal), grid.at(2, 0), grid.at(*goal)
    carpet = torch.stack(
        [grid.at(row, column) for row, cells in enumerate(FLOOR) for column, cell in enumerate(cells) if cell == "c"]
    ).sum(0)
    wish = (at_station - 0.5 * carpet)[:, None].expand(-1, 4)
    returns = LeaderReturn(lambda x: -wish, discount)

    def reward(x: Tensor) -> Tensor:
        charges: Tensor = torch.nn.functional.softplus(x) * (1 - at_station)
        seen: Tensor = (at_station - charges)[:, None].expand(-1, 4)
        return seen

    return ReferenceProblem(
        reward=reward,
        transition=transition,
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: returns.expected(x, policy, transition, start),
        returns=returns,
        name="robot navigation",
        bound=-best_return(wish, transition, start, discount),
        init=torch.full_like(start, -3.0),
        layout=grid.layout,
        moves=MOVES,
    )
