"""Ground floor: solve ``A v = b`` knowing only ``v -> A v``."""

from .bicgstab import BiCGStab
from .cg import CG
from .direct import Direct
from .factor import LU, Cholesky, multiply
from .gmres import GMRES
from .minres import MINRES
from .neumann import Neumann
from .preconditioner import Diagonal, Nystrom, Preconditioner
from .solver import Factor, Kept, LinearSolver, Operator

__all__ = [
    "CG",
    "GMRES",
    "LU",
    "MINRES",
    "BiCGStab",
    "Cholesky",
    "Diagonal",
    "Direct",
    "Factor",
    "Kept",
    "LinearSolver",
    "Neumann",
    "Nystrom",
    "Operator",
    "Preconditioner",
    "multiply",
]
