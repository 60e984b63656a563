"""First floor: give a solution ``y*(x)`` a derivative."""

from .implicit import Implicit
from .rule import GradientRule, Record
from .surrogates import surrogate

__all__ = ["GradientRule", "Implicit", "Record", "surrogate"]
