"""Second floor: find ``y*(x)``."""

from .anderson import Anderson
from .argmin import ObjectiveReading, argmin
from .bilevel import BilevelReading, Levels, bilevel
from .broyden import Broyden
from .custom import Custom
from .fixed_point_iteration import FixedPointIteration
from .gradient_descent import GradientDescent
from .interior_point import InteriorPoint
from .lbfgs import LBFGS
from .newton import Newton
from .quadratic_program import solve_quadratic_program
from .reading import Reading
from .root import MappingReading, ResidualReading, fixed_point, root
from .solver import Solver
from .stackelberg import Stackelberg
from .stepping import Stepping
from .torch_optimizer import TorchOptimizer

__all__ = [
    "LBFGS",
    "Anderson",
    "BilevelReading",
    "Broyden",
    "Custom",
    "FixedPointIteration",
    "GradientDescent",
    "InteriorPoint",
    "Levels",
    "MappingReading",
    "Newton",
    "ObjectiveReading",
    "Reading",
    "ResidualReading",
    "Solver",
    "Stackelberg",
    "Stepping",
    "TorchOptimizer",
    "argmin",
    "bilevel",
    "fixed_point",
    "root",
    "solve_quadratic_program",
]
