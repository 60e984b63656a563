"""Third floor: Markov decision processes whose agent answers a reward."""

from .response import (
    Branches,
    LeastSquaresCritic,
    ResponseEstimator,
    Trace,
    check_temperature_and_discount,
    soft_response,
)
from .segments import Rollouts, Segments
from .soft_bellman import SoftSolution, soft_bellman, solve_soft_bellman

__all__ = [
    "Branches",
    "LeastSquaresCritic",
    "ResponseEstimator",
    "Rollouts",
    "Segments",
    "SoftSolution",
    "Trace",
    "check_temperature_and_discount",
    "soft_bellman",
    "soft_response",
    "solve_soft_bellman",
]
