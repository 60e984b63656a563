"""Third floor: Markov decision processes whose agent answers a reward."""

from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP, check_incentive
from .dense_transition import dense_transition
from .descent import Descent, History, descend
from .drlhf import DRLHF
from .hpgd import HPGD
from .leader_return import LeaderReturn
from .m_sobirl import MSoBiRL, Tracked
from .parl import PARL
from .paths import Paths, draw_paths, draw_until_they_meet, every_path
from .pbrl import PBRL
from .policy_iteration import PolicyIteration
from .policy_value import policy_value
from .response import (
    Branches,
    LeastSquaresCritic,
    ResponseEstimator,
    Trace,
    check_temperature_and_discount,
    soft_response,
)
from .sampling import Batch, Sampling, Weights, draw_batch, segment_gradient
from .segment_loss import SegmentLoss
from .segments import Rollouts, Segments
from .sobirl import SoBiRL
from .soft_bellman import SoftSolution, soft_bellman, solve_soft_bellman
from .sparse_transition import SparseTransition
from .stoc_sobirl import StocSoBiRL, importance_weights
from .value_iteration import ValueIteration

__all__ = [
    "DRLHF",
    "HPGD",
    "PARL",
    "PBRL",
    "Algorithm",
    "Batch",
    "BilevelMDP",
    "Branches",
    "Cost",
    "Descent",
    "History",
    "HyperGradient",
    "LeaderReturn",
    "LeastSquaresCritic",
    "MSoBiRL",
    "Paths",
    "PolicyIteration",
    "ResponseEstimator",
    "Rollouts",
    "Sampling",
    "SegmentLoss",
    "Segments",
    "SoBiRL",
    "SoftSolution",
    "SparseTransition",
    "StocSoBiRL",
    "Trace",
    "Tracked",
    "ValueIteration",
    "Weights",
    "check_incentive",
    "check_temperature_and_discount",
    "dense_transition",
    "descend",
    "draw_batch",
    "draw_paths",
    "draw_until_they_meet",
    "every_path",
    "importance_weights",
    "policy_value",
    "segment_gradient",
    "soft_bellman",
    "soft_response",
    "solve_soft_bellman",
]
