"""Second floor: find ``y*(x)``."""

from .argmin import Reading, argmin
from .gradient_descent import GradientDescent
from .lbfgs import LBFGS
from .solver import Solver

__all__ = ["LBFGS", "GradientDescent", "Reading", "Solver", "argmin"]
