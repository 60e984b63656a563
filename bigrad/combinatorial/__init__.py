"""Combinatorial solvers inside a network: oracles, estimators of their derivative, and leaders above them."""

from .adaptive_imle import AdaptiveIMLE
from .assignment import Assignment
from .bilevel_blackbox import BilevelBlackbox
from .bilevel_certificate import BilevelCertificate
from .bilevel_estimator import BilevelEstimator
from .bilevel_oracle import BilevelOracle
from .blackbox import Blackbox
from .difference import Difference, difference_quotient
from .estimator import Estimator
from .fenchel_young import FenchelYoung
from .fixed_levels import FixedLevels
from .function import Custom, oracle
from .graph_path import GraphShortestPath
from .identity import Identity
from .imle import IMLE
from .interdiction import Interdiction
from .knapsack import Knapsack
from .knapsack_interdiction import solve_knapsack_interdiction
from .mixed_integer import MixedInteger
from .noise import Gumbel, LogNormal, Noise, Normal, SumOfGamma
from .oracle import Oracle
from .oracle_certificate import OracleCertificate
from .pass_through import PassThrough
from .perturbed_optimizer import PerturbedOptimizer
from .ranking import Ranking
from .residual import Residual
from .rule import Rule, Sample
from .score import Score
from .shortest_path import ShortestPath
from .spanning_tree import SpanningTree
from .spo_plus import SPOPlus
from .step import RelativeStep, step_sizes
from .straight_through import StraightThrough
from .toll_setting import TollSetting
from .top_k import TopK
from .tour import Tour
from .zero_gradients import ZeroGradients

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "Assignment",
    "BilevelBlackbox",
    "BilevelCertificate",
    "BilevelEstimator",
    "BilevelOracle",
    "Blackbox",
    "Custom",
    "Difference",
    "Estimator",
    "FenchelYoung",
    "FixedLevels",
    "GraphShortestPath",
    "Gumbel",
    "Identity",
    "Interdiction",
    "Knapsack",
    "LogNormal",
    "MixedInteger",
    "Noise",
    "Normal",
    "Oracle",
    "OracleCertificate",
    "PassThrough",
    "PerturbedOptimizer",
    "Ranking",
    "RelativeStep",
    "Residual",
    "Rule",
    "SPOPlus",
    "Sample",
    "Score",
    "ShortestPath",
    "SpanningTree",
    "StraightThrough",
    "SumOfGamma",
    "TollSetting",
    "TopK",
    "Tour",
    "ZeroGradients",
    "difference_quotient",
    "oracle",
    "solve_knapsack_interdiction",
    "step_sizes",
]
