"""Differentiable bilevel layers for PyTorch."""

from . import gradients, layers, linear, mdp, solvers
from .certificate import Certificate, Status
from .constraints import Constraints
from .errors import BigradError, InputError, MissingPackage, RunError, SolveError, SolveWarning, UnsupportedError
from .solvers import argmin, bilevel, fixed_point, root

__version__ = "0.1.0"

__all__ = [
    "BigradError",
    "Certificate",
    "Constraints",
    "InputError",
    "MissingPackage",
    "RunError",
    "SolveError",
    "SolveWarning",
    "Status",
    "UnsupportedError",
    "argmin",
    "bilevel",
    "fixed_point",
    "gradients",
    "layers",
    "linear",
    "mdp",
    "root",
    "solvers",
]
