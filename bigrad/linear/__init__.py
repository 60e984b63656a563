"""Ground floor: solve ``A v = b`` knowing only ``v -> A v``."""

from .cg import CG
from .direct import Direct
from .solver import Factor, Kept, LinearSolver, Operator

__all__ = ["CG", "Direct", "Factor", "Kept", "LinearSolver", "Operator"]
