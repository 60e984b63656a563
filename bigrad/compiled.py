"""When compiled code takes the place of the torch code: same answers, sooner."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from torch import Tensor

from .errors import MissingPackage, UnsupportedError


@cache
def installed(package: str) -> bool:
    """Whether an optional package is there, without importing it."""
    return find_spec(package) is not None


def runs_compiled(wanted: bool | None, cost: Tensor, package: str = "numba") -> bool:
    """Whether a package solves for this cost: where it is installed and the cost is in main memory, unless told.

    Raises:
        MissingPackage: the package is wanted and not installed.
        UnsupportedError: it is wanted, and the cost is on an accelerator.
    """
    if wanted is None:
        return cost.is_cpu and installed(package)
    if wanted and not installed(package):
        raise MissingPackage(package, "combinatorial", "compiled=True")
    if wanted and not cost.is_cpu:
        raise UnsupportedError(f"compiled=True: the cost is on {cost.device}; with compiled=None torch solves there")
    return wanted
