"""The layers: drop one into a model and call ``.backward()``."""

if __name__ != "bigrad.layers":
    raise ImportError(
        f"this folder is the package bigrad.layers, not {__name__!r}: use `from bigrad.layers import ...`"
    )

from bigrad.layers.argmin import ArgMin
from bigrad.layers.bilevel import Bilevel
from bigrad.layers.bilevel_combinatorial import BilevelCombinatorial
from bigrad.layers.combinatorial import Combinatorial
from bigrad.layers.convex_program import ConvexProgram
from bigrad.layers.quadratic_program import QuadraticProgram
from bigrad.layers.root import FixedPoint, Root
from bigrad.layers.soft_bellman import SoftBellman
from bigrad.layers.soft_response import SoftResponse

__all__ = [
    "ArgMin",
    "Bilevel",
    "BilevelCombinatorial",
    "Combinatorial",
    "ConvexProgram",
    "FixedPoint",
    "QuadraticProgram",
    "Root",
    "SoftBellman",
    "SoftResponse",
]
