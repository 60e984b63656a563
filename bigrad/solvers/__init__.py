"""Second floor: find ``y*(x)``."""

from typing import TYPE_CHECKING, Any

from .anderson import Anderson
from .argmin import ObjectiveReading, argmin
from .bilevel import BilevelReading, Levels, bilevel
from .broyden import Broyden
from .custom import Custom
from .fixed_point_iteration import FixedPointIteration
from .gradient_descent import GradientDescent
from .lbfgs import LBFGS
from .newton import Newton
from .reading import Reading
from .root import MappingReading, ResidualReading, fixed_point, root
from .solver import Solver
from .stackelberg import Stackelberg
from .stepping import Stepping
from .torch_optimizer import TorchOptimizer

if TYPE_CHECKING:
    from .interior_point import InteriorPoint
    from .quadratic_program import solve_quadratic_program

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


def __getattr__(name: str) -> Any:
    """Quadratic programs fill a floor of their own: it is entered when first asked for."""
    if name in ("InteriorPoint", "solve_quadratic_program"):
        from . import quadratic_program

        return getattr(quadratic_program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
