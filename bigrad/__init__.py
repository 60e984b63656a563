"""Differentiable bilevel layers for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import gradients, linear, solvers
from .certificate import Certificate, Status
from .constraints import Constraints
from .errors import BigradError, InputError, MissingPackage, RunError, SolveError, SolveWarning, UnsupportedError
from .solvers import argmin, bilevel, fixed_point, root

if TYPE_CHECKING:
    from . import combinatorial, layers, mdp, problems

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
    "combinatorial",
    "fixed_point",
    "gradients",
    "layers",
    "linear",
    "mdp",
    "problems",
    "root",
    "solvers",
]


def __getattr__(name: str) -> Any:
    """The rooms upstairs are entered when first asked for: who calls a function door does not wait for them."""
    if name in ("combinatorial", "layers", "mdp", "problems"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
