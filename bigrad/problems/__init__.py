"""Reference problems with known answers."""

from .apprenticeship import apprenticeship
from .contract_design import contract_design
from .four_rooms import four_rooms
from .gridworld import Grid, grid_world
from .incentives import incentive_problem
from .planning import best_return
from .preferences import preference_problem
from .reference import ReferenceProblem
from .reward_shaping import reward_shaping
from .robot_navigation import robot_navigation
from .stackelberg_game import stackelberg_game
from .synthetic import synthetic_problem
from .tabular import TabularMDP, chain_mdp, random_mdp

__all__ = [
    "Grid",
    "ReferenceProblem",
    "TabularMDP",
    "apprenticeship",
    "best_return",
    "chain_mdp",
    "contract_design",
    "four_rooms",
    "grid_world",
    "incentive_problem",
    "preference_problem",
    "random_mdp",
    "reward_shaping",
    "robot_navigation",
    "stackelberg_game",
    "synthetic_problem",
]
