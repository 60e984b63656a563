"""Differentiable bilevel layers for PyTorch."""

from . import gradients, layers, linear, mdp, solvers
from .certificate import Certificate, Status
from .errors import BigradError, InputError, MissingPackage, RunError, SolveError, SolveWarning, UnsupportedError
from .solvers import argmin

__version__ = "0.1.0"

__all__ = [
    "BigradError",
    "Certificate",
    "InputError",
    "MissingPackage",
    "RunError",
    "SolveError",
    "SolveWarning",
    "Status",
    "UnsupportedError",
    "argmin",
    "gradients",
    "layers",
    "linear",
    "mdp",
    "solvers",
]
