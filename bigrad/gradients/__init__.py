"""First floor: give a solution ``y*(x)`` a derivative."""

from .first_order import FirstOrder
from .implicit import Implicit
from .one_step import OneStep
from .rule import GradientRule, Record, Steps, WarmStart
from .surrogates import surrogate
from .unrolled import Unrolled

__all__ = [
    "FirstOrder",
    "GradientRule",
    "Implicit",
    "OneStep",
    "Record",
    "Steps",
    "Unrolled",
    "WarmStart",
    "surrogate",
]
